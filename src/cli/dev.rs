//! `tillgate dev`: the sidecar, with a sandbox gateway behind it.

use secrecy::SecretString;

use super::{Exit, answer, begin, cannot_bind, failed, tell, tour};
use crate::app::{App, Behind, Bound, CannotBind, End, serve_sandbox};
use crate::config::{self, Environment, Source};
use crate::manager::Manager;
use crate::sandbox::{DEFAULT_SECRET, Options, Sandbox};
use crate::serve::Address;

/// Where the parts of a running `dev` are.
pub(super) struct Places {
    /// The API.
    pub(super) api: String,
    /// Probes, metrics and the status page.
    pub(super) admin: String,
    /// The sandbox gateway.
    pub(super) sandbox: String,
}

/// Runs until asked to end; with `tour`, until the tour is over.
pub(super) async fn dev(tour: bool, environment: &Environment) -> Exit {
    let bound = bind_or_next("sandbox", Address::Localhost(8081))
        .and_then(|sandbox| Ok((sandbox, bind_or_next("listen.address", Address::Localhost(8700))?)))
        .and_then(|(sandbox, api)| Ok((sandbox, api, bind_or_next("admin.address", Address::Localhost(8701))?)));
    let (sandbox, api, admin) = match bound {
        Ok(bound) => bound,
        Err(error) => return cannot_bind(&error),
    };
    let places = Places {
        api: format!("http://{}", api.address.reachable()),
        admin: format!("http://{}", admin.address.reachable()),
        sandbox: format!("http://{}", sandbox.address.reachable()),
    };
    let mut given = vec![("gateway.url", places.sandbox.as_str()), ("gateway.public_url", "")];
    if tour {
        // The tour prints what happens; the log would say it twice.
        given.push(("log.level", "warn"));
    }
    let loaded = match config::load(Source::Given(&given, SecretString::from(DEFAULT_SECRET)), environment) {
        Ok(loaded) => loaded,
        Err(faults) => return tell(&faults),
    };
    let (mut signals, _log) = match begin(&loaded.config.log, environment) {
        Ok(begun) => begun,
        Err(exit) => return exit,
    };
    serve_sandbox(sandbox, &Sandbox::new(Options::default()));
    let app = match App::build(loaded, Behind::Network, true) {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let manager = Manager::default();
    if tour {
        return tokio::select! {
            _ = app.run(api.into(), admin, &mut signals, &manager) => Exit::Failed,
            walked = tour::walk(&places) => walked.map_or_else(|error| failed(&*error), |()| Exit::Fine),
        };
    }
    answer(&banner(&places));
    match app.run(api.into(), admin, &mut signals, &manager).await {
        End::Drained => Exit::Fine,
        End::Forced | End::Broken => Exit::Failed,
    }
}

/// The usual port, or a free one where it is taken.
fn bind_or_next(key: &'static str, address: Address) -> Result<Bound, CannotBind> {
    match Bound::new(key, address) {
        Err(error) if error.is_taken() => Bound::new(key, address.with_port(0)),
        bound => bound,
    }
}

fn banner(places: &Places) -> String {
    let Places { api, admin, sandbox } = places;
    format!(
        r#"
  tillgate {version} · dev: a sandbox gateway, no money moves

  API      {api}   what your app calls, without a secret
  Admin    {admin}   a page of how it goes, /readyz?verbose, /metrics, /status
  Gateway  {sandbox}   the sandbox: /dev/api, the pay page, the portal

  Paste these one after the other, in another terminal:

  # 1. Start a payment: only an amount, and where the payer returns to
  P=$(curl -s {api}/api/start_payment -H 'Content-Type: application/json' -d '{{"amount": 1000, "redirect": "{sandbox}/"}}'); echo "$P"

  # 2. Pay: open this in a browser and click Pay
  echo "$P" | sed 's/.*"pay_url":"\([^"]*\)".*/\1/'

  # 3. Watch: "created", and "completed" once it is paid
  curl -s {api}/watch/$(echo "$P" | sed 's/.*"watch_code":"\([^"]*\)".*/\1/'); echo

  Ctrl-C ends it.
"#,
        version = env!("CARGO_PKG_VERSION")
    )
}
