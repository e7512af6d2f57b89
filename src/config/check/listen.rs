//! `[listen]` and `[admin]`: where to listen, and who is let in.

use std::sync::Arc;

use super::super::environment::Environment;
use super::super::reading::Reading;
use super::super::sections::Config;
use crate::api::Tokens;
use crate::file::ReloadableFile;
use crate::server::{InheritedSocket, ListenAddr, SocketFile};

const KEY: &str = "listen.address";

impl Reading {
    /// Returns the inherited sockets that `listen.address` names, as far as they are there.
    pub(super) fn check_listen_addrs(
        &mut self,
        config: &Config,
        environment: &Environment,
    ) -> Vec<InheritedSocket> {
        let mut inherited = Vec::new();
        let addresses = &config.listen.address;
        for (i, address) in addresses.iter().enumerate() {
            if let Some(other) = addresses[..i].iter().find(|other| other.overlaps(address)) {
                let what = format!("{other} and {address} are the same place");
                self.report(KEY, self.place(KEY), what, "leave one of them out");
            }
            match address {
                ListenAddr::Inherited(number) => match environment.inherited(*number) {
                    Ok(socket) => inherited.extend(socket),
                    Err(what) => {
                        let help = "name one that listens, or repair what passes it (systemd: the socket unit)";
                        self.report(KEY, self.place(KEY), what, help);
                    }
                },
                ListenAddr::Unix(path) => {
                    if let Some(what) = SocketFile::in_the_way(path) {
                        let help = "remove it, or name another path";
                        self.report(KEY, self.place(KEY), what, help);
                    }
                }
                ListenAddr::Tcp(_) => {}
            }
        }
        for number in environment.all_inherited() {
            if !addresses.contains(&ListenAddr::Inherited(number)) {
                self.remarks.warnings.push(format!(
                    "a socket was passed as fd:{number}, and nobody answers there: name it in listen.address too, such as [\"fd:3\", \"fd:4\"], or take it out of the socket unit"
                ));
            }
        }
        inherited
    }

    /// The admin listener must not have an address of the API.
    pub(super) fn check_admin_addr(&mut self, config: &Config) {
        const KEY: &str = "admin.address";
        let admin = ListenAddr::Tcp(config.admin.address);
        let mut of_api = config.listen.address.iter();
        if of_api.any(|address| address.overlaps(&admin)) {
            let what = "it is the same as listen.address";
            self.report(KEY, self.place(KEY), what, "take another port, like 8701");
        }
    }

    /// Returns `Some(None)` where no tokens are configured, and none are needed.
    pub(super) fn check_tokens(
        &mut self,
        config: &Config,
        inherited: &[InheritedSocket],
    ) -> Option<Option<Arc<ReloadableFile<Tokens>>>> {
        const FILE: &str = "listen.token_file";
        let Some(path) = &config.listen.token_file else {
            let is_exposed = |address: &&ListenAddr| match address {
                ListenAddr::Tcp(address) => !address.is_loopback(),
                ListenAddr::Inherited(number) => inherited
                    .iter()
                    .any(|socket| socket.number() == *number && socket.is_exposed()),
                ListenAddr::Unix(_) => false,
            };
            if let Some(exposed) = config.listen.address.iter().find(is_exposed) {
                let what = format!(
                    "other machines can reach {exposed}, and without tokens all of them could start payments"
                );
                let help = "listen on localhost:8700, or set listen.token_file";
                self.report(KEY, self.place(KEY), what, help);
            }
            return Some(None);
        };
        match ReloadableFile::open(&path.0, Tokens::parse) {
            Ok(file) if file.get().is_some() => Some(Some(Arc::new(file))),
            other => {
                let what = other
                    .err()
                    .unwrap_or_else(|| "the file is missing".to_owned());
                let help = "write one token a line, for example with: openssl rand -hex 32";
                self.report(FILE, self.named(path, FILE), what, help);
                None
            }
        }
    }
}
