//! Where a running sidecar is, as far as its configuration tells: for the commands that talk to it.

use std::path::Path;

use super::environment::Environment;
use super::load::Reading;
use super::{Config, Fault};
use crate::file;
use crate::serve::{Address, Entrance};
use crate::text::FilePath;

/// Where the admin listener of a running sidecar is, as far as this configuration tells: other faults do not matter.
pub(crate) fn admin_address(path: Option<&Path>, environment: &Environment) -> Result<Address, Vec<Fault>> {
    let config = part(path, environment, "admin.")?;
    Ok(config.admin.address.unwrap_or(Address::Localhost(8701)))
}

/// How the running sidecar's API is reached.
pub(crate) struct Reach {
    pub(crate) entrance: Entrance,
    /// The `Authorization` that it wants, if it wants one.
    pub(crate) token: Option<String>,
}

/// The same for the API listener, with the first of the tokens.
///
/// # Errors
/// What is wrong with the keys of that listener, or its token file.
pub(crate) fn reach(path: Option<&Path>, environment: &Environment) -> Result<Reach, Vec<Fault>> {
    let listen = part(path, environment, "listen.")?.listen;
    let entrance = listen.address.unwrap_or(Entrance::Tcp(Address::Localhost(8700)));
    if let Entrance::Passed(_) = entrance {
        let what = "only the running sidecar knows which socket that is".to_owned();
        let mend = "say where it listens: TILLGATE_LISTEN__ADDRESS=unix:/run/tillgate/api.sock tillgate …".to_owned();
        return Err(vec![Fault { key: "listen.address".to_owned(), place: entrance.to_string(), what, mend }]);
    }
    Ok(Reach { token: authorization(listen.token_file.as_ref())?, entrance })
}

/// The `Authorization` of a caller who has the first of the tokens.
pub(crate) fn authorization(token_file: Option<&FilePath>) -> Result<Option<String>, Vec<Fault>> {
    let Some(file) = token_file else { return Ok(None) };
    let fault = |what: String| {
        let (key, mend) = ("listen.token_file".to_owned(), "run this as a user who may read it".to_owned());
        let place =
            if file.could_be_a_secret() { "a file whose name is not shown".to_owned() } else { file.to_string() };
        vec![Fault { key, place, what, mend }]
    };
    let bytes = file::read(&file.0).map_err(|error| fault(error.to_string()))?;
    let tokens = String::from_utf8_lossy(&bytes);
    let token = tokens.lines().find(|line| !line.is_empty()).ok_or_else(|| fault("it is empty".to_owned()))?;
    Ok(Some(format!("Bearer {}", token.trim_end())))
}

/// A configuration of which only the keys that begin so need to be right.
fn part(path: Option<&Path>, environment: &Environment, keys: &str) -> Result<Config, Vec<Fault>> {
    let mut reading = Reading::new();
    reading.file(path);
    reading.environment(environment);
    let config = reading.extract();
    reading.faults.retain(|fault| fault.key.starts_with(keys) || fault.key == "--config");
    if reading.faults.is_empty() { Ok(config) } else { Err(reading.faults) }
}
