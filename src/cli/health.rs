//! `tillgate health`: for the HEALTHCHECK of a container, exec probes, and scripts without curl.

use std::path::Path;
use std::time::Duration;

use hyper::Request;
use hyper::header::HOST;

use super::client;
use super::exit::Exit;
use super::output::{complain, misconfigured};
use crate::clock;
use crate::config::{self, Environment};

/// The time between two requests.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the admin listener whether the sidecar is ready: once, or again and again until `wait` is over.
pub(super) async fn health(
    path: Option<&Path>,
    environment: &Environment,
    wait: Option<Duration>,
) -> Exit {
    let address = match config::admin_address(path, environment) {
        Ok(address) => address.reachable(),
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    let deadline = clock::now() + wait.unwrap_or_default();
    loop {
        // A request may take this long even if the wait ends in between.
        let question = clock::timeout(Duration::from_secs(2), ask(&address));
        let why = match question
            .await
            .unwrap_or_else(|_| Err("no answer within 2s".to_owned()))
        {
            Ok(()) => return Exit::Fine,
            Err(why) => why,
        };
        if clock::now() + PAUSE > deadline {
            complain(&why);
            return Exit::Failed;
        }
        clock::sleep(PAUSE).await;
    }
}

async fn ask(address: &str) -> Result<(), String> {
    let request = Request::get(format!("http://{address}/readyz?verbose"))
        .header(HOST, "localhost")
        .body(Default::default());
    let request = request.map_err(|error| error.to_string())?;
    match client::call(request).await {
        Ok(answer) if answer.status.is_success() => Ok(()),
        Ok(answer) => Err(format!(
            "not ready: {}",
            answer.body.trim().replace('\n', ", ")
        )),
        Err(_) => Err(format!(
            "nothing answers at http://{address}/readyz: is tillgate running, and is admin.address right?"
        )),
    }
}
