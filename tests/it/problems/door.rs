//! Who is let in.

use super::*;

#[tokio::test]
async fn only_the_names_of_this_machine_are_answered() {
    let sidecar = Sidecar::with(&[("start.burst", "100")]);
    for host in [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "localhost.",
        "127.0.0.2",
        "127.1",
        "0.0.0.0",
        "[::2]",
        "[::]",
        "pay.example:8700",
    ] {
        let answer = sidecar.api(with(good_start(), &[("host", host)])).await;
        assert_problem(
            &answer,
            host,
            Expected {
                outcome: Some("not_sent"),
                ..own(421, "host_not_allowed")
            },
        );
        let answer = sidecar
            .api(with(get("/watch/abc"), &[("host", host)]))
            .await;
        assert_problem(&answer, host, own(421, "host_not_allowed"));
    }
    assert_eq!(
        (sidecar.gateway_starts(), sidecar.gateway_watches()),
        (0, 0)
    );
    for host in [
        "localhost",
        "LocalHost",
        "localhost:1",
        "127.0.0.1",
        "127.0.0.1:8700",
        "[::1]",
        "[::1]:65535",
    ] {
        let answer = sidecar.api(with(good_start(), &[("host", host)])).await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
}

#[tokio::test]
async fn pages_in_a_browser_and_proxies_are_kept_out() {
    let sidecar = Sidecar::new();
    for (header, value, error) in [
        ("origin", "https://evil.example", "browser_not_allowed"),
        ("origin", "http://localhost:8700", "browser_not_allowed"),
        ("origin", "null", "browser_not_allowed"),
        ("origin", "", "browser_not_allowed"),
        ("sec-fetch-site", "cross-site", "browser_not_allowed"),
        ("sec-fetch-site", "same-site", "browser_not_allowed"),
        ("sec-fetch-site", "same-origin", "browser_not_allowed"),
        ("x-forwarded-for", "10.0.0.1", "forwarded_not_allowed"),
        ("x-forwarded-for", "127.0.0.1", "forwarded_not_allowed"),
        ("forwarded", "for=10.0.0.1", "forwarded_not_allowed"),
        ("via", "1.1 proxy", "forwarded_not_allowed"),
    ] {
        let of = format!("{header}: {value}");
        let answer = sidecar.api(with(good_start(), &[(header, value)])).await;
        assert_problem(
            &answer,
            &of,
            Expected {
                outcome: Some("not_sent"),
                ..own(403, error)
            },
        );
        assert_problem(
            &sidecar
                .api(with(get("/watch/abc"), &[(header, value)]))
                .await,
            &of,
            own(403, error),
        );
    }
    assert_eq!(
        (sidecar.gateway_starts(), sidecar.gateway_watches()),
        (0, 0)
    );
    for (header, value) in [
        ("sec-fetch-site", "none"),
        ("sec-fetch-mode", "cors"),
        ("referer", "http://x.example"),
    ] {
        let answer = sidecar.api(with(good_start(), &[(header, value)])).await;
        assert_eq!(answer.status, 200, "{header}: {answer:?}");
    }
}

#[tokio::test]
async fn who_comes_through_a_proxy_learns_how_to_come_without() {
    let sidecar = Sidecar::new();
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "Forwarded",
        "Via",
    ] {
        let answer = sidecar.api(with(good_start(), &[(name, "x")])).await;
        let expected = Expected {
            outcome: Some("not_sent"),
            ..own(403, "forwarded_not_allowed")
        };
        assert_problem(&answer, name, expected);
        let named = if name.starts_with("X-Forwarded-") {
            "X-Forwarded-*"
        } else {
            name
        };
        assert!(answer.text("detail").contains(named), "{answer:?}");
        let hint = "NO_PROXY=localhost,127.0.0.1";
        assert!(answer.text("detail").contains(hint), "{answer:?}");
    }
    assert_eq!(sidecar.gateway_starts(), 0);
}

#[tokio::test]
async fn with_tokens_nobody_comes_in_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "first-token-1234\r\n\nsecond-token-5678\n").unwrap();
    let sidecar = Sidecar::with(&[("listen.token_file", file.to_str().unwrap())]);
    let wrong: [&[(&str, &str)]; 10] = [
        &[],
        &[("authorization", "")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer third-token")],
        &[("authorization", "Bearer first-token-123")],
        &[("authorization", "Bearer first-token-12345")],
        &[("authorization", "first-token-1234")],
        &[("authorization", "Basic first-token-1234")],
        &[
            ("authorization", "Bearer first-token-1234"),
            ("authorization", "Bearer second-token-5678"),
        ],
    ];
    for headers in wrong {
        let of = format!("{headers:?}");
        for (request, outcome) in [
            (good_start(), Some("not_sent")),
            (get("/watch/abc"), None),
            (get("/nowhere"), None),
        ] {
            let answer = sidecar.api(with(request, headers)).await;
            assert_problem(
                &answer,
                &of,
                Expected {
                    outcome,
                    ..own(401, "unauthorized")
                },
            );
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{of}");
        }
    }
    assert_eq!(
        (sidecar.gateway_starts(), sidecar.gateway_watches()),
        (0, 0)
    );
    for token in ["Bearer first-token-1234", "bearer second-token-5678"] {
        let answer = sidecar
            .api(with(good_start(), &[("authorization", token)]))
            .await;
        assert_eq!(answer.status, 200, "{token}: {answer:?}");
    }
}

#[tokio::test]
async fn a_valid_token_opens_the_door_to_other_machines_but_not_to_browsers() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "a-token-of-a-caller").unwrap();
    let sidecar = Sidecar::with(&[("listen.token_file", file.to_str().unwrap())]);
    let token = ("authorization", "Bearer a-token-of-a-caller");
    for header in [
        ("host", "tillgate.shop.svc:8700"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("via", "1.1 proxy"),
    ] {
        let answer = sidecar.api(with(good_start(), &[token, header])).await;
        assert_eq!(answer.status, 200, "{header:?}: {answer:?}");
    }
    for header in [
        ("origin", "https://shop.example"),
        ("sec-fetch-site", "same-origin"),
    ] {
        let answer = sidecar.api(with(good_start(), &[token, header])).await;
        let expected = Expected {
            outcome: Some("not_sent"),
            ..own(403, "browser_not_allowed")
        };
        assert_problem(&answer, &format!("{header:?}"), expected);
    }
    // Without a valid one the door is as it is without tokens.
    for (header, status) in [
        (("host", "evil.example"), 421),
        (("x-forwarded-for", "10.0.0.1"), 403),
    ] {
        for headers in [
            &[header][..],
            &[header, ("authorization", "Bearer another")],
        ] {
            assert_eq!(
                sidecar.api(with(good_start(), headers)).await.status,
                status,
                "{headers:?}"
            );
        }
    }
    assert_eq!(sidecar.gateway_starts(), 4);
}

#[tokio::test]
async fn at_the_door_the_first_match_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "a-token-of-a-caller").unwrap();
    let sidecar = Sidecar::with(&[
        ("listen.token_file", file.to_str().unwrap()),
        ("listen.max_body_bytes", "16"),
    ]);
    let (host, origin) = (("host", "evil.example"), ("origin", "https://evil.example"));
    let (forwarded, token) = (
        ("via", "1.1 proxy"),
        ("authorization", "Bearer a-token-of-a-caller"),
    );
    let text = ("content-type", "text/plain");
    let too_long = || post("/api/start_payment", r#"{"merchant_secret":"x"}"#);
    let nowhere = || post("/nowhere", r#"{"merchant_secret":"x"}"#);
    let wrong_method = || {
        let mut request = too_long();
        *request.method_mut() = Method::PUT;
        request
    };
    type Case<'a> = (Request<Full<Bytes>>, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 8] = [
        (
            nowhere(),
            &[host, origin, forwarded, text],
            "host_not_allowed",
        ),
        (nowhere(), &[origin, forwarded, text], "browser_not_allowed"),
        (
            nowhere(),
            &[host, origin, forwarded, text, token],
            "browser_not_allowed",
        ),
        (nowhere(), &[forwarded, text], "forwarded_not_allowed"),
        (nowhere(), &[text], "unauthorized"),
        (nowhere(), &[text, token], "not_found"),
        (wrong_method(), &[text, token], "method_not_allowed"),
        (too_long(), &[text, token], "unsupported_media_type"),
    ];
    for (request, headers, error) in cases {
        let answer = sidecar.api(with(request, headers)).await;
        assert_eq!(answer.text("error"), error, "{headers:?}");
    }
    assert_eq!(
        sidecar.api(with(too_long(), &[token])).await.text("error"),
        "body_too_large"
    );
    assert_eq!(sidecar.gateway_starts(), 0);
}
