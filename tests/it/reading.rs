//! How answers of the gateway are read, and what its refusals mean: nothing that is odd about an answer keeps a status
//! from an app, but for what the app acts on.

mod refused;

use std::sync::{Arc, Mutex};

use crate::harness::{Answer, ORDER, Program, get_at, metric_at, start_at};
use crate::scripted::{Act, Gateway, STARTED, WATCHED, answer, answer_with, as_told, told};

/// An answer with these headers and no others.
fn bare(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The same as JSON.
fn json(status: u16, body: impl AsRef<[u8]>) -> Vec<u8> {
    bare(status, "Content-Type: application/json\r\n", body)
}

/// A sidecar in front of a gateway that says the same to every question until told otherwise, and a way to tell it.
struct Talk {
    said: Arc<Mutex<Vec<u8>>>,
    gateway: Gateway,
    sidecar: Program,
    api: std::net::SocketAddr,
    admin: std::net::SocketAddr,
    asked: usize,
}

impl Talk {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let said: Arc<Mutex<Vec<u8>>> = Arc::default();
        let current = said.clone();
        let gateway = Gateway::new(move |_, _| Act::Say(current.lock().unwrap().clone())).await;
        let fast = [
            ("watch.fresh_for", "1ms"),
            ("watch.poll_rate", "1000"),
            ("start.rate", "1000"),
            ("start.burst", "1000"),
        ];
        let (sidecar, api, admin) =
            Program::sidecar(&gateway.url(), &[&fast, settings].concat()).await;
        Self {
            said,
            gateway,
            sidecar,
            api,
            admin,
            asked: 0,
        }
    }

    fn says(&self, bytes: Vec<u8>) {
        *self.said.lock().unwrap() = bytes;
    }

    /// What a start gets where the gateway says this.
    async fn start(&self, bytes: Vec<u8>) -> Answer {
        self.says(bytes);
        start_at(self.api, ORDER).await
    }

    /// What a watch of a code that nobody asked for before gets where the gateway says this.
    async fn watch(&mut self, bytes: Vec<u8>) -> Answer {
        self.says(bytes);
        self.asked += 1;
        get_at(self.api, &format!("/watch/of-case-{}", self.asked)).await
    }

    async fn mismatches(&self) -> u64 {
        metric_at(self.admin, "tillgate_amount_mismatch_total").await
    }
}

#[tokio::test]
async fn whatever_else_is_odd_about_an_answer_its_status_is_told() {
    let deep_enough = format!("{}{}", "[".repeat(15), "]".repeat(15));
    let deep = format!(r#"{{"status":"STATUS","amount":1000,"x":{deep_enough}}}"#);
    let deep_told = format!(r#"{{"amount":1000,"status":"STATUS","x":{deep_enough}}}"#);
    let cases: Vec<(&str, &[u8], &str)> = vec![
        (
            "a byte order mark",
            b"\xef\xbb\xbf{\"status\":\"STATUS\",\"amount\":1000}",
            r#"{"amount":1000,"status":"STATUS"}"#,
        ),
        (
            "a merchant in Latin-1",
            b"{\"status\":\"STATUS\",\"amount\":1000,\"merchant\":\"M\xfcller & S\xf6hne\"}",
            "{\"amount\":1000,\"merchant\":\"M\u{fffd}ller & S\u{fffd}hne\",\"status\":\"STATUS\"}",
        ),
        (
            "a name in Latin-1",
            b"{\"status\":\"STATUS\",\"amount\":1000,\"geb\xfchr\":5}",
            "{\"amount\":1000,\"geb\u{fffd}hr\":5,\"status\":\"STATUS\"}",
        ),
        (
            "half a surrogate pair",
            br#"{"status":"STATUS","amount":1000,"merchant":"\ud83d \ude00\ud83d \ud83d\ude00"}"#,
            "{\"amount\":1000,\"merchant\":\"\u{fffd} \u{fffd}\u{fffd} \u{1f600}\",\"status\":\"STATUS\"}",
        ),
        (
            "a line end in a text",
            b"{\"status\":\"STATUS\",\"amount\":1000,\"merchant\":\"M\n\t\"}",
            r#"{"amount":1000,"merchant":"M\n\t","status":"STATUS"}"#,
        ),
        (
            "null in the place of texts",
            br#"{"status":"STATUS","amount":1000,"merchant":null,"created_at":null,"completed_at":null}"#,
            r#"{"amount":1000,"completed_at":null,"created_at":null,"merchant":null,"status":"STATUS"}"#,
        ),
        (
            "fields of other kinds",
            br#"{"status":"STATUS","amount":1000,"merchant":{"id":7},"created_at":1893456000,"completed_at":[false]}"#,
            r#"{"amount":1000,"completed_at":[false],"created_at":1893456000,"merchant":{"id":7},"status":"STATUS"}"#,
        ),
        ("nothing but a status", br#"{"status":"STATUS"}"#, r#"{"status":"STATUS"}"#),
        ("no amount", br#"{"status":"STATUS","amount":null}"#, r#"{"amount":null,"status":"STATUS"}"#),
        ("an amount as text", br#"{"status":"STATUS","amount":"1000"}"#, r#"{"amount":"1000","status":"STATUS"}"#),
        ("cents as text", br#"{"status":"STATUS","amount":"1000.00"}"#, r#"{"amount":"1000.00","status":"STATUS"}"#),
        ("cents", br#"{"status":"STATUS","amount":1000.00}"#, r#"{"amount":1000.00,"status":"STATUS"}"#),
        ("an exponent", br#"{"status":"STATUS","amount":1e3}"#, r#"{"amount":1e3,"status":"STATUS"}"#),
        ("a debt", br#"{"status":"STATUS","amount":-1}"#, r#"{"amount":-1,"status":"STATUS"}"#),
        (
            "an amount beyond all numbers",
            br#"{"status":"STATUS","amount":"1e99999999999999999999"}"#,
            r#"{"amount":"1e99999999999999999999","status":"STATUS"}"#,
        ),
        (
            "fields twice",
            br#"{"status":"STATUS","amount":1000,"merchant":"A","x":{"y":1,"y":2},"merch\u0061nt":"B","x":{"z":1,"y":1,"y":3}}"#,
            r#"{"amount":1000,"merchant":"B","status":"STATUS","x":{"y":3,"z":1}}"#,
        ),
        (
            "what is acted on again, further in",
            br#"{"status":"STATUS","amount":1000,"x":{"status":"a","status":"b","amount":1,"amount":2}}"#,
            r#"{"amount":1000,"status":"STATUS","x":{"amount":2,"status":"b"}}"#,
        ),
        ("deep", deep.as_bytes(), &deep_told),
        (
            "a watch code that is null",
            br#"{"status":"STATUS","amount":1000,"watch_code":null}"#,
            r#"{"amount":1000,"status":"STATUS","watch_code":null}"#,
        ),
        (
            "white space around",
            b" \r\n{\"status\":\"STATUS\",\"amount\":1000}\r\n\t ",
            r#"{"amount":1000,"status":"STATUS"}"#,
        ),
        (
            "long numbers",
            br#"{"status":"STATUS","amount":12345678901234567890.10,"fee":1e300}"#,
            r#"{"amount":12345678901234567890.10,"fee":1e300,"status":"STATUS"}"#,
        ),
    ];
    let mut talk = Talk::new(&[]).await;
    for status in ["created", "completed", "on_hold"] {
        for (name, bytes, expected) in &cases {
            let at = bytes.windows(6).position(|part| part == b"STATUS").unwrap();
            let bytes = [&bytes[..at], status.as_bytes(), &bytes[at + 6..]].concat();
            let told = talk.watch(json(200, bytes)).await;
            assert_eq!(
                (told.status, told.body),
                (200, expected.replace("STATUS", status)),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_whose_status_or_amount_could_be_another_one_is_bad() {
    let too_deep = format!(
        r#"{{"status":"completed","amount":1000,"x":{}{}}}"#,
        "[".repeat(16),
        "]".repeat(16)
    );
    let cases: Vec<(&str, &[u8])> = vec![
        (
            "status twice",
            br#"{"status":"created","amount":1000,"status":"completed"}"#,
        ),
        (
            "the same status twice",
            br#"{"status":"completed","amount":1000,"status":"completed"}"#,
        ),
        (
            "status twice, once escaped",
            br#"{"status":"created","amount":1000,"st\u0061tus":"completed"}"#,
        ),
        (
            "amount twice",
            br#"{"status":"completed","amount":1000,"amount":1}"#,
        ),
        (
            "amount twice, once escaped",
            br#"{"status":"completed","\u0061mount":null,"amount":1000}"#,
        ),
        (
            "a watch code twice",
            br#"{"status":"completed","amount":1000,"watch_code":"x","watch_code":null}"#,
        ),
        (
            "the code of another payment",
            br#"{"status":"completed","amount":1000,"watch_code":"another"}"#,
        ),
        ("no status", br#"{"amount":1000}"#),
        ("null for a status", br#"{"status":null,"amount":1000}"#),
        ("a number for a status", br#"{"status":1,"amount":1000}"#),
        (
            "a list for a status",
            br#"{"status":["completed"],"amount":1000}"#,
        ),
        ("an empty status", br#"{"status":"","amount":1000}"#),
        (
            "truth for an amount",
            br#"{"status":"completed","amount":true}"#,
        ),
        (
            "an object for an amount",
            br#"{"status":"completed","amount":{"value":1000}}"#,
        ),
        (
            "a list for an amount",
            br#"{"status":"completed","amount":[1000]}"#,
        ),
        (
            "words for an amount",
            br#"{"status":"completed","amount":"1000 EUR"}"#,
        ),
        ("an empty amount", br#"{"status":"completed","amount":""}"#),
        (
            "space around an amount",
            br#"{"status":"completed","amount":" 1000"}"#,
        ),
        (
            "an amount that is no JSON number",
            br#"{"status":"completed","amount":"01000"}"#,
        ),
        (
            "an amount in other digits",
            "{\"status\":\"completed\",\"amount\":\"\u{661}\"}".as_bytes(),
        ),
        ("too deep", too_deep.as_bytes()),
        (
            "bytes behind",
            br#"{"status":"completed","amount":1000} <!-- 3 ms -->"#,
        ),
        (
            "a zero byte behind",
            b"{\"status\":\"completed\",\"amount\":1000}\0",
        ),
        (
            "two objects",
            br#"{"status":"completed","amount":1000}{"status":"created","amount":1000}"#,
        ),
        (
            "a second byte order mark",
            b"\xef\xbb\xbf\xef\xbb\xbf{\"status\":\"completed\",\"amount\":1000}",
        ),
        (
            "a byte that is not UTF-8 outside of texts",
            b"{\"status\":\"completed\",\xa0\"amount\":1000}",
        ),
        ("a list", br#"[{"status":"completed","amount":1000}]"#),
        ("a text", br#""completed""#),
        ("cut short", br#"{"status":"completed","amount":1000"#),
        ("a byte order mark alone", b"\xef\xbb\xbf"),
        ("UTF-16", b"\xff\xfe{\0\"\0s\0"),
    ];
    let mut talk = Talk::new(&[]).await;
    for (name, bytes) in cases {
        let answer = talk.watch(json(200, bytes)).await;
        assert_eq!(
            told(&answer),
            as_told(502, "gateway_bad_answer", ""),
            "{name}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn amounts_are_compared_by_value_and_a_missing_one_is_logged_once() {
    let talk = Talk::new(&[]).await;
    assert_eq!(talk.start(answer(200, STARTED)).await.status, 200);
    let watch = async |amount: &str| {
        let field = if amount.is_empty() {
            String::new()
        } else {
            format!(r#""amount":{amount},"#)
        };
        talk.says(answer(200, &WATCHED.replace(r#""amount":1000,"#, &field)));
        let told = get_at(talk.api, "/watch/watch_1").await;
        assert_eq!(
            (told.status, told.text("status")),
            (200, "created"),
            "{told:?}"
        );
        assert!(
            told.body.contains(field.trim_end_matches(',')),
            "as it came: {told:?}"
        );
    };
    for same in [
        "1000",
        "1000.00",
        r#""1000""#,
        "1e3",
        r#""1000.00""#,
        "0.1e+4",
        r#""1E3""#,
    ] {
        watch(same).await;
        assert_eq!(talk.mismatches().await, 0, "{same}");
    }
    for (other, count) in [
        ("1001", 1),
        (r#""1001.0""#, 1),
        ("1000", 1),
        ("1000.01", 2),
        ("-1000", 3),
        (r#""1e99999999999999999999""#, 4),
        ("", 4),
        ("null", 4),
        ("1000", 4),
    ] {
        watch(other).await;
        assert_eq!(talk.mismatches().await, count, "{other}");
    }
    talk.sidecar.signal("TERM");
    let (_, _, log) = talk.sidecar.end().await;
    let lines = |part: &str| {
        log.lines()
            .filter(|line| line.contains(part))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let missing = lines("the gateway tells no amount");
    assert!(
        matches!(&missing[..], [line] if line.contains("WARN") && line.contains("\"pa…\"")),
        "{log}"
    );
    let others = lines("another amount than was started");
    assert!(
        others.len() == 4 && others[1].contains(r#""told":"1000.01""#),
        "{log}"
    );
}

#[tokio::test]
async fn the_answer_to_a_start_is_read_likewise() {
    let good: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a byte order mark",
            b"\xef\xbb\xbf{\"code\":\"pay_1\",\"watch_code\":\"watch_1\"}".to_vec(),
            r#"{"code":"pay_1","watch_code":"watch_1","#,
        ),
        (
            "Latin-1",
            b"{\"message\":\"Zahlung er\xf6ffnet\",\"code\":\"pay_1\",\"watch_code\":\"watch_1\"}".to_vec(),
            "{\"message\":\"Zahlung er\u{fffd}ffnet\",\"code\":\"pay_1\",\"watch_code\":\"watch_1\",",
        ),
        (
            "half a surrogate pair",
            br#"{"code":"pay_1","watch_code":"watch_1","message":"\ud83d"}"#.to_vec(),
            "{\"code\":\"pay_1\",\"watch_code\":\"watch_1\",\"message\":\"\u{fffd}\",",
        ),
        (
            "other fields twice, and of other kinds",
            br#"{"code":"pay_1","message":"a","watch_code":"watch_1","message":{"status":1,"status":2},"amount":1,"amount":2}"#
                .to_vec(),
            r#"{"code":"pay_1","message":{"status":2},"watch_code":"watch_1","amount":2,"#,
        ),
    ];
    let talk = Talk::new(&[]).await;
    for status in [200, 201, 203] {
        for (name, bytes, expected) in &good {
            let started = talk.start(json(status, bytes)).await;
            let expected = format!(
                "{expected}\"pay_url\":\"{}/pay/pay_1\"}}",
                talk.gateway.url()
            );
            assert_eq!((started.status, started.body), (200, expected), "{name}");
        }
    }
    let too_deep = format!(
        r#"{{"code":"pay_1","watch_code":"watch_1","x":{}{}}}"#,
        "[".repeat(16),
        "]".repeat(16)
    );
    let bad: Vec<(&str, &[u8])> = vec![
        (
            "a code twice",
            br#"{"code":"pay_1","watch_code":"watch_1","code":"pay_2"}"#,
        ),
        (
            "the same code twice",
            br#"{"code":"pay_1","watch_code":"watch_1","code":"pay_1"}"#,
        ),
        (
            "a code twice, once escaped",
            br#"{"c\u006fde":"pay_2","code":"pay_1","watch_code":"watch_1"}"#,
        ),
        (
            "a watch code twice",
            br#"{"code":"pay_1","watch_code":"watch_1","watch_code":"watch_2"}"#,
        ),
        (
            "a code in Latin-1",
            b"{\"code\":\"pay_\xfc\",\"watch_code\":\"watch_1\"}",
        ),
        (
            "half a pair in a code",
            br#"{"code":"pay_\ud83d","watch_code":"watch_1"}"#,
        ),
        (
            "a number for a code",
            br#"{"code":1,"watch_code":"watch_1"}"#,
        ),
        ("too deep", too_deep.as_bytes()),
        (
            "bytes behind",
            br#"{"code":"pay_1","watch_code":"watch_1"};"#,
        ),
    ];
    for (name, bytes) in bad {
        let answer = talk.start(json(200, bytes)).await;
        assert_eq!(
            told(&answer),
            as_told(502, "gateway_bad_answer", "unknown"),
            "{name}: {answer:?}"
        );
        assert!(!answer.body.contains("pay_"), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn what_a_transforming_proxy_passes_on_is_good() {
    let mut talk = Talk::new(&[]).await;
    for coding in [
        "Identity",
        "identity",
        "IDENTITY , identity",
        "",
        ",",
        "identity,",
    ] {
        let header = format!("Content-Encoding: {coding}\r\n");
        assert_eq!(
            talk.start(answer_with(203, &header, STARTED))
                .await
                .text("code"),
            "pay_1",
            "{coding}"
        );
        assert_eq!(
            talk.watch(answer_with(203, &header, WATCHED))
                .await
                .text("status"),
            "created",
            "{coding}"
        );
    }
    for coding in [
        "gzip",
        "identity, gzip",
        "br,",
        "identity;q=1",
        "x-identity",
        "\u{fc}",
    ] {
        let header = format!("Content-Encoding: {coding}\r\n");
        let started = talk.start(answer_with(200, &header, STARTED)).await;
        assert_eq!(
            told(&started),
            as_told(502, "gateway_bad_answer", "unknown"),
            "{coding}"
        );
        let watched = talk.watch(answer_with(200, &header, WATCHED)).await;
        assert_eq!(
            told(&watched),
            as_told(502, "gateway_bad_answer", ""),
            "{coding}"
        );
    }
    for status in [202, 204, 206, 226] {
        let started = talk
            .start(answer(status, if status == 204 { "" } else { STARTED }))
            .await;
        assert_eq!(
            told(&started),
            as_told(502, "gateway_bad_answer", "unknown"),
            "{status}"
        );
    }
    for status in [201, 202, 206] {
        let watched = talk.watch(answer(status, WATCHED)).await;
        assert_eq!(
            told(&watched),
            as_told(502, "gateway_bad_answer", ""),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_secret_that_only_a_lenient_reader_sees_is_taken_out_too() {
    const SECRET: &str = "gr\u{fc}\u{df}e-of-the-merchant";
    let latin: Vec<u8> = SECRET
        .chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect();
    let text = |kind: &str, body: &[u8]| bare(422, &format!("Content-Type: {kind}\r\n"), body);
    let around = |before: &[u8], after: &[u8]| [before, &latin, after].concat();
    let refusals = [
        (
            "a plain text",
            text("text/plain", &[b"no: ", SECRET.as_bytes()].concat()),
        ),
        (
            "a plain text in Latin-1",
            text("text/plain; charset=iso-8859-1", &around(b"no: ", b"")),
        ),
        (
            "without a type",
            bare(422, "", [b"no: ", SECRET.as_bytes()].concat()),
        ),
        (
            "with a line end in it",
            text(
                "text/plain",
                format!("no: {}\r\n{}", &SECRET[..12], &SECRET[12..]).as_bytes(),
            ),
        ),
        ("a JSON text", json(422, format!(r#""no: {SECRET}""#))),
        (
            "a JSON text in Latin-1",
            json(422, around(b"\"no: ", b"\"")),
        ),
        (
            "in errors",
            json(
                422,
                format!(r#"{{"errors":[{{"detail":"no: {SECRET}"}}]}}"#),
            ),
        ),
        (
            "by field",
            json(
                422,
                format!(r#"{{"errors":{{"{SECRET}":["no: {SECRET}"]}}}}"#),
            ),
        ),
        (
            "one level down, in Latin-1",
            json(422, around(b"{\"error\":{\"message\":\"no: ", b"\"}}")),
        ),
    ];
    let mut talk = Talk::new(&[("merchant.secret", SECRET)]).await;
    for (name, bytes) in refusals {
        assert_eq!(
            talk.start(bytes).await.text("gateway_message"),
            "no: [redacted]",
            "{name}"
        );
    }
    let watched = [
        around(
            b"{\"status\":\"created\",\"amount\":1,\"merchant\":\"",
            b"\"}",
        ),
        around(
            b"{\"status\":\"created\",\"amount\":1,\"",
            b"\":\"merchant\"}",
        ),
        around(
            b"{\"status\":\"created\",\"amount\":1,\"a\":1,\"a\":[{\"b\":\"",
            b"\"}]}",
        ),
        around(
            b"\xef\xbb\xbf{\"status\":\"created\",\"amount\":1,\"a\":\"\n",
            b"\"}",
        ),
    ];
    for bytes in watched {
        let answer = talk.watch(json(200, &bytes)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer.body.contains("[redacted]") && !answer.body.contains("of-the-merchant"),
            "{answer:?}"
        );
    }
    talk.sidecar.signal("TERM");
    let (_, _, log) = talk.sidecar.end().await;
    assert!(
        log.contains("the gateway echoed the merchant secret") && !log.contains("of-the-merchant"),
        "{log}"
    );
}

#[tokio::test]
async fn what_was_read_leniently_is_still_known_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("file:{}", directory.path().join("store").display());
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "a-token-of-a-caller").unwrap();
    let settings = [
        ("store.url", store.as_str()),
        ("listen.token_file", tokens.to_str().unwrap()),
    ];
    let headers = [
        ("authorization", "Bearer a-token-of-a-caller"),
        ("content-type", "application/json"),
    ];
    let odd: [&[u8]; 6] = [
        b"\xef\xbb\xbf{\"status\":\"completed\",\"amount\":\"1000.00\",\"merchant\":\"M\xfcller\n\",\"completed_at\":1}",
        br#"{"status":"completed","amount":1e3,"merchant":{"a":1,"a":[null,"\ud83d"]},"\ude00":0}"#,
        br#"{"status":"completed"}"#,
        br#"{"status":"completed","amount":null,"created_at":[],"x":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}"#,
        b"{\"status\":\"on \xff hold\",\"amount\":-0.0}",
        br#"{"status":"completed","amount":"1e99999999999999999999","merchant":true,"merchant":false}"#,
    ];
    let said: Arc<Mutex<usize>> = Arc::default();
    let current = said.clone();
    let gateway = Gateway::new(move |_, request| {
        let number = *current.lock().unwrap();
        Act::Say(if request.starts_with("POST") {
            json(
                200,
                format!("{{\"code\":\"pay_{number}\",\"watch_code\":\"watch_{number}\"}}"),
            )
        } else {
            json(200, odd[number])
        })
    })
    .await;
    let ask = async |api, path: &str| {
        crate::harness::call(api, hyper::Method::GET, path, &headers, "").await
    };
    let (sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let mut told = Vec::new();
    for number in 0..odd.len() {
        *said.lock().unwrap() = number;
        let started = crate::harness::call(
            api,
            hyper::Method::POST,
            "/api/start_payment",
            &headers,
            ORDER,
        )
        .await;
        assert_eq!(started.status, 200, "{started:?}");
        let watched = ask(api, &format!("/watch/watch_{number}")).await;
        assert_eq!(watched.status, 200, "{watched:?}");
        told.push((watched.body.clone(), watched.header("etag").to_owned()));
    }
    let listed = ask(api, "/payments").await.json();
    assert!(
        listed["payments"][3]["amount"].is_null(),
        "none is made up: {listed}"
    );
    assert_eq!(listed["payments"][5]["amount"], "1000.00", "{listed}");
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);

    // Nobody to ask any more: what is told is what was kept.
    let (_sidecar, api, _) = Program::sidecar("http://127.0.0.1:9", &settings).await;
    for (number, (body, tag)) in told.into_iter().enumerate() {
        let watched = ask(api, &format!("/watch/watch_{number}")).await;
        assert_eq!(
            (watched.status, watched.header("etag"), &watched.body),
            (200, &*tag, &body),
            "{number}"
        );
    }
    let again = ask(api, "/payments").await.json();
    for (payment, before) in again["payments"]
        .as_array()
        .unwrap()
        .iter()
        .zip(listed["payments"].as_array().unwrap())
    {
        for field in ["status", "amount", "merchant", "created_at", "completed_at"] {
            assert_eq!(payment[field], before[field], "{field}");
        }
    }
}
