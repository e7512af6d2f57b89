//! `tillgate check`, and what it says of a configuration.

use super::*;

#[tokio::test]
async fn check_tells_five_faults_at_once_each_with_its_key_place_and_mend() {
    let text = "[gateway]\nurl = \"ftp://pay.example\"\ntimeout = \"soon\"\n\n[merchant]\nsecret = \"short\"\n\n\
                [start]\nrate = -1\nbrust = 3\n";
    let (_directory, path) = config(text);
    let (code, out, err) = run(&["check", "--config", &path], &[]).await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    for (key, line) in [
        ("gateway.url", 2),
        ("gateway.timeout", 3),
        ("merchant.secret", 6),
        ("start.rate", 9),
        ("start.brust", 10),
    ] {
        let of_key: Vec<_> = err
            .split("error: ")
            .filter(|fault| fault.starts_with(&format!("{key}:")))
            .collect();
        assert_eq!(
            of_key.len(),
            1,
            "{key} is told {} times in:\n{err}",
            of_key.len()
        );
        says(of_key[0], &[&format!("{path}:{line}\n"), "help: "]);
    }
    assert_eq!(err.matches("error: ").count(), 5, "{err}");
    says(&err, &["start.burst"]);
    assert!(!err.contains("short\""), "the secret is quoted:\n{err}");
    let run_too = run(&["run", "--config", &path], &[]).await;
    assert_eq!(run_too, (2, String::new(), err), "run says the same");
}

#[tokio::test]
async fn check_prints_every_setting_with_its_origin_and_the_secret_redacted() {
    let text = format!(
        "[gateway]\nurl = \"https://pay.example/base/\"\n\n[merchant]\nsecret = \"{SECRET}\"\n\n[start]\nburst = 7\n"
    );
    let (_directory, path) = config(&text);
    let variables = [
        ("start.rate", "2.5"),
        ("redirect.allowed", "[\"https://shop.example\"]"),
    ];
    let (code, out, err) = run(&["check", "--config", &path], &variables).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let line = |start: &str| {
        out.lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no {start} in:\n{out}"))
    };
    says(
        line("url = "),
        &["https://pay.example/base\"", &format!("{path}:2")],
    );
    says(line("burst = 7"), &[&format!("{path}:8")]);
    says(line("rate = 2.5"), &["TILLGATE_START__RATE"]);
    says(
        line("allowed = "),
        &["https://shop.example", "TILLGATE_REDIRECT__ALLOWED"],
    );
    says(line("retries = 2"), &["# default"]);
    says(line("secret = "), &["[redacted]"]);
    assert!(!out.contains(SECRET));
    // Every key of the annotated example is there, under its section.
    let example = include_str!("../../../config/tillgate.toml");
    let (mut section, mut missing) = ("", Vec::new());
    for known in example.lines() {
        if known.starts_with('[') {
            section = known.split(' ').next().unwrap();
        } else if let Some((key, _)) = known.split_once(" = ") {
            let printed = out
                .split("\n\n")
                .find(|part| part.starts_with(section))
                .unwrap_or_default();
            if !printed
                .lines()
                .any(|line| line.starts_with(&format!("{key} = ")))
            {
                missing.push(format!("{section} {key}"));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

#[tokio::test]
async fn check_says_what_a_choice_means_where_it_is_easy_to_miss() {
    let exposed = [
        ("gateway.url", "http://pay.example"),
        ("gateway.allow_plain_http", "true"),
    ];
    let (code, said) = check_with(&exposed).await;
    assert_eq!(code, 0, "{said}");
    says(
        &said,
        &[
            "allow_plain_http",
            "redirect.allowed",
            "restart",
            "token_file",
        ],
    );
}

#[tokio::test]
async fn where_a_secret_stands_its_origin_is_told() {
    let text = format!("[gateway]\nurl = \"{NOBODY}\"\n\n[merchant]\nsecret = \"{SECRET}\"\n");
    let (_directory, path) = config(&text);
    for (variables, origin) in [
        (&[][..], format!("{path}:5")),
        (
            &[("merchant.secret", SECRET)],
            "TILLGATE_MERCHANT__SECRET".to_owned(),
        ),
    ] {
        let (_, out, _) = run(&["check", "--config", &path], variables).await;
        let line = out
            .lines()
            .find(|line| line.starts_with("secret = "))
            .unwrap();
        says(line, &[&origin]);
    }
}

#[tokio::test]
async fn unknown_variables_with_two_underscores_are_refused_and_others_ignored() {
    let (code, said) = check_with(&[("start.brust", "7")]).await;
    assert_eq!(code, 2);
    says(
        &said,
        &["start.brust", "TILLGATE_START__BRUST", "start.burst"],
    );
    let kubernetes = [
        ("TILLGATE_PORT", "tcp://10.0.0.1:8700"),
        ("TILLGATE_SERVICE_HOST", "10.0.0.1"),
        ("TILLGATE", "x"),
        ("START__X", "y"),
    ];
    let (code, said) = check_with(&kubernetes).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn an_empty_variable_is_unset() {
    let empty = [
        ("start.burst", ""),
        ("merchant.secret", ""),
        ("gateway.url", ""),
    ];
    let (code, said) = check_with(&empty).await;
    assert_eq!(code, 0, "{said}");
    says(&said, &["burst = 20", NOBODY]);
}

#[tokio::test]
async fn faults_that_no_value_shows_alone_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let file = file.to_str().unwrap();
    let pem = directory.path().join("no.pem");
    fs::write(&pem, "no certificate").unwrap();
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Variables<'_>, &[&str]); 25] = [
        (
            &[("merchant.secret_file", file)],
            &["merchant.secret", "secret_file"],
        ),
        (
            &[("merchant.secret", "your_token_here")],
            &["placeholder", "/dev/api"],
        ),
        (
            &[("merchant.secret", "with space in it")],
            &["merchant.secret", "white space"],
        ),
        (&[("merchant.secret", "seven77")], &["8 bytes"]),
        (
            &[("start.min_amount", "10"), ("start.max_amount", "9")],
            &["start.min_amount", "start.max_amount"],
        ),
        (
            &[("gateway.url", "http://pay.example")],
            &["gateway.url", "allow_plain_http = true", "secret"],
        ),
        (
            &[("gateway.url", "https://pay.example/?a=b")],
            &["gateway.url", "query"],
        ),
        (
            &[("gateway.url", "https://user:hunter22@pay.example")],
            &["gateway.url"],
        ),
        (
            &[("gateway.ca_file", "/nowhere/ca.pem")],
            &["gateway.ca_file", "missing"],
        ),
        (
            &[("gateway.ca_file", pem.to_str().unwrap())],
            &["gateway.ca_file", "certificate"],
        ),
        (
            &[("listen.address", "0.0.0.0:8700")],
            &["listen.address", "token_file"],
        ),
        (
            &[("listen.address", ":8700")],
            &["listen.address", "token_file"],
        ),
        (
            &[("listen.address", "[::]:8700")],
            &["listen.address", "token_file"],
        ),
        (
            &[("listen.token_file", "/nowhere/tokens")],
            &["listen.token_file", "missing"],
        ),
        (&[("start.queue_for", "2")], &["start.queue_for", "2s"]),
        (
            &[("gateway.timeout", "0s"), ("listen.drain_timeout", "0ms")],
            &[
                "gateway.timeout",
                "listen.drain_timeout",
                "\"0s\" makes no sense here: give at least \"1ms\"",
            ],
        ),
        (
            &[("start.forward_fields", "[\"merchant_secret\"]")],
            &["start.forward_fields"],
        ),
        (&[("log.level", "inof")], &["log.level", "info"]),
        (
            &[("log.format", "jsn")],
            &[
                "log.format",
                "found \"jsn\", expected one of auto, text, json",
            ],
        ),
        (
            &[("TILLGATE_gateway__url", "https://pay.example")],
            &["gateway.url", "write it TILLGATE_GATEWAY__URL"],
        ),
        (
            &[("TILLGATE___X", "1")],
            &["error: .x: there is no such key"],
        ),
        (
            &[("gateway.ulr", "1")],
            &[
                "gateway.ulr: there is no such key",
                "did you mean gateway.url (TILLGATE_GATEWAY__URL)?",
            ],
        ),
        (
            &[(
                "redirect.allowed",
                r#"["ftp://one", "https://two.example", "three"]"#,
            )],
            &["2 faults", "\"ftp://one\" is not", "\"three\" is not"],
        ),
        (
            &[
                ("webhook.url", "nonsense"),
                ("webhook.secret_file", "/nowhere/keys"),
            ],
            &["2 faults", "webhook.url", "/nowhere/keys", "missing"],
        ),
        (
            &[("webhook.url", "nonsense")],
            &["2 faults", "webhook.url", "webhook.secret_file"],
        ),
    ];
    for (variables, parts) in cases {
        let (code, said) = check_with(variables).await;
        assert_eq!(code, 2, "{variables:?}: {said}");
        says(&said, parts);
        assert!(
            !said.contains("hunter22") && !said.contains(SECRET),
            "{said}"
        );
    }
    let (code, said) = check("[gateway]\nurl = \"https://pay.example\"\n", &[]).await;
    assert_eq!(code, 2);
    says(&said, &["merchant.secret_file"]);
    let (code, said) = check(&format!("[merchant]\nsecret = \"{SECRET}\"\n"), &[]).await;
    assert_eq!(code, 2);
    says(&said, &["gateway.url", "required"]);
    let (code, said) = check("'' = 0\n", &[]).await;
    assert_eq!(code, 2);
    says(&said, &["error: \"\": there is no such section"]);
}

#[tokio::test]
async fn the_configuration_may_be_named_before_or_after_what_is_to_be_done_with_it() {
    for arguments in [
        ["deliveries", "--config", "/nowhere/it", "list"],
        ["deliveries", "list", "--config", "/nowhere/it"],
    ] {
        let (code, _, err) = run(&arguments, &[]).await;
        assert_eq!(code, 2, "{err}");
        says(&err, &["/nowhere/it", "cannot be read"]);
    }
}

#[tokio::test]
async fn plain_http_to_loopback_is_fine() {
    for url in [
        "http://localhost:1",
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://127.9.9.9:1",
    ] {
        let (code, said) = check_with(&[("gateway.url", url)]).await;
        assert_eq!(code, 0, "{url}: {said}");
    }
}

#[tokio::test]
async fn a_syntax_error_names_its_line_and_never_quotes_it() {
    for line in [
        "secret = hunter22hunter22",
        "secret = \"hunter22hunter22",
        "secret \"hunter22hunter22\"",
        "secret = \"hunter22hunter22\" x",
        "secret = \"hunter22\\hunter22\"",
        "secret = [\"hunter22hunter22\"",
        "hunter22hunter22",
    ] {
        let (_directory, path) = config(&format!(
            "[gateway]\nurl = \"{NOBODY}\"\n[merchant]\n{line}\n"
        ));
        for command in ["check", "run"] {
            let (code, out, err) = run(&[command, "--config", &path], &[]).await;
            assert_eq!((code, out.as_str()), (2, ""), "{line}");
            says(&err, &[&format!("{path}:4")]);
            assert!(!err.contains("hunter22"), "{err}");
        }
    }
}

#[tokio::test]
async fn a_secret_of_another_type_is_refused_without_being_quoted() {
    for value in [
        "4242424242",
        "true",
        "[\"4242424242\"]",
        "{ a = \"4242424242\" }",
    ] {
        let (code, said) = check(
            &format!("[gateway]\nurl = \"{NOBODY}\"\n[merchant]\nsecret = {value}\n"),
            &[],
        )
        .await;
        assert_eq!(code, 2, "{said}");
        says(&said, &["merchant.secret", ":4"]);
        assert!(!said.contains("4242424242"), "{said}");
    }
}

#[tokio::test]
async fn a_missing_configuration_file_is_told() {
    for command in ["run", "check"] {
        let (code, _, err) = run(&[command, "--config", "/nowhere/sidecar.toml"], &[]).await;
        assert_eq!(code, 2, "{command}: {err}");
        says(&err, &["/nowhere/sidecar.toml"]);
    }
}

#[tokio::test]
async fn check_online_connects_and_with_start_proves_the_secret() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let right = [
        ("gateway.url", gateway.as_str()),
        ("merchant.secret", DEFAULT_SECRET),
    ];
    let wrong = [
        ("gateway.url", gateway.as_str()),
        ("merchant.secret", SECRET),
    ];
    for variables in [&right, &wrong] {
        let (code, out, err) = run(&["check", "--online"], variables).await;
        assert_eq!(code, 0, "{out}{err}");
    }
    assert_eq!(calls(&gateway).await, (0, 0), "online alone starts nothing");
    let (code, out, err) = run(&["check", "--online", "--start"], &right).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        !out.contains("pay_") && !out.contains("watch_"),
        "the code is thrown away: {out}"
    );
    let (code, out, err) = run(&["check", "--online", "--start"], &wrong).await;
    assert_eq!(code, 1, "{out}{err}");
    says(&err, &["secret"]);
    assert!(!format!("{out}{err}").contains(SECRET));
    assert_eq!(calls(&gateway).await, (2, 0));
    let nobody = closed_port().1;
    let (code, _, err) = run(
        &["check", "--online"],
        &[("gateway.url", &nobody), ("merchant.secret", SECRET)],
    )
    .await;
    assert_eq!(code, 1, "{err}");
    says(&err, &["gateway.url"]);
}

#[tokio::test]
async fn a_secret_in_the_place_of_its_files_path_is_not_shown() {
    for command in ["check", "run"] {
        let variables = [("gateway.url", NOBODY), ("merchant.secret_file", SECRET)];
        let (code, out, err) = run(&[command], &variables).await;
        assert_eq!(code, 2);
        says(
            &err,
            &[
                "1 fault",
                "merchant.secret_file",
                "TILLGATE_MERCHANT__SECRET_FILE",
                "the path of the file",
            ],
        );
        assert!(!(out + &err).contains(SECRET));
    }
    let key = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAx/zQ1Njc4OWFiY2RlZg==";
    for variables in [
        &[("listen.token_file", SECRET)][..],
        &[
            ("webhook.url", "https://shop.example/"),
            ("webhook.secret_file", key),
        ],
    ] {
        let (code, said) = check_with(variables).await;
        assert_eq!(code, 2);
        says(&said, &["1 fault", "_file", "missing"]);
        assert!(!said.contains(SECRET) && !said.contains(key), "{said}");
    }
    let (code, out, err) = run(&["deliveries"], &[("listen.token_file", SECRET)]).await;
    assert_eq!(code, 2, "{err}");
    says(&err, &["listen.token_file"]);
    assert!(!(out + &err).contains(SECRET));
}

#[tokio::test]
async fn what_cannot_work_is_a_fault_and_what_is_empty_is_unset() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tillgate.toml");
    let toml = r#"
[gateway]
url = "https:///pay.example"
timeout = ""
max_response_bytes = 0
[merchant]
secret = "'a secret of mine'"
[listen]
address = "localhost:8701"
max_connections = 0
max_body_bytes = 0
[start]
forward_fields = [""]
[redirect]
allowed = ["https://*.shop.example"]
[log]
level = "=,="
"#;

    fs::write(&file, toml).unwrap();

    let (code, _, told) = run(&["check", "--config", file.to_str().unwrap()], &[]).await;

    assert_eq!(code, 2);

    let keys = [
        "gateway.url",
        "gateway.max_response_bytes",
        "merchant.secret",
        "admin.address",
        "listen.max_connections",
        "listen.max_body_bytes",
        "start.forward_fields",
        "redirect.allowed",
        "log.level",
    ];
    for key in keys {
        assert!(told.contains(&format!("error: {key}: ")), "{key}: {told}");
    }
    says(&told, &[&format!("{} faults", keys.len())]);
    assert!(!told.contains("a secret of mine"), "{told}");
}

#[tokio::test]
async fn a_timeout_shorter_than_the_time_to_connect_is_fine() {
    let settings = [
        ("gateway.url", "https://pay.example"),
        ("gateway.timeout", "1s"),
        ("merchant.secret", SECRET),
    ];
    assert_eq!(run(&["check"], &settings).await.0, 0);
}
