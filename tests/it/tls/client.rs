//! The certificate that a gateway asks for.

use super::*;

/// Settings of a sidecar with these files.
fn settings<'a>(
    ca_file: &'a str,
    cert_file: &'a str,
    key_file: &'a str,
) -> [(&'static str, &'a str); 4] {
    [
        ("gateway.ca_file", ca_file),
        ("gateway.client_cert_file", cert_file),
        ("gateway.client_key_file", key_file),
        ("gateway.retries", "0"),
    ]
}

#[tokio::test]
async fn a_gateway_that_asks_for_a_certificate_is_shown_the_one_that_is_named() {
    let (files, ca) = (Files::new(), Authority::new("of gateways"));
    let (clients, others) = (Authority::new("of clients"), Authority::new("of others"));
    let ca_file = files.write("ca.pem", &ca.pem);
    let (right, wrong) = (
        clients.signs(&named(&["tillgate"])),
        others.signs(&named(&["tillgate"])),
    );
    let (cert, key) = (
        files.write("cert.pem", &right.cert_pem()),
        files.write("key.pem", &right.key_pem()),
    );
    let wrong_cert = files.write("wrong-cert.pem", &wrong.cert_pem());
    let wrong_key = files.write("wrong-key.pem", &wrong.key_pem());
    for version in [&version::TLS12, &version::TLS13] {
        let gateway_identity = ca.signs(&named(&["localhost"]));
        for (cert, key, why) in [
            (&cert, &key, None),
            (
                &String::new(),
                &String::new(),
                Some("gateway.client_cert_file"),
            ),
            (
                &wrong_cert,
                &wrong_key,
                Some("it refuses the client certificate (gateway.client_cert_file)"),
            ),
        ] {
            let acceptor = server(&gateway_identity, version, Some(clients.demanded()));
            let gateway = Listening::new(Serves::Tls(acceptor)).await;
            let (_sidecar, api, _) =
                Program::sidecar(&gateway.url(), &settings(&ca_file, cert, key)).await;
            let answer = start_at(api, ORDER).await;
            let settings = &settings(&ca_file, cert, key)[..3];
            let (code, said) = check_online(&gateway.url(), settings).await;
            assert_eq!(
                (code, said.contains(why.unwrap_or("and TLS with it works"))),
                (i32::from(why.is_some()), true),
                "{said}"
            );
            let mut seen = gateway.seen.lock().unwrap();
            assert_eq!(seen.connections, 2);
            match why {
                None => {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    seen.clients.dedup();
                    assert_eq!(seen.clients, right.chain);
                }
                Some(why) => {
                    assert_eq!(
                        told(&answer),
                        as_told(503, "gateway_unreachable", "not_sent"),
                        "{answer:?}"
                    );
                    assert!(answer.text("detail").contains(why), "{answer:?}");
                    assert_eq!(
                        (seen.handshakes, seen.plain.len()),
                        (0, 0),
                        "the gateway itself got nothing"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_renewed_while_it_runs_and_a_bad_one_changes_nothing() {
    let (files, ca, clients) = (
        Files::new(),
        Authority::new("of gateways"),
        Authority::new("of clients"),
    );
    let ca_file = files.write("ca.pem", &ca.pem);
    let [old, new] = [(); 2].map(|()| clients.signs(&named(&["tillgate"])));
    let (cert, key) = (
        files.write("cert.pem", &old.cert_pem()),
        files.write("key.pem", &old.key_pem()),
    );
    let acceptor = server(
        &ca.signs(&named(&["localhost"])),
        &version::TLS13,
        Some(clients.demanded()),
    );
    let gateway = Listening::new(Serves::Tls(acceptor)).await;
    let (mut sidecar, api, admin) =
        Program::sidecar(&gateway.url(), &settings(&ca_file, &cert, &key)).await;
    let shown = || gateway.seen.lock().unwrap().clients.clone();
    let failures = async || metric_at(admin, "tillgate_tls_reload_failures_total").await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    assert_eq!((shown(), failures().await), (old.chain.clone(), 0));

    // One file has changed, the other has not yet: the two do not belong together.
    files.write("cert.pem", &new.cert_pem());
    sidecar.signal("HUP");
    sidecar.log_line("client certificate not changed").await;
    assert_eq!(
        (start_at(api, ORDER).await.status, failures().await),
        (200, 1)
    );
    assert!(!shown().contains(&new.chain[0]));

    files.write("key.pem", &new.key_pem());
    sidecar.signal("HUP");
    sidecar.log_line("file loaded").await;
    let is_shown = || shown().contains(&new.chain[0]);
    crate::harness::until("the new one", async || {
        assert_eq!(start_at(api, ORDER).await.status, 200);
        is_shown().then_some(())
    })
    .await;

    for bad in ["", "not a key", &new.key_pem().replace('\n', "")] {
        files.write("key.pem", bad);
        sidecar.signal("HUP");
        let line = sidecar.log_line("file not reloaded").await;
        assert!(bad.is_empty() || !line.contains(bad), "{line}");
        assert_eq!(start_at(api, ORDER).await.status, 200);
    }
    std::fs::remove_file(files.path("key.pem")).unwrap();
    sidecar.log_line("file not reloaded").await;
    assert_eq!(
        (start_at(api, ORDER).await.status, failures().await),
        (200, 5)
    );
}

/// What `check` says with these settings of the gateway's.
async fn check(settings: &[(&str, &str)]) -> (i32, String) {
    check_with(&["check"], "https://pay.example", settings).await
}

/// The same of this gateway, to which it goes.
async fn check_online(url: &str, settings: &[(&str, &str)]) -> (i32, String) {
    check_with(&["check", "--online"], url, settings).await
}

async fn check_with(arguments: &[&str], url: &str, settings: &[(&str, &str)]) -> (i32, String) {
    let own = [("gateway.url", url), ("merchant.secret", DEFAULT_SECRET)];
    let (code, out, err) = run(arguments, &[&own, settings].concat()).await;
    (code, out + &err)
}

#[tokio::test]
async fn what_is_wrong_with_a_client_certificate_is_told_and_the_key_never_quoted() {
    use std::os::unix::fs::PermissionsExt;

    let (files, clients) = (Files::new(), Authority::new("of a test"));
    let [one, other] = [(); 2].map(|()| clients.signs(&named(&["tillgate"])));
    let (cert, key) = (
        files.write("cert.pem", &one.cert_pem()),
        files.write("key.pem", &one.key_pem()),
    );
    let in_one_line = files.write("line.pem", &one.key_pem().replace('\n', ""));
    let of_another = files.write("other.pem", &other.key_pem());
    let with_passphrase = files.write(
        "locked.pem",
        &one.key_pem()
            .replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
    );
    let empty = files.write("empty.pem", "");
    let missing = files.path("missing.pem").to_str().unwrap().to_owned();
    let [cert_key, key_key] = ["gateway.client_cert_file", "gateway.client_key_file"];
    for (settings, key, what) in [
        (
            vec![(cert_key, &cert)],
            "gateway.client_key_file",
            "gateway.client_cert_file is set, and this is not",
        ),
        (
            vec![(key_key, &key)],
            "gateway.client_cert_file",
            "gateway.client_key_file is set, and this is not",
        ),
        (
            vec![(cert_key, &missing), (key_key, &key)],
            "gateway.client_cert_file",
            "the file is missing",
        ),
        (
            vec![(cert_key, &cert), (key_key, &missing)],
            "gateway.client_key_file",
            "the file is missing",
        ),
        (
            vec![(cert_key, &empty), (key_key, &key)],
            "gateway.client_cert_file",
            "there is no certificate in it",
        ),
        (
            vec![(cert_key, &key), (key_key, &key)],
            "gateway.client_cert_file",
            "there is no certificate in it",
        ),
        (
            vec![(cert_key, &cert), (key_key, &empty)],
            "gateway.client_key_file",
            "there is no private key in it",
        ),
        (
            vec![(cert_key, &cert), (key_key, &cert)],
            "gateway.client_key_file",
            "there is no private key in it",
        ),
        (
            vec![(cert_key, &cert), (key_key, &in_one_line)],
            "gateway.client_key_file",
            "not well-formed PEM",
        ),
        (
            vec![(cert_key, &cert), (key_key, &with_passphrase)],
            "gateway.client_key_file",
            "without a passphrase",
        ),
        (
            vec![(cert_key, &cert), (key_key, &of_another)],
            "gateway.client_key_file",
            "the key is not that of",
        ),
        (
            vec![("gateway.ca_file", &in_one_line)],
            "gateway.ca_file",
            "not well-formed PEM",
        ),
    ] {
        let settings: Vec<_> = settings
            .into_iter()
            .map(|(name, value)| (name, value.as_str()))
            .collect();
        let (code, said) = check(&settings).await;
        assert!(
            code == 2 && said.contains(key) && said.contains(what),
            "{settings:?}: {said}"
        );
        assert!(!says_the_key(&said, &one), "{said}");
    }

    let pair = [(cert_key, cert.as_str()), (key_key, key.as_str())];
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(Path::new(&key), std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = check(&pair).await;
        assert_eq!(
            (
                code,
                said.contains("warning: ") && said.contains("key.pem has mode")
            ),
            (0, is_warned),
            "{said}"
        );
        assert!(!says_the_key(&said, &one), "{said}");
    }
}

/// Any line of the key stands in there.
fn says_the_key(said: &str, identity: &Identity) -> bool {
    let key = identity.key_pem();
    key.lines()
        .filter(|line| !line.starts_with('-'))
        .any(|line| said.contains(&line[..line.len().min(16)]))
}
