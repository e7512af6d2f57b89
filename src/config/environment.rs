//! The environment that this process was started with, read here and nowhere else.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::Socket;

use crate::sd_notify::SdNotify;
use crate::server::InheritedSocket;

const PREFIX: &str = "TILLGATE_";
/// The variables in which other programs find the address of a proxy.
const PROXIES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// Returns the name of the variable that sets this key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// The variables that this process was started with, and the sockets that they name.
pub(crate) struct Environment {
    variables: Vec<(String, OsString)>,
    inherited: Vec<Socket>,
}

impl Environment {
    /// Reads the environment of the process, and takes over the sockets that it names. Call it before any file is opened:
    /// a descriptor that was not passed after all could otherwise be one of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the environment"
    )]
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        // Removes the variables of sd_listen_fds(3), so that no child process takes the sockets for its own.
        let mut found = ListenFd::from_env();
        let inherited = (0..found.len()).filter_map(|i| match found.take_tcp_listener(i) {
            Ok(socket) => socket.map(OwnedFd::from),
            Err(_) => found
                .take_unix_listener(i)
                .ok()
                .flatten()
                .map(OwnedFd::from),
        });
        Self {
            variables,
            inherited: inherited.map(Socket::from).collect(),
        }
    }

    /// An environment without variables.
    pub(crate) fn empty() -> Self {
        Self {
            variables: Vec::new(),
            inherited: Vec::new(),
        }
    }

    fn get(&self, name: &str) -> Option<&OsString> {
        self.variables
            .iter()
            .find(|(other, value)| other == name && !value.is_empty())
            .map(|(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.to_str()?.parse().ok()
    }

    /// Returns the socket that was passed as this descriptor; `None` where no socket was passed at all, as when a person
    /// checks the configuration of a service.
    ///
    /// # Errors
    /// Fails if others were passed and this one was not, or if it cannot be listened on.
    pub(super) fn inherited(&self, number: RawFd) -> Result<Option<InheritedSocket>, String> {
        if let Some(socket) = self
            .inherited
            .iter()
            .find(|socket| socket.as_raw_fd() == number)
        {
            return InheritedSocket::new(socket).map(Some);
        }
        let meant = self
            .number("LISTEN_PID")
            .is_none_or(|id| id == u64::from(std::process::id()));
        match self.number("LISTEN_FDS").filter(|_| meant) {
            None | Some(0) => Ok(None),
            Some(count) => {
                let count = format!(
                    "{count} socket{}",
                    if count == 1 { " was" } else { "s were" }
                );
                Err(format!(
                    "{count} passed to this process, and none of TCP or a Unix stream has that number"
                ))
            }
        }
    }

    /// Returns the numbers of all sockets that were passed.
    pub(super) fn all_inherited(&self) -> impl Iterator<Item = RawFd> {
        self.inherited.iter().map(AsRawFd::as_raw_fd)
    }

    /// Returns the service manager that started this process, if it wants notifications (sd_notify(3),
    /// sd_watchdog_enabled(3)).
    ///
    /// # Errors
    /// Fails if its address is not one of a socket.
    pub(crate) fn service_manager(&self) -> io::Result<SdNotify> {
        let Some(address) = self.get("NOTIFY_SOCKET") else {
            return Ok(SdNotify::default());
        };
        let meant = self
            .number("WATCHDOG_PID")
            .is_none_or(|id| id == u64::from(std::process::id()));
        let watchdog = self
            .number("WATCHDOG_USEC")
            .filter(|limit| meant && *limit > 0);
        SdNotify::at(address, watchdog.map(Duration::from_micros))
    }

    /// Whether a debugger may be attached to this process.
    pub(crate) fn is_debuggable(&self) -> bool {
        self.get("TILLGATE_DEBUGGABLE")
            .is_some_and(|value| value == "1")
    }

    /// Whether output may have colours (<https://no-color.org>).
    pub(crate) fn wants_color(&self) -> bool {
        self.get("NO_COLOR").is_none()
    }

    /// Returns the names of the variables that are settings, which child processes must not inherit.
    pub(crate) fn names_of_settings(&self) -> impl Iterator<Item = &str> {
        self.settings().map(|(name, ..)| name)
    }

    /// Returns the names of the variables that would set one of these keys if they had a second underscore, each with that
    /// key. They set nothing, because Kubernetes makes variables of that form.
    pub(super) fn near_misses<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a String> + Clone,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let of_key = |key: &str| variable_of(key).replace("__", "_");
        let key = move |name: &str| {
            let mut keys = keys.clone();
            keys.find(|key| name.eq_ignore_ascii_case(&of_key(key)))
        };
        self.variables
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(move |(name, _)| Some((name.as_str(), key(name)?.as_str())))
    }

    /// Returns the names of the variables that name a proxy, none of which is read. Their values may have a password.
    pub(super) fn proxies(&self) -> impl Iterator<Item = &str> {
        let is_proxy = |name: &str| PROXIES.iter().any(|known| known.eq_ignore_ascii_case(name));
        let set = self.variables.iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, _)| name.as_str())
            .filter(move |name| is_proxy(name))
    }

    /// Returns the name, key and value of each variable that is a setting: those with two underscores behind the prefix.
    /// Kubernetes sets others with the same prefix (`TILLGATE_PORT`) where a Service is called tillgate.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, String, &OsString)> {
        self.variables.iter().filter_map(|(name, value)| {
            let path = name
                .strip_prefix(PREFIX)
                .filter(|path| path.contains("__"))?;
            Some((name.as_str(), path.to_lowercase().replace("__", "."), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_is_handed_on_however_its_variable_is_written() {
        let names = [
            "HOME",
            "TILLGATE_MERCHANT__SECRET",
            "TILLGATE_merchant__Secret",
            "TILLGATE_MERCHANT__SECRET_FILE",
        ];
        let variables = names.map(|name| (name.to_owned(), "value".into())).to_vec();
        let environment = Environment {
            variables,
            ..Environment::empty()
        };
        assert_eq!(
            environment.names_of_settings().collect::<Vec<_>>(),
            names[1..]
        );
    }
}
