//! `tillgate sandbox`: the sandbox gateway alone.

use std::time::Duration;

use super::exit::Exit;
use super::output::{answer, failed};
use crate::app::{self, Bound};
use crate::sandbox::{Fault, Options, Sandbox};
use crate::server::Address;
use crate::signals::{Signal, Signals};

/// Runs a sandbox gateway at this address until a signal ends it.
pub(super) async fn sandbox(
    listen: Address,
    secret: String,
    auto_complete: Option<Duration>,
    faults: Vec<Fault>,
) -> Exit {
    let bound = match Bound::new("--listen", listen) {
        Ok(bound) => bound,
        Err(error) => return failed(&error),
    };
    let mut signals = match Signals::listen(Signal::Terminate) {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let url = match bound.address {
        Address::One(address) => format!("http://{address}"),
        Address::Localhost(port) | Address::Everywhere(port) => format!("http://127.0.0.1:{port}"),
    };
    let sandbox = Sandbox::new(Options {
        secret,
        auto_complete,
        faults,
        ..Options::default()
    });
    app::serve_sandbox(bound, &sandbox);
    answer(&format!("sandbox listening on {url}"));
    signals.next().await;
    Exit::Fine
}
