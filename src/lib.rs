//! tillgate keeps a payment secret out of merchant apps: a reverse-proxy sidecar between an app and its payment
//! gateway. See the README for what it does, and `docs/architecture.md` for how it is built.
//!
//! The crate is a house with floors. A file names only files of lower floors, the rooms of one floor do not see each
//! other, and the files of a room stand in an order, too. `tests/it/layers.rs` fails where that is broken.
//!
//! | floor | rooms | |
//! |---|---|---|
//! | 8 | `main`, [`cli`] | arguments, exit codes |
//! | 7 | `app` | builds from the ground up, binds, runs, drains: the only file that knows everything |
//! | 6 | `config` | puts the sections together that the rooms below define; loads and explains them |
//! | 5 | `api`, `admin`, `sandbox` | HTTP in |
//! | 4 | `start`, `watch`, `webhook` | the stories; no HTTP word in them but in `webhook/send.rs` |
//! | 3 | `gateway`, `store` | the way to the gateway; what must not be forgotten |
//! | 2 | `client`, `limit`, `tasks`, `secret`, `server`, `readiness`, `signals`, `sd_notify`, `telemetry`, `hardening`, `html` | mechanisms; no payment word in them |
//! | 1 | `payment`; `clock`, `file`, `json`, `random`, `size`, `text` | the words; what everybody needs |

mod admin;
mod api;
pub mod app;
pub mod cli;
mod client;
mod clock;
mod config;
mod file;
mod gateway;
mod hardening;
mod json;
mod limit;
mod payment;
mod random;
mod readiness;
pub mod sandbox;
mod sd_notify;
mod secret;
mod server;
mod signals;
mod size;
mod start;
mod store;
mod tasks;
mod telemetry;
mod text;
mod watch;
mod webhook;

/// Access to some rooms for the programs in `tests/fuzz`. Not part of tillgate itself.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::config::fuzz as config;
    pub use crate::gateway::fuzz as gateway;
    pub use crate::server::fuzz as server;
    pub use crate::start::fuzz as start;
    pub use crate::store::fuzz as store;
}
