//! What `tillgate check` says of what is no fault, and of what `run` would open.

use std::os::unix::fs::{PermissionsExt, chown};

use super::*;

/// A configuration without faults, in variables.
const FINE: [(&str, &str); 2] = [("gateway.url", NOBODY), ("merchant.secret", SECRET)];

/// Checks it with these settings over [`FINE`]; returns the exit code without and with `--strict`, and what was printed.
async fn check_twice(settings: &[(&str, &str)]) -> (i32, i32, String) {
    let all = [&FINE[..], settings].concat();
    let (code, out, err) = run(&["check"], &all).await;
    let (strict, strict_out, strict_err) = run(&["check", "--strict"], &all).await;
    assert_eq!(strict_out.contains("\nok\n"), strict == 0, "{strict_err}");
    for warning in out
        .lines()
        .filter_map(|line| line.strip_prefix("warning: "))
    {
        says(
            &strict_err,
            &[&format!("error: {warning}\n"), "with --strict"],
        );
    }
    (code, strict, out + &err)
}

#[tokio::test]
async fn the_defaults_give_notes_only_and_the_bound_of_memory() {
    let (code, strict, said) = check_twice(&[]).await;
    assert_eq!((code, strict), (0, 0), "{said}");
    assert!(!said.contains("warning:"), "{said}");
    let after = said
        .rsplit("\n\n")
        .find(|part| part.contains("note: "))
        .unwrap();
    let lines = after
        .lines()
        .filter(|line| !line.is_empty() && *line != "ok");
    assert!(
        lines.clone().all(|line| line.starts_with("note: ")),
        "{after}"
    );
    // 49 MiB (40 MiB, and 140 calls of 64 KiB), 128 MiB, and 4096 times 48 KiB.
    says(&said, &["note: memory: 369 MiB at most", "128MiB", "48KiB"]);
    let small = [
        ("store.max_bytes", "64MiB"),
        ("listen.max_connections", "1024"),
    ];
    says(&check_twice(&small).await.2, &["memory: 161 MiB at most"]);
    // The store of a fleet twice: it is read anew, beside the old one, after a failover.
    let fleet = [("store.url", "postgres://tillgate@localhost/tillgate")];
    says(
        &check_twice(&fleet).await.2,
        &["memory: 497 MiB at most", "2 x 128MiB"],
    );
}

#[tokio::test]
async fn what_somebody_should_do_something_about_is_a_warning_and_with_strict_a_fault() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(&keys, tillgate_key().await).unwrap();
    let keys = keys.path().to_str().unwrap();
    let far = ("gateway.url", "https://pay.example");
    type Settings<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Settings<'_>, &str); 12] = [
        (
            &[("merchant.secret", "\"quoted_secret_4711\"")],
            "in quotes",
        ),
        (&[("merchant.secret", "'quoted_secret_4711'")], "in quotes"),
        (
            &[far, ("HTTPS_PROXY", "http://u:hunter22@p:1")],
            "HTTPS_PROXY is not read",
        ),
        (
            &[far, ("http_proxy", "http://p:1")],
            "http_proxy is not read",
        ),
        (&[far, ("ALL_PROXY", "socks5://p:1")], "gateway.proxy"),
        (
            &[("TILLGATE_STORE_MAX_BYTES", "1GiB")],
            "TILLGATE_STORE__MAX_BYTES",
        ),
        (
            &[("TILLGATE_LISTEN_TOKEN_FILE", "/x")],
            "TILLGATE_LISTEN__TOKEN_FILE",
        ),
        (&[("start.rate", "50")], "store.max_bytes"),
        (&[("start.idempotency_ttl", "30d")], "start.idempotency_ttl"),
        (&[("store.max_bytes", "64MiB")], "503 overloaded"),
        (
            &[
                ("webhook.url", "http://127.0.0.1:1/"),
                ("webhook.secret_file", keys),
            ],
            "without a durable store",
        ),
        (
            &[
                ("gateway.url", "http://pay.example"),
                ("gateway.allow_plain_http", "true"),
            ],
            "allow_plain_http",
        ),
    ];
    for (settings, part) in cases {
        let (code, strict, said) = check_twice(settings).await;
        assert_eq!((code, strict), (0, 2), "{settings:?}: {said}");
        let warnings: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .collect();
        assert!(
            warnings.len() == 1 && warnings[0].contains(part),
            "{part}: {said}"
        );
        assert!(
            !said.contains("hunter22") && !said.contains("quoted_secret"),
            "{said}"
        );
    }
    // What is as it should be gives none.
    let cases: [Settings<'_>; 4] = [
        &[("HTTPS_PROXY", "http://p:1")],
        &[
            far,
            ("HTTPS_PROXY", "http://p:1"),
            ("gateway.proxy", "http://p:1"),
        ],
        &[("store.max_bytes", "1GiB")],
        &[("start.rate", "1"), ("TILLGATE_GATEWAY_URL", "")],
    ];
    for settings in cases {
        let (code, strict, said) = check_twice(settings).await;
        assert_eq!((code, strict), (0, 0), "{settings:?}: {said}");
    }
}

async fn tillgate_key() -> String {
    run(&["webhook-secret"], &[]).await.1
}

#[tokio::test]
async fn a_secret_file_that_is_missing_is_a_fault_with_strict_alone() {
    let missing = [
        ("gateway.url", NOBODY),
        ("merchant.secret_file", "/nowhere/secret"),
    ];
    let (code, out, _) = run(&["check"], &missing).await;
    assert_eq!(code, 0, "{out}");
    says(&out, &["note: the merchant secret is not there yet"]);
    let (code, _, err) = run(&["check", "--strict"], &missing).await;
    assert_eq!(code, 2, "{err}");
    says(
        &err,
        &[
            "error: merchant.secret_file",
            "is missing",
            "1 fault with --strict",
        ],
    );
}

#[tokio::test]
async fn a_variable_with_one_underscore_is_named_where_its_setting_is_missing() {
    let near = [
        ("TILLGATE_GATEWAY_URL", NOBODY),
        ("TILLGATE_MERCHANT_SECRET", SECRET),
    ];
    let (code, _, err) = run(&["check"], &near).await;
    assert_eq!(code, 2);
    says(
        &err,
        &[
            "2 faults",
            "TILLGATE_GATEWAY_URL is, which has one underscore too few",
        ],
    );
    assert!(!err.contains(SECRET), "{err}");
}

#[tokio::test]
async fn a_fault_in_a_list_shows_a_list() {
    let text = format!(
        "[gateway]\nurl = \"{NOBODY}\"\n[merchant]\nsecret = \"{SECRET}\"\n[redirect]\nallowed = \"https://shop.example\"\n"
    );
    let (code, said) = check(&text, &[]).await;
    assert_eq!(code, 2, "{said}");
    says(
        &said,
        &["write it like: allowed = [\"https://shop.example\"]"],
    );
    for (key, value, help) in [
        (
            "redirect.allowed",
            "https://shop.example",
            "TILLGATE_REDIRECT__ALLOWED=[\"https://shop.example\"]",
        ),
        (
            "start.forward_fields",
            "note",
            "TILLGATE_START__FORWARD_FIELDS=[\"note\"]",
        ),
        ("start.rate", "fast", "TILLGATE_START__RATE=10 "),
        ("gateway.timeout", "soon", "TILLGATE_GATEWAY__TIMEOUT=10s "),
    ] {
        let (code, said) = check_with(&[(key, value)]).await;
        assert_eq!(code, 2, "{said}");
        says(&said, &["1 fault", "write it like: ", help]);
    }
}

/// What takes root's privileges away, so that it is a user like any other.
const AS_A_USER: [&str; 4] = [
    "setpriv",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--no-new-privs",
];

#[tokio::test]
async fn the_stores_directory_is_looked_at_and_neither_made_nor_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["there", "foreign", "closed", "empty", "other", "mine"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("file"), "").unwrap();
    fs::write(path("empty/store.redb"), "").unwrap();
    fs::write(path("other/store.redb"), "SQLite format 3\0").unwrap();
    fs::set_permissions(path("closed"), fs::Permissions::from_mode(0o500)).unwrap();
    let url = |name: &str| format!("file:{}", path(name).display());
    let look = async |under: &[&str], name: &str| {
        let url = url(name);
        let all = [&FINE[..], &[("store.url", &*url)]].concat();
        let program = Program::start_under(under, directory.path(), &["check"], &all);
        let (code, out, err) = program.end().await;
        (code, out + &err)
    };
    for (name, code, part) in [
        ("there", 0, "ok"),
        ("new", 0, "ok"),
        ("new/below", 2, "cannot be made"),
        ("file", 2, "is no directory"),
        ("file/below", 2, "store.url: "),
        ("empty", 2, "not a store"),
        ("other", 2, "not a store"),
    ] {
        let (found, said) = look(&[], name).await;
        assert_eq!(found, code, "{name}: {said}");
        says(&said, &[part]);
        assert!(!said.contains("warning: store.url"), "{name}: {said}");
    }
    assert!(!path("new").exists() && fs::read_dir(path("there")).unwrap().next().is_none());
    // A store that a sidecar has made, and has in use.
    let (sidecar, ..) = Program::sidecar(NOBODY, &[("store.url", &url("mine"))]).await;
    assert_eq!(look(&[], "mine").await.0, 0);
    drop(sidecar);
    if !has("setpriv") || chown(path("foreign"), Some(65534), None).is_err() {
        return;
    }
    let (code, said) = look(&AS_A_USER, "foreign").await;
    assert_eq!(code, 0, "{said}");
    says(&said, &["warning: store.url: ", "user 65534"]);
    let (code, said) = look(&AS_A_USER, "closed").await;
    assert_eq!(code, 2, "{said}");
    says(&said, &["has mode 0500"]);
}

#[tokio::test]
async fn an_address_that_run_could_not_listen_at_is_a_fault() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let taken = gateway.strip_prefix("http://").unwrap();
    for (key, value, code, part) in [
        ("listen.address", taken, 0, "is taken at this moment"),
        ("admin.address", taken, 0, "is taken at this moment"),
        (
            "admin.address",
            "192.0.2.1:8701",
            2,
            "this machine has no address",
        ),
        (
            "listen.address",
            "unix:/nowhere/api.sock",
            2,
            "there is no /nowhere",
        ),
    ] {
        let (found, said) = check_with(&[(key, value)]).await;
        assert_eq!(found, code, "{said}");
        says(&said, &[&format!("{key}: "), part]);
    }
}

#[tokio::test]
async fn too_few_open_files_are_noted() {
    if !has("prlimit") {
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (files, is_noted) in [("128:128", true), ("128:8192", false)] {
        let under = ["prlimit", &format!("--nofile={files}"), "--"];
        let check = Program::start_under(&under, directory, &["check"], &FINE);
        let (code, out, err) = check.end().await;
        assert_eq!(code, 0, "{err}");
        let note = "note: listen.max_connections is 4096, and the system allows 128 open files: 32 connections are taken";
        assert_eq!(out.contains(note), is_noted, "{files}: {out}");
    }
}
