//! `[webhook]` of the configuration, and the keys: what is wrong is said, and no key is shown.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tillgate::sandbox::Options;

use super::app::{App, OK, Say, key, text_of};
use super::paid;
use crate::harness::{NOBODY, Program, get_at, metric_at, pay_at, run, start_at, until};

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_told_and_never_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good", text_of(&key(1)).as_bytes());
    let faults = |url: &str, file: &str| {
        let settings: Vec<_> = [("webhook.url", url), ("webhook.secret_file", file)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        tillgate::app::Sidecar::new(&settings, Options::default(), false)
            .err()
            .unwrap_or_default()
            .join("\n")
    };
    let there = "http://127.0.0.1:9/hook";
    assert_eq!(faults(there, &good), "");
    assert_eq!(faults("https://shop.example", &good), "");
    let told = faults(there, "");
    assert!(
        told.starts_with("webhook.secret_file: ") && told.contains("webhook.url"),
        "{told}"
    );
    let told = faults("", &good);
    assert!(
        told.starts_with("webhook.secret_file: ") && told.contains("webhook.url"),
        "{told}"
    );
    for url in [
        "nowhere",
        "/hook",
        "//shop.example/hook",
        "ftp://shop.example/hook",
        "file:///etc/passwd",
        "unix:/run/app.sock",
        "http://",
        "http://user@shop.example/",
        "http://:hunter2@shop.example/",
        "http://user:hunter2@shop.example/",
        "http://hunter2@shop.example:99999/",
    ] {
        let told = faults(url, &good);
        assert!(told.contains("webhook.url: "), "{url}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let short = format!("whsec_{}", STANDARD.encode([1; 23]));
    let long = format!("whsec_{}", STANDARD.encode([1; 65]));
    for (number, (text, why)) in [
        ("", "no key"),
        ("\n\n", "no key"),
        (&*short, "line 1"),
        (&*long, "line 1"),
        ("whsec_", "line 1"),
        ("whsec_hunter2!hunter2!hunter2!hunter2!hunter2!", "line 1"),
        ("hunter2hunter2hunter2hunter2hunter2hunter2", "line 1"),
        (&*format!("{}\nhunter2", text_of(&key(1))), "line 2"),
        (&*format!(" {}", text_of(&key(1))), "line 1"),
        (&*format!("{} ", text_of(&key(1))), "line 1"),
        (&*text_of(&key(1)).to_uppercase(), "line 1"),
    ]
    .into_iter()
    .enumerate()
    {
        let told = faults(there, &write(&number.to_string(), text.as_bytes()));
        assert!(
            told.starts_with("webhook.secret_file: ") && told.contains(why),
            "{text:?}: {told}"
        );
        assert!(
            !told.contains("hunter2") && !told.contains("AQEB"),
            "{told}"
        );
    }
    let told = faults(there, directory.path().join("missing").to_str().unwrap());
    assert!(
        told.contains("webhook.secret_file: ") && told.contains("missing"),
        "{told}"
    );
    let told = faults(there, directory.path().to_str().unwrap());
    assert!(told.starts_with("webhook.secret_file: "), "{told}");
    // All at once.
    let told = faults("ftp://x", &write("bad", b"bad"));
    assert!(told.contains("webhook.url: "), "{told}");
}

#[tokio::test]
async fn a_bad_url_is_one_fault() {
    let app = App::new(|_| OK).await;
    let file = app.key_file();
    let settings = [
        ("webhook.url", "nowhere"),
        ("webhook.secret_file", file.to_str().unwrap()),
    ];
    let faults = tillgate::app::Sidecar::new(&settings, Options::default(), false)
        .err()
        .unwrap();
    assert!(
        faults.len() == 1 && faults[0].starts_with("webhook.url: "),
        "{faults:#?}"
    );
}

#[tokio::test]
async fn check_says_what_webhooks_without_a_durable_store_mean() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    fs::write(&file, text_of(&key(1))).unwrap();
    let mut variables = vec![
        ("gateway.url", "http://127.0.0.1:9"),
        ("merchant.secret", "a_secret_of_this_test_only"),
        ("webhook.url", "http://127.0.0.1:9/hook"),
        ("webhook.secret_file", file.to_str().unwrap()),
    ];
    let (code, out, err) = run(&["check"], &variables).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("warning: webhooks without a durable store"),
        "{out}"
    );
    assert!(
        !out.contains("whsec_") && !out.contains(&STANDARD.encode(key(1))),
        "{out}"
    );
    let store = format!("file:{}", directory.path().join("store").display());
    variables.push(("store.url", &store));
    let (code, out, _) = run(&["check"], &variables).await;
    assert!(
        code == 0 && !out.contains("without a durable store"),
        "{out}"
    );
    variables.retain(|(name, _)| *name != "webhook.secret_file");
    let (code, _, err) = run(&["check"], &variables).await;
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("webhook.secret_file") && err.contains("tillgate webhook secret"),
        "{err}"
    );
    variables.retain(|(name, _)| !name.starts_with("webhook."));
    variables.push(("webhook.url", "http://bob:hunter2@127.0.0.1/"));
    let (code, out, err) = run(&["check"], &variables).await;
    assert!(
        code == 2 && err.contains("webhook.url") && !(out + &err).contains("hunter2"),
        "{err}"
    );
}

#[tokio::test]
async fn a_fresh_key_is_one_line_that_can_be_used_and_no_two_are_the_same() {
    let mut keys = HashSet::new();
    for command in [
        &["webhook", "secret"][..],
        &["webhook-secret"],
        &["webhook", "secret"],
    ] {
        let (code, out, err) = run(command, &[]).await;
        assert_eq!((code, err.as_str()), (0, ""));
        let line = out.strip_suffix('\n').unwrap();
        let bytes = STANDARD
            .decode(line.strip_prefix("whsec_").unwrap())
            .unwrap();
        assert!((24..=64).contains(&bytes.len()), "{line}");
        assert!(keys.insert(bytes));
    }
    let app = App::new(|_| OK).await;
    let lines: Vec<_> = keys.iter().map(|key| text_of(key)).collect();
    fs::write(app.key_file(), lines.join("\n")).unwrap();
    paid(&app.sidecar(&[]), 1).await;
}

#[tokio::test]
async fn a_fresh_key_goes_into_a_new_file_that_only_its_owner_can_open() {
    let app = App::new(|_| OK).await;
    let path = app.directory.path().join("fresh");
    let path = path.to_str().unwrap();
    let under = ["sh", "-c", "umask 0; exec \"$@\"", "sh"];
    let command = ["webhook", "secret", "--out", path];
    let (code, out, err) = Program::start_under(&under, app.directory.path(), &command, &[])
        .end()
        .await;
    assert!(
        code == 0 && out.contains(path) && !out.contains("whsec_"),
        "{out}{err}"
    );
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let key = fs::read_to_string(path).unwrap();
    fs::write(app.key_file(), &key).unwrap();
    paid(&app.sidecar(&[]), 1).await;
    // What is there stays, also what a symlink points to.
    let link = app.directory.path().join("link");
    std::os::unix::fs::symlink(app.directory.path().join("nothing"), &link).unwrap();
    for there in [path, link.to_str().unwrap()] {
        for command in [&["webhook", "secret"][..], &["webhook-secret"]] {
            let (code, out, err) = run(&[command, &["--out", there]].concat(), &[]).await;
            assert_eq!((code, &*out), (1, ""));
            assert!(
                err.contains(there) && err.contains("there already"),
                "{err}"
            );
        }
    }
    assert_eq!(fs::read_to_string(path).unwrap(), key);
    assert!(!app.directory.path().join("nothing").exists());
    let nowhere = app.directory.path().join("no/such");
    let (code, _, err) = run(
        &["webhook", "secret", "--out", nowhere.to_str().unwrap()],
        &[],
    )
    .await;
    assert!(code == 1 && err.contains("cannot be written"), "{err}");
}

#[tokio::test]
async fn a_test_message_is_posted_once_and_what_came_back_is_told() {
    const TOO_OLD: &[u8] =
        b"HTTP/1.1 422 Unprocessable\r\nContent-Length: 24\r\n\r\nthe signature is too old";
    let tries = AtomicUsize::new(0);
    let app = App::new(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Say::Status(204, ""),
        1 => Say::Raw(TOO_OLD),
        _ => Say::Status(410, ""),
    })
    .await;
    let (url, file) = (app.url(), app.key_file());
    let settings = [
        ("gateway.url", NOBODY),
        ("merchant.secret", tillgate::sandbox::DEFAULT_SECRET),
        ("webhook.url", &*url),
        ("webhook.secret_file", file.to_str().unwrap()),
    ];
    for (code, part) in [
        (0, "took the message: status 204"),
        (
            1,
            "did not take the message: status 422: the signature is too old",
        ),
        (1, "did not take the message: status 410"),
    ] {
        let (ended, out, err) = run(&["webhook", "test"], &settings).await;
        let said = if code == 0 { &out } else { &err };
        assert!(
            ended == code && said.contains(part) && said.contains(&url),
            "{out}{err}"
        );
    }
    let heard = app.hears_no_more_than(3).await;
    for post in &heard {
        app.assert_signed(post);
        assert_eq!(post.kind(), "tillgate.test");
        assert_eq!(post.json()["data"], serde_json::json!({}));
        super::time(&post.json()["timestamp"]);
        assert!(post.id().starts_with("msg_"));
    }
    assert_ne!(heard[0].id(), heard[1].id(), "each is a message of its own");
    // Nobody there.
    let nobody = [&settings[..2], &[("webhook.url", NOBODY), settings[3]][..]].concat();
    let (code, _, err) = run(&["webhook", "test"], &nobody).await;
    assert!(
        code == 1 && err.contains("did not take the message: no connection"),
        "{err}"
    );
    // Nothing to post to, and a fault.
    let (code, _, err) = run(&["webhook", "test"], &settings[..2]).await;
    assert!(code == 2 && err.contains("webhook.url is not set"), "{err}");
    let (code, _, err) = run(&["webhook", "test"], &settings[..3]).await;
    assert!(code == 2 && err.contains("webhook.secret_file"), "{err}");
}

#[tokio::test]
async fn the_key_is_in_no_log_no_page_and_no_list() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let hex: String = key(1).iter().map(|byte| format!("{byte:02x}")).collect();
    let echo = format!("HTTP/1.1 500 Oops\r\nContent-Length: 64\r\n\r\n{hex}");
    let echo = &*echo.into_bytes().leak();
    let app = App::new(
        move |post| {
            if post.tries == 1 { Say::Raw(echo) } else { OK }
        },
    )
    .await;
    let (sidecar, api, admin) = app
        .program(
            &gateway,
            &[("log.level", "trace"), ("listen.drain_timeout", "2s")],
        )
        .await;
    let payment = start_at(api, r#"{"amount":1}"#).await;
    pay_at(&gateway, payment.text("code")).await;
    let heard = app.has_heard(2).await;
    fs::write(
        app.key_file(),
        text_of(&key(1)) + "\nwhsec_" + &"x".repeat(41),
    )
    .unwrap();
    sidecar.signal("HUP");
    until("what is bad is counted", async || {
        let failures = metric_at(admin, "tillgate_webhook_key_reload_failures_total").await;
        (failures == 1).then_some(())
    })
    .await;
    let mut told = String::new();
    for path in ["/metrics", "/status", "/", "/readyz?verbose"] {
        let page = get_at(admin, path).await.body;
        assert!(
            !page.contains(payment.text("code")) && !page.contains(payment.text("watch_code")),
            "{path}"
        );
        assert!(!page.contains(heard[0].id()), "{path}");
        told.push_str(&page);
    }
    sidecar.signal("TERM");
    let (code, out, log) = sidecar.end().await;
    assert_eq!(code, 0);
    told.push_str(&(out + &log));
    assert!(log.contains("status 500: [redacted]"), "{log}");
    assert!(
        log.contains("webhook delivered") && log.contains("webhook not delivered"),
        "{log}"
    );
    for part in [
        &STANDARD.encode(key(1)),
        &STANDARD.encode(key(1))[..20],
        "xxxxxxxx",
    ] {
        assert!(!told.contains(part), "{part}");
    }
    assert!(!told.contains(&hex) && !told.contains(&format!("{:?}", key(1))));
}
