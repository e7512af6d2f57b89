//! A gateway that says the merchant secret, in whatever way and wherever: it goes no further, not to callers, not into
//! the log, not into the store, not to the app.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use hyper::Method;
use tokio::io::AsyncReadExt;

use crate::harness::{ORDER, Program, Wire, call, get_at, metric_at, run, start_at, until};
use crate::scripted::{Act, Gateway, answer};

/// It has what JSON and URLs escape, and what base64 writes differently in its two alphabets.
const SECRET: &str = r#"s3cret/"with"+special\=chars&more?>~"#;
const TOKEN: &str = "a-token-of-a-caller";

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(text: &str) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The body of a JSON text.
fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The secret, and texts with it in them, in every form that is looked for.
fn forms() -> Vec<String> {
    let request = format!(
        r#"{{"merchant_secret":"{}","amount":1000}}"#,
        quoted(SECRET)
    );
    let mut forms = vec![
        SECRET.to_owned(),
        quoted(SECRET),
        quoted(SECRET).replace('/', "\\/"),
        percent(SECRET),
        request.clone(),
    ];
    forms.push(
        SECRET
            .chars()
            .map(|c| format!("\\u{:04x}", u32::from(c)))
            .collect(),
    );
    forms.push(SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect());
    for text in [SECRET, &request, &request.replace('/', "\\/")] {
        for before in ["", "x", "xy"] {
            let text = format!("{before}{text}");
            forms.extend([STANDARD.encode(&text), URL_SAFE.encode(&text)]);
            forms.extend([STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
        }
        forms.extend([
            hex(text),
            hex(text).to_uppercase(),
            format!("0x{}", hex(text)),
        ]);
    }
    forms
}

/// What must stand nowhere: parts of the forms that the secret alone decides about, long enough to be nothing else.
fn needles() -> Vec<String> {
    let mut needles = vec![
        SECRET.to_owned(),
        quoted(SECRET),
        percent(SECRET),
        percent(SECRET).to_lowercase(),
    ];
    let texts = [
        SECRET.to_owned(),
        quoted(SECRET),
        quoted(SECRET).replace('/', "\\/"),
    ];
    for text in &texts {
        needles.extend([hex(text), hex(text).to_uppercase()]);
    }
    for before in ["", "x", "xy"] {
        for text in &texts {
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let coded = engine.encode(format!("{before}{text}"));
                needles.push(coded[4..coded.len() - 4].to_owned());
            }
        }
    }
    needles
}

/// The first needle that stands in these bytes.
fn found(bytes: &[u8]) -> Option<String> {
    needles().into_iter().find(|needle| {
        bytes
            .windows(needle.len())
            .any(|part| part == needle.as_bytes())
    })
}

/// Every file below a directory, one after the other.
fn contents(directory: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        bytes.extend(if path.is_dir() {
            contents(&path)
        } else {
            std::fs::read(path).unwrap()
        });
    }
    bytes
}

#[test]
fn the_search_finds_every_form() {
    for form in forms() {
        // Escaped as JSON characters it is another text, and as percent signs throughout.
        let is_looked_for =
            !form.starts_with("\\u") && !form.starts_with("%7") && !form.contains("\\/");
        assert!(!is_looked_for || found(form.as_bytes()).is_some(), "{form}");
    }
    assert_eq!(found(b"a text without it"), None);
}

#[tokio::test]
async fn what_the_gateway_echoes_reaches_no_answer_no_stream_no_log_no_store_and_no_webhook() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let store = directory.path().join("store");
    let said = Arc::new(Mutex::new(Vec::<u8>::new()));
    let (heard, starts, asked) = (
        said.clone(),
        AtomicUsize::new(0),
        Mutex::new(HashSet::new()),
    );
    // One payment a form: said in texts, names and lists, then paid.
    let gateway = Gateway::new(move |_, request| {
        let form = |number: usize| serde_json::Value::from(forms()[number % forms().len()].as_str());
        // Two names that are not the same until the secret is out.
        let next = |number: usize| form(number + 1);
        let body = match request.split_once("/watch/watch_") {
            None => {
                let number = starts.fetch_add(1, Ordering::SeqCst);
                let (form, next) = (form(number), next(number));
                format!(
                    r#"{{"code":"pay_{number}","message":{form},"watch_code":"watch_{number}",{form}:[{{"a":{form}}}],{next}:1}}"#
                )
            }
            Some((_, rest)) => {
                let number: usize = rest.split(' ').next().unwrap().parse().unwrap();
                let (form, next) = (form(number), next(number));
                let is_first = asked.lock().unwrap().insert(number);
                let status = if is_first { "created" } else { "completed" };
                format!(
                    r#"{{"status":"{status}","amount":1000,"merchant":{form},"created_at":{form},"completed_at":{form},"note":{form},{form}:{form},{next}:1}}"#
                )
            }
        };
        heard.lock().unwrap().extend_from_slice(body.as_bytes());
        Act::Say(answer(200, &body))
    })
    .await;
    let app = Gateway::new(|_, _| Act::Say(answer(200, "{}"))).await;
    let (_, key, _) = run(&["webhook", "secret"], &[]).await;
    let settings = [
        ("merchant.secret_file", write("secret", SECRET)),
        ("listen.token_file", write("tokens", TOKEN)),
        ("webhook.secret_file", write("keys", &key)),
        ("webhook.url", format!("{}/hook", app.url())),
        ("store.url", format!("file:{}", store.display())),
        ("watch.fresh_for", "1ms".to_owned()),
        ("watch.poll_rate", "1000".to_owned()),
        ("start.rate", "1000".to_owned()),
        ("start.burst", "1000".to_owned()),
        ("log.level", "trace".to_owned()),
    ];
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let (sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    let authorization = format!("Bearer {TOKEN}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let mut shown = Vec::new();
    for number in 0..forms().len() {
        let key = format!("key-{number}");
        let headers = [&headers[..], &[("idempotency-key", key.as_str())]].concat();
        let started = call(api, Method::POST, "/api/start_payment", &headers, ORDER).await;
        assert_eq!(started.status, 200, "{started:?}");
        assert!(
            started.body.contains("[redacted]"),
            "{}: {started:?}",
            forms()[number]
        );
        shown.push(format!("{started:?}"));
        let replayed = call(api, Method::POST, "/api/start_payment", &headers, ORDER).await;
        assert_eq!(replayed.body, started.body);
        let watched = call(
            api,
            Method::GET,
            &format!("/watch/watch_{number}"),
            &headers,
            "",
        )
        .await;
        assert_eq!(watched.status, 200, "{watched:?}");
        assert!(
            watched.body.contains("[redacted]"),
            "{}: {watched:?}",
            forms()[number]
        );
        shown.push(format!("{watched:?}"));
    }
    // Whoever asks a second time, be it the poller in the background, hears that it is paid.
    until("a webhook for each", async || {
        (app.requests().len() >= forms().len()).then_some(())
    })
    .await;
    shown.extend(app.requests());
    shown.push(format!(
        "{:?}",
        call(api, Method::GET, "/payments?limit=1000", &headers, "").await
    ));
    shown.push(format!(
        "{:?}",
        call(api, Method::GET, "/deliveries", &headers, "").await
    ));
    for path in ["/metrics", "/status", "/", "/readyz?verbose"] {
        shown.push(format!("{:?}", get_at(admin, path).await));
    }
    let mut wire = Wire::open(api).await;
    wire.send(format!(
        "GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\nLast-Event-ID: 0\r\n\r\n"
    ))
    .await;
    let (mut stream, mut events) = (wire.into_stream(), Vec::new());
    until("a stream", async || {
        stream.read_buf(&mut events).await.unwrap();
        events.windows(2).any(|end| end == b"\n\n").then_some(())
    })
    .await;
    shown.push(String::from_utf8_lossy(&events).into_owned());
    drop(stream);
    let mut watches = Vec::new();
    for number in 0..forms().len() {
        watches.push(
            call(
                api,
                Method::GET,
                &format!("/watch/watch_{number}"),
                &headers,
                "",
            )
            .await
            .body,
        );
    }
    let counted = metric_at(admin, "tillgate_secret_echo_total").await;
    assert!(counted >= 2 * forms().len() as u64, "{counted}");
    sidecar.signal("TERM");
    let log = sidecar.log.join("\n");
    let (code, out, err) = sidecar.end().await;
    assert_eq!(code, 0);
    assert!(
        err.contains("the gateway echoed the merchant secret"),
        "{err}"
    );
    shown.extend([log, out, err]);

    assert!(
        found(&said.lock().unwrap()).is_some(),
        "the gateway did say it"
    );
    assert!(
        gateway
            .requests()
            .iter()
            .any(|request| found(request.as_bytes()).is_some()),
        "and was told it"
    );
    for text in &shown {
        assert_eq!(found(text.as_bytes()), None, "{text}");
    }
    let kept = contents(&store);
    assert!(
        kept.windows(10).any(|part| part == b"[redacted]"),
        "what is kept is found"
    );
    assert_eq!(found(&kept), None, "in the store");

    // All that is kept can be read again.
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    for (number, watched) in watches.into_iter().enumerate() {
        assert_eq!(
            call(
                api,
                Method::GET,
                &format!("/watch/watch_{number}"),
                &headers,
                ""
            )
            .await
            .body,
            watched
        );
    }
}

/// The secret as other programs may write it, whole and cut, and in one coding around the other.
fn echoes(secret: &str) -> Vec<String> {
    let each = |coded: fn(u8) -> String| secret.bytes().map(coded).collect::<String>();
    let lines = STANDARD.encode(format!("a request that has {secret} in it"));
    let lines: Vec<_> = lines
        .as_bytes()
        .chunks(20)
        .map(String::from_utf8_lossy)
        .collect();
    vec![
        secret[3..].to_owned(),
        secret[..secret.len() - 3].to_owned(),
        secret.replace('&', "&amp;").replace('/', "&sol;"),
        each(|byte| format!("&#{byte};")),
        each(|byte| format!("&#x{byte:X};")),
        each(|byte| format!("{byte:02x} ")),
        each(|byte| format!("{byte:02X}:")),
        each(|byte| format!("0x{byte:02x}, ")),
        each(|byte| format!("\\x{byte:02x}")),
        percent(&percent(secret)),
        percent(&percent(&percent(secret))),
        secret.to_lowercase(),
        secret.to_uppercase(),
        lines.join("\r\n"),
        STANDARD.encode(hex(&percent(secret))),
        hex(&quoted(&STANDARD.encode(&secret[..secret.len() / 2]))),
    ]
}

#[tokio::test]
async fn no_echo_hides_the_secret_and_a_prefix_of_it_is_no_echo() {
    const KEY: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc&/";
    const KNOWN: &str = "the keys of sk_live_ and SK_LIVE_ begin so";
    let notes: Vec<_> = echoes(KEY).into_iter().chain([KNOWN.to_owned()]).collect();
    let said = notes.clone();
    let gateway = Gateway::new(move |n, _| {
        let (note, code) = (format!("<{}>", said[n]), format!("pay_{n}"));
        let body = serde_json::json!({"code": code, "watch_code": code, "note": note});
        Act::Say(answer(200, &body.to_string()))
    })
    .await;
    let settings = [("merchant.secret", KEY), ("start.burst", "100")];
    let (_sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    for note in &notes[..notes.len() - 1] {
        let started = start_at(api, ORDER).await;
        assert_eq!(started.status, 200, "{started:?}");
        let shown = started.text("note");
        let (before, after) = shown.split_once("[redacted]").expect(note);
        // Of base64 there is more than the secret.
        let is_all = before.len() <= 3 && after.len() <= 3 || note.contains("\r\n");
        assert!(is_all, "{note}: {shown}");
    }
    let counted = metric_at(admin, "tillgate_secret_echo_total").await;
    assert_eq!(counted, echoes(KEY).len() as u64);
    assert_eq!(
        start_at(api, ORDER).await.text("note"),
        format!("<{KNOWN}>")
    );
    assert_eq!(
        metric_at(admin, "tillgate_secret_echo_total").await,
        counted
    );
}

#[tokio::test]
async fn the_whole_secret_in_what_is_acted_on_makes_the_answer_a_bad_one() {
    const KEY: &str = "canary-Q7w9E2r4T6y8-U1i3O5p0";
    const FIELDS: [&str; 4] = ["code", "watch_code", "status", "amount"];
    // First the whole in each field of a start, then in each of a status, and then half of it in the two codes.
    let bodies: Vec<_> = (0..10)
        .map(|n| {
            let mut body = serde_json::json!({"code": format!("pay_{n}"), "status": "created", "amount": 1000});
            if !(4..8).contains(&n) {
                body["watch_code"] = format!("watch_{n}").into();
            }
            body[FIELDS[n % 4]] = if n < 8 { KEY } else { &KEY[..20] }.into();
            body.to_string()
        })
        .collect();
    let gateway = Gateway::new(move |n, _| Act::Say(answer(200, &bodies[n]))).await;
    let settings = [
        ("merchant.secret", KEY),
        ("start.burst", "100"),
        ("gateway.retries", "0"),
    ];
    let (_sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    for n in 0..8 {
        let bad = match n {
            0..4 => start_at(api, ORDER).await,
            _ => get_at(api, &format!("/watch/of-case-{n}")).await,
        };
        assert_eq!(
            (bad.status, bad.text("error")),
            (502, "gateway_bad_answer"),
            "{bad:?}"
        );
        assert!(bad.text("detail").contains(FIELDS[n % 4]), "{bad:?}");
        assert!(!bad.body.contains(&KEY[..12]), "{bad:?}");
    }
    assert_eq!(metric_at(admin, "tillgate_secret_echo_total").await, 8);
    for field in &FIELDS[..2] {
        let started = start_at(api, ORDER).await;
        assert_eq!(
            (started.status, started.text(field)),
            (200, &KEY[..20]),
            "{started:?}"
        );
    }
    assert_eq!(metric_at(admin, "tillgate_secret_echo_total").await, 8);
}

#[tokio::test]
async fn what_is_not_the_body_of_an_answer_is_passed_on_nowhere() {
    // A secret that can stand in any place of an answer, and be taken for a number.
    const NUMBER: &str = "31415926535897932384";
    let heads = [
        format!(
            "HTTP/1.1 422 {NUMBER}\r\nX-Echo: {NUMBER}\r\nContent-Type: {NUMBER}\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
        format!("HTTP/1.1 429 {NUMBER}\r\nRetry-After: {NUMBER}\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("HTTP/1.1 302 {NUMBER}\r\nLocation: http://{NUMBER}/\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: {NUMBER}\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {NUMBER}{NUMBER}\r\n\r\n{{}}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{NUMBER}{NUMBER}\r\n"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {NUMBER}\r\n\r\n{NUMBER}"),
        format!("HTTP/1.1 {NUMBER} OK\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX {NUMBER}: x\r\n\r\n"),
        format!("{NUMBER}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{NUMBER}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{{\"code\":{NUMBER}}}"),
        format!("HTTP/1.1 500 {NUMBER}\r\nContent-Length: 20\r\n\r\n{NUMBER}"),
    ];
    let numbers = Arc::new(Mutex::new(
        heads
            .iter()
            .flat_map(|head| [head.clone(), head.clone()])
            .collect::<Vec<_>>(),
    ));
    numbers.lock().unwrap().reverse();
    let left = numbers.clone();
    let gateway =
        Gateway::new(move |_, _| Act::SayAndEnd(left.lock().unwrap().pop().unwrap().into_bytes()))
            .await;
    let settings = [
        ("merchant.secret", NUMBER),
        ("gateway.retries", "0"),
        ("gateway.timeout", "5s"),
        ("log.level", "trace"),
    ];
    let (sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    let mut shown = Vec::new();
    for (number, head) in heads.iter().enumerate() {
        let started = start_at(api, ORDER).await;
        assert!(started.status >= 400, "{head}: {started:?}");
        shown.push(format!("{started:?}"));
        let watched = get_at(api, &format!("/watch/of-case-{number}")).await;
        assert!(watched.status >= 400, "{head}: {watched:?}");
        shown.push(format!("{watched:?}"));
    }
    assert!(numbers.lock().unwrap().is_empty(), "all of it was said");
    for path in ["/metrics", "/status", "/"] {
        shown.push(format!("{:?}", get_at(admin, path).await));
    }
    sidecar.signal("TERM");
    let log = sidecar.log.join("\n");
    let (_, out, err) = sidecar.end().await;
    shown.extend([log, out, err]);
    for text in &shown {
        assert!(!text.contains(&NUMBER[..12]), "{text}");
    }
}

#[tokio::test]
async fn a_secret_in_the_middle_of_control_characters_is_none_that_a_caller_sees() {
    const PLAIN: &str = "a_secret_without_marks";
    let spread = |mark: &str| format!("a_secret{mark}_without{mark}_marks");
    let messages = ["\\u0001", "\\u007f", "\\n", "\\u009b"]
        .map(|mark| format!(r#"{{"message":"no: {}."}}"#, spread(mark)));
    let gateway = Gateway::new(move |n, _| Act::Say(answer(422, &messages[n]))).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[("merchant.secret", PLAIN)]).await;
    for _ in 0..4 {
        assert_eq!(
            start_at(api, ORDER).await.text("gateway_message"),
            "no: [redacted]."
        );
    }
}

#[tokio::test]
async fn an_error_that_the_gateway_words_is_shortened_after_it_was_scrubbed() {
    const PLAIN: &str = "a_secret_without_marks";
    let gateway = Gateway::new(move |n, _| {
        // Nearer and nearer to the end of what is shown: never is a part of it left.
        let message = format!("{}{PLAIN}", "x".repeat(170 + n));
        Act::Say(answer(422, &format!(r#"{{"message":"{message}"}}"#)))
    })
    .await;
    let settings = [
        ("merchant.secret", PLAIN),
        ("start.burst", "100"),
        ("start.rate", "100"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    for n in 0..32 {
        let message = start_at(api, ORDER)
            .await
            .text("gateway_message")
            .to_owned();
        let expected: String = format!("{}[redacted]", "x".repeat(170 + n))
            .chars()
            .take(200)
            .collect();
        assert_eq!(message, expected);
    }
}
