//! TLS to a database: asked for by a message of PostgreSQL's own, and then as everywhere.

use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trouble::{Reason, Trouble};
use crate::client::{self, Side};

/// `SSLRequest`: its length, and a version that no protocol has.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Whether TLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// The server is on this machine.
    Never,
    /// A server without TLS is used without (`store.allow_plain_tcp`).
    IfOffered,
    Always,
}

/// Returns the configuration for these roots, or for the built-in ones.
///
/// # Errors
/// Says why the roots cannot be used.
pub(super) fn config(roots: Option<Arc<RootCertStore>>) -> Result<Arc<ClientConfig>, String> {
    let roots = roots.unwrap_or_else(|| {
        Arc::new(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        })
    });
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Asks the server whether it has TLS. The answer is read alone: a byte behind it would be from somebody on the way
/// (CVE-2021-23222).
pub(super) async fn is_offered(tcp: &mut TcpStream) -> Result<bool, Trouble> {
    let asked = async {
        tcp.write_all(&REQUEST).await?;
        tcp.read_u8().await
    };
    match asked.await {
        Ok(b'S') => Ok(true),
        // Servers older than SSLRequest answer with an error, and so does what has no protocol in common with us.
        Ok(b'N' | b'E') => Ok(false),
        Ok(_) => Err(Trouble::new(
            Reason::Refused,
            "what answers there is no PostgreSQL server",
        )),
        Err(error) => Err(broken(&error)),
    }
}

/// Does TLS with the server, whose certificate must be for this name or address.
pub(super) async fn handshake(
    config: Arc<ClientConfig>,
    name: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, Trouble> {
    let bare = name.strip_suffix('.').unwrap_or(name).to_owned();
    let name = ServerName::try_from(bare).map_err(|_| {
        Trouble::new(
            Reason::Refused,
            "no certificate can be for it: check store.url",
        )
    })?;
    let done = TlsConnector::from(config).connect(name, tcp).await;
    done.map_err(|error| broken(&error))
}

fn broken(error: &io::Error) -> Trouble {
    let reason = match client::is_of_tls(error) {
        true => Reason::Refused,
        false => Reason::Unreachable,
    };
    Trouble::new(reason, client::causes(Side::Store, error))
}
