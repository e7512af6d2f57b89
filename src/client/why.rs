//! Why a connection fails, in words that an operator can act on.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

use crate::text;

/// Which section of the configuration a client belongs to. Errors name the keys of that section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Gateway,
    Webhook,
    /// A database has a client of its own, and the words from here.
    Store,
}

impl Side {
    /// Returns the full name of a key of that section.
    pub(super) fn key(self, name: &str) -> String {
        let section = match self {
            Self::Gateway => "gateway",
            Self::Webhook => "webhook",
            Self::Store => "store",
        };
        format!("{section}.{name}")
    }
}

/// The most names of a certificate that an error lists: a certificate may have thousands.
const MAX_NAMES: usize = 3;
/// The most characters of each: a DNS name has no more.
const MAX_NAME: usize = 253;

/// Returns the error with all its causes. The outermost alone often says no more than "connection error". What the other
/// side put into it, such as the names in its certificate, cannot command a terminal.
pub(crate) fn causes(side: Side, error: &(dyn Error + 'static)) -> String {
    text::printable(&all_causes(side, error)).collect()
}

fn all_causes(side: Side, error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for error in chain(error) {
        // A TLS error explains the failure by itself.
        if let Some(tls) = of_tls(error) {
            return words(side, tls);
        }
        let line = match error.downcast_ref::<io::Error>() {
            // The texts of rustls and of the standard library for this are not meant for operators.
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "it closed the connection".to_owned()
            }
            _ => error.to_string(),
        };
        if !text.ends_with(&line) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&line);
        }
    }
    text
}

/// Whether the other side ended the handshake because of the client certificate. In TLS 1.3 it checks that certificate
/// when the client may have sent a request already, and discards the request unread (RFC 8446, sections 4.4.2.4 and 6.2).
pub(super) fn is_refused_handshake(error: &(dyn Error + 'static)) -> bool {
    chain(error).filter_map(of_tls).any(|error| match error {
        rustls::Error::AlertReceived(alert) => is_about_our_certificate(*alert),
        _ => false,
    })
}

/// Whether TLS failed, rather than the connection below it.
pub(crate) fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| of_tls(error).is_some())
}

fn is_about_our_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            // The signature does not match the certificate, or a certificate of its chain.
            | Alert::DecryptError
    )
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Returns the TLS error in this one. An I/O error does not name the error inside it as its source, and that may be another
/// I/O error.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => of_tls(error.get_ref()?),
        None => error.downcast_ref(),
    }
}

fn words(side: Side, error: &rustls::Error) -> String {
    use rustls::Error as Tls;
    match (error, side) {
        (Tls::InvalidCertificate(error), _) => of_certificate(side, error),
        (
            Tls::AlertReceived(AlertDescription::ProtocolVersion)
            | Tls::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ),
            _,
        ) => "it speaks neither TLS 1.2 nor TLS 1.3".to_owned(),
        (Tls::AlertReceived(AlertDescription::CertificateRequired), Side::Gateway) => {
            "it asks for a client certificate: set gateway.client_cert_file and gateway.client_key_file".to_owned()
        }
        (Tls::AlertReceived(AlertDescription::CertificateRequired), Side::Webhook) => {
            "it asks for a client certificate: webhooks are signed, and have none".to_owned()
        }
        (Tls::AlertReceived(AlertDescription::CertificateRequired), Side::Store) => {
            "it asks for a client certificate, and tillgate has none for a database: let it take a password".to_owned()
        }
        (Tls::AlertReceived(alert), Side::Gateway) if is_about_our_certificate(*alert) => {
            format!("it refuses the client certificate (gateway.client_cert_file): TLS alert {alert:?}")
        }
        (Tls::AlertReceived(alert @ AlertDescription::HandshakeFailure), Side::Gateway) => {
            format!("it refuses the handshake (does it ask for gateway.client_cert_file?): TLS alert {alert:?}")
        }
        (Tls::InvalidMessage(InvalidMessage::InvalidContentType), _) => {
            "what answers there does not speak TLS".to_owned()
        }
        (other, _) => other.to_string(),
    }
}

fn of_certificate(side: Side, error: &CertificateError) -> String {
    let (url, ca_file) = (side.key("url"), side.key("ca_file"));
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: it must be renewed there, unless the clock of this machine is wrong"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: check the clock of this machine".to_owned()
        }
        CertificateError::UnknownIssuer => format!(
            "its certificate is signed by an authority that is not known here, or by itself: name a PEM file with the root of it in {ca_file}"
        ),
        CertificateError::BadSignature => format!(
            "its certificate names an authority that is known here, but is signed with another key: check {ca_file}"
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                return format!(
                    "its certificate names no host (subjectAltName; a name in CN does not count), so it is not one for {expected}"
                );
            }
            let names: Vec<String> =
                presented.iter().take(MAX_NAMES).map(|name| bare(name).chars().take(MAX_NAME).collect()).collect();
            let more = if presented.len() > MAX_NAMES { " and others" } else { "" };
            format!("its certificate is not one for {expected}, but for {}{more}: check {url}", names.join(", "))
        }
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => format!(
            "its certificate is that of an authority (or signed by itself): it needs one of its own, whose root {ca_file} may name"
        ),
        other => format!("its certificate cannot be accepted: {other}"),
    }
}

/// Returns the name out of the form in which rustls prints it: `DnsName("pay.example")`, `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn what_a_certificate_says_cannot_command_a_terminal() {
        let expected = ServerName::try_from("pay.example").unwrap();
        let presented = vec!["DnsName(\"\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}evil\")".to_owned()];
        let name = CertificateError::NotValidForNameContext {
            expected,
            presented,
        };
        let long = CertificateError::InvalidPurposeContext {
            required: rustls::ExtendedKeyPurpose::ServerAuth,
            presented: vec![],
        };
        for (error, part) in [(name, "]0;owned2Jevil"), (long, "cannot be accepted")] {
            let said = causes(Side::Gateway, &rustls::Error::InvalidCertificate(error));
            assert!(said.contains(part), "{said:?}");
            assert!(
                !said.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']),
                "{said:?}"
            );
        }
    }
}
