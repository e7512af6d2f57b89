//! Where a running sidecar listens according to its configuration, for the commands that talk to it, and the name of its
//! schema, for the one that prints it.

use std::path::Path;

use super::environment::Environment;
use super::reading::{Diagnostic, Reading};
use super::sections::Config;
use crate::file;
use crate::server::{Address, ListenAddr};
use crate::store::{self, Place};
use crate::text::FilePath;

/// Returns the address of the admin listener.
///
/// # Errors
/// Returns what is wrong with the keys of `[admin]`; faults elsewhere do not matter.
pub(crate) fn admin_address(
    path: Option<&Path>,
    environment: &Environment,
) -> Result<Address, Vec<Diagnostic>> {
    let config = part(path, environment, "admin.")?;
    Ok(config.admin.address)
}

/// How to reach the API of a running sidecar.
pub(crate) struct Reach {
    /// TCP, or a Unix socket.
    pub(crate) listen_addr: ListenAddr,
    /// The value of the `Authorization` field, if the API wants one.
    pub(crate) token: Option<String>,
}

/// Returns an address of the API listener, and the first of its tokens: `api`, else the Unix socket among those
/// configured, else the first.
///
/// # Errors
/// Returns what is wrong with the keys of `[listen]` that are needed, or with its token file. Inherited sockets alone are
/// an error too, since only the running sidecar has them.
pub(crate) fn reach(
    path: Option<&Path>,
    environment: &Environment,
    api: Option<ListenAddr>,
) -> Result<Reach, Vec<Diagnostic>> {
    let needed = match api {
        Some(_) => "listen.token_file",
        None => "listen.",
    };
    let listen = part(path, environment, needed)?.listen;
    let mut addresses = api.map_or(listen.address, |api| vec![api]);
    addresses.retain(|address| !matches!(address, ListenAddr::Inherited(_)));
    let unix = addresses
        .iter()
        .position(|address| matches!(address, ListenAddr::Unix(_)));
    let Some(listen_addr) = addresses.into_iter().nth(unix.unwrap_or(0)) else {
        return Err(vec![Diagnostic {
            key: "listen.address".to_owned(),
            place: "fd:".to_owned(),
            what: "only the running sidecar knows which socket that is".to_owned(),
            help: "say where it listens, like: --api unix:/run/tillgate/api.sock".to_owned(),
        }]);
    };
    Ok(Reach {
        token: authorization(listen.token_file.as_ref())?,
        listen_addr,
    })
}

/// Returns the value of the `Authorization` field for the first token of the file; `None` without a file.
///
/// # Errors
/// Fails if the file cannot be read, or is empty.
pub(crate) fn authorization(
    token_file: Option<&FilePath>,
) -> Result<Option<String>, Vec<Diagnostic>> {
    let Some(file) = token_file else {
        return Ok(None);
    };
    let diagnostic = |what: String| {
        let (key, help) = (
            "listen.token_file".to_owned(),
            "name the file that the sidecar has, and run this as a user who may read it".to_owned(),
        );
        let place = if file.could_be_a_secret() {
            "a file whose name is not shown".to_owned()
        } else {
            file.to_string()
        };
        vec![Diagnostic {
            key,
            place,
            what,
            help,
        }]
    };
    let bytes = file::read(&file.0).map_err(|error| diagnostic(error.to_string()))?;
    let tokens = String::from_utf8_lossy(&bytes);
    let token = tokens
        .lines()
        .find(|line| !line.is_empty())
        .ok_or_else(|| diagnostic("it is empty".to_owned()))?;
    Ok(Some(format!("Bearer {}", token.trim_end())))
}

/// Returns the schema of the store's database, or the usual one if it has none.
///
/// # Errors
/// Returns what is wrong with `store.url`; faults elsewhere do not matter.
pub(crate) fn schema(
    path: Option<&Path>,
    environment: &Environment,
) -> Result<String, Vec<Diagnostic>> {
    let config = part(path, environment, "store.url")?;
    Ok(match &config.store.url {
        Place::Fleet(url) => url.schema().to_owned(),
        Place::Memory | Place::Directory(_) => store::SCHEMA.to_owned(),
    })
}

/// Returns a configuration in which only the keys with this prefix have to be right.
fn part(
    path: Option<&Path>,
    environment: &Environment,
    keys: &str,
) -> Result<Config, Vec<Diagnostic>> {
    let mut reading = Reading::new();
    reading.file(path);
    reading.environment(environment);
    let config = reading.extract();
    reading
        .diagnostics
        .retain(|diagnostic| diagnostic.key.starts_with(keys) || diagnostic.key == "--config");
    if reading.diagnostics.is_empty() {
        Ok(config)
    } else {
        Err(reading.diagnostics)
    }
}
