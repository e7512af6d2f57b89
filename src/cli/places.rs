//! The sockets of `tillgate dev`, and the URLs of its parts.

use crate::app::{Bound, CannotBind};
use crate::server::Address;
use crate::{admin, api};

/// Where the sandbox usually is.
const SANDBOX: Address = Address::Localhost(8081);

/// The URLs of the parts of a running `dev`.
pub(super) struct Places {
    /// The API.
    pub(super) api: String,
    /// Probes, metrics and the status page.
    pub(super) admin: String,
    /// The sandbox gateway.
    pub(super) sandbox: String,
    /// Which usual ports were taken by another program, and where those parts are now.
    pub(super) moved: Vec<String>,
}

/// The sockets of a `dev` that is not running yet.
pub(super) struct Sockets {
    pub(super) sandbox: Bound,
    pub(super) api: Bound,
    pub(super) admin: Bound,
}

impl Sockets {
    /// Opens all three: at its usual port, or at a free one where that is taken.
    ///
    /// # Errors
    /// The first one that cannot be opened at any port.
    pub(super) fn open() -> Result<Self, CannotBind> {
        Ok(Self {
            sandbox: bind_or_next("sandbox", SANDBOX)?,
            api: bind_or_next("listen.address", api::DEFAULT_ADDRESS)?,
            admin: bind_or_next("admin.address", admin::DEFAULT_ADDRESS)?,
        })
    }

    /// The URLs at which they are reached.
    pub(super) fn places(&self) -> Places {
        let url = |bound: &Bound| format!("http://{}", bound.address.reachable());
        let parts = [
            ("the API", api::DEFAULT_ADDRESS, &self.api),
            ("the admin listener", admin::DEFAULT_ADDRESS, &self.admin),
            ("the sandbox gateway", SANDBOX, &self.sandbox),
        ];
        Places {
            api: url(&self.api),
            admin: url(&self.admin),
            sandbox: url(&self.sandbox),
            moved: parts
                .iter()
                .filter(|(_, usual, now)| usual.port() != now.address.port())
                .map(|(part, usual, now)| {
                    let (usual, now) = (usual.port(), now.address.port());
                    format!("Port {usual} is taken by another program: {part} is on port {now}.")
                })
                .collect(),
        }
    }
}

/// Opens the usual port, or a free one if that is taken.
fn bind_or_next(key: &'static str, address: Address) -> Result<Bound, CannotBind> {
    match Bound::new(key, address) {
        Err(error) if error.is_taken() => Bound::new(key, address.with_port(0)),
        bound => bound,
    }
}
