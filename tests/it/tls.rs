//! TLS to the gateway: whom the sidecar believes, who it is itself, and that nothing leaves where one of the two is
//! not as it should be.

mod client;
mod database;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tillgate::sandbox::DEFAULT_SECRET;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::harness::{ORDER, Program, get_at, metric_at, run, start_at};
use crate::scripted::{
    Act, Gateway, PROXY_VARIABLES, STARTED, WATCHED, answer, as_told, good, told,
};
use crate::server::Server;

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = named(&[]);
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self {
            issuer: Issuer::new(parameters, key),
            der,
            pem,
        }
    }

    /// A certificate of this authority.
    fn signs(&self, parameters: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key,
        }
    }

    /// Asks clients for a certificate of this authority.
    fn demanded(&self) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .unwrap()
    }
}

impl Identity {
    fn cert_pem(&self) -> String {
        use base64::Engine;
        let der = base64::engine::general_purpose::STANDARD.encode(&self.chain[0]);
        format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n")
    }

    fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

fn named(names: &[&str]) -> CertificateParams {
    CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn server(
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> TlsAcceptor {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients),
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
    TlsAcceptor::from(Arc::new(
        builder
            .with_single_cert(identity.chain.clone(), key)
            .unwrap(),
    ))
}

/// Files of a test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes one, and gives its path as text.
    fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// What a server does with a connection.
#[derive(Clone)]
enum Serves {
    Tls(TlsAcceptor),
    /// Writes these bytes as soon as something came.
    Says(Vec<u8>),
}

/// A server that notes down everything it gets.
struct Listening {
    server: Server,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    handshakes: usize,
    /// As it came over the wire, connection by connection.
    wire: Vec<Vec<u8>>,
    /// What was behind the TLS.
    plain: Vec<u8>,
    /// The certificate that each client showed.
    clients: Vec<CertificateDer<'static>>,
}

impl Listening {
    async fn new(serves: Serves) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let all = seen.clone();
        let server = Server::new(move |stream| {
            let number = {
                let mut seen = all.lock().unwrap();
                seen.wire.push(Vec::new());
                seen.connections += 1;
                seen.connections - 1
            };
            let seen = all.clone();
            let tapped = Tapped {
                stream,
                number,
                seen,
            };
            serve(tapped, serves.clone())
        });
        Self {
            server: server.await,
            seen,
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.server.address.port())
    }
}

async fn serve(mut stream: Tapped, serves: Serves) {
    let (seen, mut bytes) = (stream.seen.clone(), Vec::new());
    match serves {
        Serves::Tls(acceptor) => match acceptor.accept(stream).into_fallible().await {
            Ok(mut stream) => {
                {
                    let mut seen = seen.lock().unwrap();
                    seen.handshakes += 1;
                    let client = stream
                        .get_ref()
                        .1
                        .peer_certificates()
                        .map(|chain| chain[0].clone().into_owned());
                    seen.clients.extend(client);
                }
                while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                    seen.lock().unwrap().plain.append(&mut bytes);
                    let said = seen.lock().unwrap().plain.ends_with(ORDER_END);
                    if said {
                        let _ = stream.write_all(&answer(200, STARTED)).await;
                    }
                }
            }
            // Read to the end: a connection that is dropped with bytes unread is reset, and what was said of it lost.
            Err((_, mut stream)) => while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {},
        },
        Serves::Says(answer) => {
            let _ = stream.read_buf(&mut bytes).await;
            let _ = stream.write_all(&answer).await;
            while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {}
        }
    }
}

/// The last bytes of a start of [`ORDER`].
const ORDER_END: &[u8] = br#""amount":1000}"#;

/// A connection, and what came over it.
struct Tapped {
    stream: TcpStream,
    number: usize,
    seen: Arc<Mutex<Seen>>,
}

impl AsyncRead for Tapped {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.seen.lock().unwrap().wire[this.number].extend_from_slice(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Type and length of each TLS record (RFC 8446, section 5.1).
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = rest.get(length..).unwrap_or_default();
    }
    records
}

/// Nothing of a request was sent: behind the first record, in clear, there is an alert at most; and an encrypted one
/// looks like data, but is as short as one.
fn nothing_but_a_handshake(wire: &[u8]) -> bool {
    const CHANGE_CIPHER: u8 = 20;
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const DATA: u8 = 23;
    let records = records(wire);
    records.first().is_some_and(|(kind, _)| *kind == HANDSHAKE)
        && records[1..]
            .iter()
            .all(|record| matches!(record, (CHANGE_CIPHER, 1) | (ALERT, 2..32) | (DATA, 0..32)))
}

/// A record in the words of TLS 1.1 (RFC 4346): a ServerHello that takes the version down.
fn server_hello_of_tls_1_1() -> Vec<u8> {
    let hello = [&[3, 2][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let handshake = [&[2, 0, 0, u8::try_from(hello.len()).unwrap()][..], &hello].concat();
    [
        &[22, 3, 2, 0, u8::try_from(handshake.len()).unwrap()][..],
        &handshake,
    ]
    .concat()
}

#[tokio::test]
async fn a_gateway_whose_tls_is_not_right_gets_nothing_and_the_operator_is_told_why() {
    let (files, ca, other) = (
        Files::new(),
        Authority::new("one"),
        Authority::new("another"),
    );
    let of_the_same_name = Authority::new("one");
    let ca_file = files.write("ca.pem", &ca.pem);
    let key_log = files.path("keys");
    let with = |change: fn(&mut CertificateParams)| {
        let mut parameters = named(&["localhost"]);
        change(&mut parameters);
        parameters
    };
    let self_signed = |parameters: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        Identity {
            chain: vec![parameters.self_signed(&key).unwrap().der().clone()],
            key,
        }
    };
    let certificates = [
        (
            "expired",
            ca.signs(&with(|it| {
                (it.not_before, it.not_after) =
                    (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1))
            })),
            "its certificate has expired",
        ),
        (
            "not yet valid",
            ca.signs(&with(|it| {
                (it.not_before, it.not_after) =
                    (date_time_ymd(3001, 1, 1), date_time_ymd(3002, 1, 1))
            })),
            "its certificate is not valid yet",
        ),
        (
            "signed by itself",
            self_signed(named(&["localhost"])),
            "or by itself",
        ),
        (
            "signed by itself, as openssl does it",
            self_signed(with(|it| {
                it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
            })),
            "its certificate is that of an authority",
        ),
        (
            "of another authority",
            other.signs(&named(&["localhost"])),
            "by an authority that is not known here",
        ),
        (
            "of another authority with the same name",
            of_the_same_name.signs(&named(&["localhost"])),
            "names an authority that is known here, but is signed with another key",
        ),
        (
            "for other names",
            ca.signs(&named(&["pay.example", "*.localhost"])),
            "not one for localhost, but for pay.example, *.localhost: check gateway.url.",
        ),
        (
            "for an address",
            ca.signs(&named(&["127.0.0.1"])),
            "not one for localhost, but for 127.0.0.1: check gateway.url.",
        ),
        (
            "with its name in CN only",
            ca.signs(&{
                let mut parameters = named(&[]);
                parameters
                    .distinguished_name
                    .push(DnType::CommonName, "localhost");
                parameters
            }),
            "a name in CN does not count",
        ),
    ];
    let mut cases = Vec::new();
    for (name, identity, why) in &certificates {
        for version in [&version::TLS12, &version::TLS13] {
            cases.push((
                format!("{name}, {:?}", version.version),
                Serves::Tls(server(identity, version, None)),
                *why,
            ));
        }
    }
    let too_old = "it speaks neither TLS 1.2 nor TLS 1.3";
    cases.push((
        "TLS 1.1 and a refusal".to_owned(),
        Serves::Says(vec![21, 3, 2, 0, 2, 2, 70]),
        too_old,
    ));
    cases.push((
        "TLS 1.1".to_owned(),
        Serves::Says(server_hello_of_tls_1_1()),
        too_old,
    ));
    cases.push((
        "no TLS".to_owned(),
        Serves::Says(answer(200, STARTED)),
        "what answers there does not speak TLS",
    ));
    for (name, server, why) in cases {
        let gateway = Listening::new(server).await;
        let settings = [
            ("gateway.ca_file", ca_file.as_str()),
            ("gateway.retries", "0"),
            ("SSLKEYLOGFILE", key_log.to_str().unwrap()),
        ];
        let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
        let told_of = start_at(api, ORDER).await;
        assert_eq!(
            told(&told_of),
            as_told(503, "gateway_unreachable", "not_sent"),
            "{name}: {told_of:?}"
        );
        assert!(told_of.body.contains(why), "{name}: {told_of:?}");
        let seen = gateway.seen.lock().unwrap();
        assert_eq!(
            (seen.connections, seen.handshakes, seen.plain.len()),
            (1, 0, 0),
            "{name}"
        );
        assert!(
            seen.wire.iter().all(|wire| nothing_but_a_handshake(wire)),
            "{name}: {:?}",
            records(&seen.wire[0])
        );
    }
    assert!(!key_log.exists(), "session keys were written down");
}

#[tokio::test]
async fn what_counts_as_nothing_on_the_wire_can_fail() {
    let (files, ca) = (Files::new(), Authority::new("of a test"));
    let gateway = Listening::new(Serves::Tls(server(
        &ca.signs(&named(&["localhost"])),
        &version::TLS13,
        None,
    )))
    .await;
    let key_log = files.path("keys");
    let ca_file = files.write("ca.pem", &ca.pem);
    let (_sidecar, api, _) = Program::sidecar(
        &gateway.url(),
        &[
            ("gateway.ca_file", ca_file.as_str()),
            ("SSLKEYLOGFILE", key_log.to_str().unwrap()),
        ],
    )
    .await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    let seen = gateway.seen.lock().unwrap();
    assert!(!nothing_but_a_handshake(&seen.wire[0]));
    assert!(String::from_utf8_lossy(&seen.plain).contains(DEFAULT_SECRET));
    assert!(!key_log.exists(), "session keys were written down");
}

#[tokio::test]
async fn what_a_certificate_says_is_looked_through_for_the_secret_too() {
    const SECRET: &str = "a-secret-that-is-a-host-name";
    let (files, ca) = (Files::new(), Authority::new("of a test"));
    let ca_file = files.write("ca.pem", &ca.pem);
    let acceptor = server(
        &ca.signs(&named(&[SECRET, "pay.example", "a.example", "b.example"])),
        &version::TLS13,
        None,
    );
    let gateway = Listening::new(Serves::Tls(acceptor)).await;
    let settings = [
        ("gateway.ca_file", ca_file.as_str()),
        ("merchant.secret", SECRET),
        ("gateway.retries", "0"),
    ];
    let (_sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    let answer = start_at(api, ORDER).await;
    assert_eq!(
        told(&answer),
        as_told(503, "gateway_unreachable", "not_sent"),
        "{answer:?}"
    );
    assert!(
        answer.body.contains("[redacted]") && answer.body.contains("pay.example"),
        "{answer:?}"
    );
    assert!(
        answer.body.contains("and others") && !answer.body.contains(SECRET),
        "{answer:?}"
    );
    assert_eq!(metric_at(admin, "tillgate_secret_echo_total").await, 1);
}

#[tokio::test]
async fn an_answer_that_ends_without_an_end_of_its_tls_is_cut_short() {
    let (files, ca) = (Files::new(), Authority::new("of a test"));
    let ca_file = files.write("ca.pem", &ca.pem);
    // It looks whole; but without a length only an end that was said tells that it is.
    let until_the_end =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{STARTED}").into_bytes();
    for (act, expected) in [
        (
            Act::SayAndVanish(until_the_end.clone()),
            (502, "gateway_bad_answer"),
        ),
        (Act::SayAndEnd(until_the_end), (200, "")),
        (Act::SayAndVanish(answer(200, STARTED)), (200, "")),
    ] {
        let acceptor = server(&ca.signs(&named(&["localhost"])), &version::TLS13, None);
        let gateway = Gateway::with_tls(Some(acceptor), move |_, _| act.clone()).await;
        let url = gateway.https_url();
        let (_sidecar, api, _) =
            Program::sidecar(&url, &[("gateway.ca_file", ca_file.as_str())]).await;
        let (status, error, _) = told(&start_at(api, ORDER).await);
        assert_eq!((status, error.as_str()), expected);
        assert_eq!(gateway.requests().len(), 1);
    }
}

#[tokio::test]
async fn proxy_variables_are_ignored_over_tls_too() {
    let (files, ca) = (Files::new(), Authority::new("of a test"));
    let ca_file = files.write("ca.pem", &ca.pem);
    let proxy = Gateway::new(|_, request| good(request)).await;
    let url = proxy.url();
    let acceptor = server(&ca.signs(&named(&["localhost"])), &version::TLS13, None);
    let gateway = Gateway::with_tls(Some(acceptor), |_, request| good(request)).await;
    let mut settings = PROXY_VARIABLES.map(|name| (name, url.as_str())).to_vec();
    settings.push(("gateway.ca_file", &ca_file));
    let (_sidecar, api, _) = Program::sidecar(&gateway.https_url(), &settings).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    let watched = get_at(api, "/watch/watch_1").await;
    assert_eq!(
        watched.json(),
        serde_json::from_str::<serde_json::Value>(WATCHED).unwrap()
    );
    assert_eq!((proxy.connections(), gateway.requests().len()), (0, 2));
}
