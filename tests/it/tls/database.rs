//! TLS to a store's database.

use super::*;
use crate::canary::Canary;

/// This machine, by an address that does not say so: to loopback there is no TLS.
const HOST: &str = "0.0.0.0";
/// How a client asks for TLS: a length, and a version that no protocol has.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Asks for the password as it is.
const ASK: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const REFUSE: &[u8] = b"E\0\0\0\x1dSFATAL\0C28P01\0Mno entry\0\0";

/// A database that has TLS if there is an acceptor, and lets nobody in.
struct Database {
    server: Server,
    seen: Arc<Mutex<Seen>>,
}

impl Database {
    async fn new(acceptor: Option<TlsAcceptor>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let all = seen.clone();
        let server = Server::new(move |mut stream: TcpStream| {
            let (seen, acceptor) = (all.clone(), acceptor.clone());
            async move {
                let mut request = [0; 8];
                let _ = stream.read_exact(&mut request).await;
                assert_eq!(request, SSL_REQUEST, "nothing comes before it");
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.wire.push(Vec::new());
                    seen.wire.len() - 1
                };
                let answer = if acceptor.is_some() { b"S" } else { b"N" };
                let _ = stream.write_all(answer).await;
                let mut tapped = Tapped {
                    stream,
                    number,
                    seen: seen.clone(),
                };
                let mut bytes = Vec::new();
                match acceptor {
                    Some(acceptor) => match acceptor.accept(tapped).into_fallible().await {
                        Ok(stream) => let_in(stream, &seen).await,
                        Err((_, mut stream)) => {
                            while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {}
                        }
                    },
                    None => while tapped.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {},
                }
            }
        });
        Self {
            server: server.await,
            seen,
        }
    }

    fn seen(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Asks for the password, and refuses whatever comes.
async fn let_in(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Seen>) {
    for answer in [ASK, REFUSE] {
        // With room for a whole message.
        let mut bytes = Vec::with_capacity(4096);
        let _ = stream.read_buf(&mut bytes).await;
        seen.lock().unwrap().plain.append(&mut bytes);
        let _ = stream.write_all(answer).await;
    }
}

#[tokio::test]
async fn a_database_whose_tls_is_not_right_gets_no_byte_of_the_password() {
    let (files, ca) = (Files::new(), Authority::new("of databases"));
    let ca_file = files.write("ca.pem", &ca.pem);
    let canary = Canary::of("canary-Q7w9E2r4T6y8U1i3O5p0");
    let password_file = files.write("password", &canary.secret);
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let right = || server(&ca.signs(&named(&[HOST])), &version::TLS13, None);
    let wrong = || server(&ca.signs(&named(&["db.example"])), &version::TLS13, None);
    for (acceptor, roots, words) in [
        (
            Some(right()),
            Some(&ca_file),
            &["no entry", "store.password_file"][..],
        ),
        (Some(right()), None, &["not known here", "store.ca_file"]),
        (
            Some(wrong()),
            Some(&ca_file),
            &["0.0.0.0", "db.example", "store.url"],
        ),
        (
            None,
            Some(&ca_file),
            &["has no TLS", "allow_plain_tcp = true"],
        ),
    ] {
        let (has_tls, is_right) = (acceptor.is_some(), words[0] == "no entry");
        let database = Database::new(acceptor).await;
        let url = format!(
            "postgres://tillgate@{HOST}:{}/shop",
            database.server.address.port()
        );
        let mut settings = vec![
            ("gateway.url", gateway.as_str()),
            ("merchant.secret", DEFAULT_SECRET),
            ("store.url", &url),
            ("store.password_file", &password_file),
        ];
        settings.extend(roots.map(|roots| ("store.ca_file", roots.as_str())));
        let (code, out, err) = run(&["check", "--online"], &settings).await;
        assert_eq!(code, 1, "{out}{err}");
        for word in ["store.url", words[0]].iter().chain(words) {
            assert!(err.contains(word), "no {word:?} in {err}");
        }
        assert_eq!(canary.sightings((out + &err).as_bytes()), []);

        let seen = database.seen();
        assert!(!seen.wire.is_empty());
        for wire in &seen.wire {
            assert_eq!(canary.sightings(wire), []);
            let is_only_handshake = wire.is_empty() || nothing_but_a_handshake(wire);
            assert_eq!(
                is_only_handshake,
                !is_right,
                "{words:?} {:?}",
                records(wire)
            );
            assert!(has_tls || wire.is_empty(), "nothing follows its no");
        }
        // That the password is looked for where it would be.
        assert_eq!(
            !canary.sightings(&seen.plain).is_empty(),
            is_right,
            "{words:?} {:?}",
            String::from_utf8_lossy(&seen.plain)
        );
    }
}
