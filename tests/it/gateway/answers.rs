//! What the gateway answers, and what comes of it.

use super::*;

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_told_as_what_it_is() {
    let large = format!(
        r#"{{"code":"pay_1","watch_code":"watch_1","padding":"{}"}}"#,
        "x".repeat(70_000)
    );
    let chunked = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
        .into_bytes()
    };
    let bad = as_told(502, "gateway_bad_answer", "unknown");
    let cases: Vec<(&str, Act, (u16, String, String))> = vec![
        ("too large", Act::Say(answer(200, &large)), bad.clone()),
        (
            "too large in chunks",
            Act::Say(chunked(&large)),
            bad.clone(),
        ),
        (
            "cut short",
            Act::SayAndEnd(
                b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"code\":\"pay_1\"".to_vec(),
            ),
            bad.clone(),
        ),
        (
            "cut short in chunks",
            Act::SayAndEnd(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cod\r\n".to_vec(),
            ),
            bad.clone(),
        ),
        (
            "encoded",
            Act::Say(answer_with(200, "Content-Encoding: gzip\r\n", STARTED)),
            bad.clone(),
        ),
        (
            "not HTTP",
            Act::SayAndEnd(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
            bad.clone(),
        ),
        (
            "an endless head",
            Act::Drip(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000)).into_bytes()),
            bad.clone(),
        ),
        ("not JSON", Act::Say(answer(200, "<html>")), bad.clone()),
        ("empty", Act::Say(answer(200, "")), bad.clone()),
        (
            "no content",
            Act::Say(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
            bad.clone(),
        ),
        ("an array", Act::Say(answer(200, "[]")), bad.clone()),
        (
            "twice an object",
            Act::Say(answer(200, &format!("{STARTED}{STARTED}"))),
            bad.clone(),
        ),
        (
            "a field missing",
            Act::Say(answer(200, r#"{"code":"pay_1"}"#)),
            bad.clone(),
        ),
        (
            "a field of another type",
            Act::Say(answer(200, r#"{"code":1,"watch_code":"watch_1"}"#)),
            bad.clone(),
        ),
        (
            "a code that is a path",
            Act::Say(answer(200, r#"{"code":"../x","watch_code":"watch_1"}"#)),
            bad.clone(),
        ),
        (
            "a code that is a dot",
            Act::Say(answer(200, r#"{"code":"pay_1","watch_code":".."}"#)),
            bad.clone(),
        ),
        (
            "an empty code",
            Act::Say(answer(200, r#"{"code":"","watch_code":"watch_1"}"#)),
            bad.clone(),
        ),
        ("not found", Act::Say(answer(404, "{}")), bad.clone()),
        ("not allowed", Act::Say(answer(405, "{}")), bad.clone()),
        ("teapot", Act::Say(answer(418, "{}")), bad.clone()),
        ("failed", Act::Say(answer(500, "{}")), bad.clone()),
        ("failed in HTML", Act::Say(answer(503, "<html>")), bad),
        (
            "bad request",
            Act::Say(answer(400, r#"{"message":"m"}"#)),
            as_told(422, "gateway_rejected", "rejected"),
        ),
        (
            "unprocessable",
            Act::Say(answer(422, "not JSON")),
            as_told(422, "gateway_rejected", "rejected"),
        ),
        (
            "unauthorized",
            Act::Say(answer(401, "{}")),
            as_told(502, "gateway_refused_secret", "rejected"),
        ),
        (
            "forbidden",
            Act::Say(answer(403, "{}")),
            as_told(502, "gateway_refused_secret", "rejected"),
        ),
        (
            "busy",
            Act::Say(answer(429, "{}")),
            as_told(503, "gateway_busy", "rejected"),
        ),
        (
            "silent",
            Act::Hang,
            as_told(504, "gateway_timeout", "unknown"),
        ),
        (
            "a head without end",
            Act::Say(b"HTTP/1.1 200 OK\r\n".to_vec()),
            as_told(504, "gateway_timeout", "unknown"),
        ),
        (
            "dripping without end",
            Act::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{".to_vec()),
            as_told(504, "gateway_timeout", "unknown"),
        ),
    ];
    let act: Arc<Mutex<Act>> = Arc::new(Mutex::new(Act::Hang));
    let current = act.clone();
    let gateway = Gateway::new(move |_, _| current.lock().unwrap().clone()).await;
    let settings = [
        ("gateway.timeout", "1s"),
        ("gateway.connect_timeout", "1s"),
        ("start.rate", "1000"),
        ("start.burst", "1000"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let mut wrong = Vec::new();
    for (i, (name, to_do, expected)) in cases.into_iter().enumerate() {
        *act.lock().unwrap() = to_do;
        let answer = start_at(api, ORDER).await;
        if told(&answer) != expected || answer.json()["source"] != "gateway" {
            wrong.push(format!("{name}: {answer:?}, not {expected:?}"));
        }
        assert_eq!(gateway.requests().len(), i + 1, "{name}: sent once");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_answer_that_announces_too_much_is_too_large_before_it_has_come() {
    let huge = Act::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{".to_vec());
    let gateway = Gateway::new(move |_, _| huge.clone()).await;
    let settings = [("gateway.timeout", "1s"), ("gateway.connect_timeout", "1s")];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let answer = start_at(api, ORDER).await;
    assert_eq!(told(&answer), as_told(502, "gateway_bad_answer", "unknown"));
    assert!(
        answer.text("detail").contains("gateway.max_response_bytes"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_watch_tells_bad_answers_with_the_same_words_and_no_outcome() {
    let act: Arc<Mutex<Act>> = Arc::new(Mutex::new(Act::Hang));
    let current = act.clone();
    let gateway = Gateway::new(move |_, _| current.lock().unwrap().clone()).await;
    let settings = [
        ("gateway.timeout", "1s"),
        ("gateway.connect_timeout", "1s"),
        ("gateway.retries", "0"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    for (i, (to_do, status, error)) in [
        (Act::Say(answer(400, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(422, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(500, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(200, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(404, "{}")), 404, "unknown_watch_code"),
        (Act::Say(answer(401, "{}")), 502, "gateway_refused_secret"),
        (Act::Say(answer(429, "{}")), 503, "gateway_busy"),
        (Act::Hang, 504, "gateway_timeout"),
        (
            Act::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{".to_vec()),
            504,
            "gateway_timeout",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        *act.lock().unwrap() = to_do;
        let answer = get_at(api, &format!("/watch/of-case-{i}")).await;
        assert_eq!(told(&answer), as_told(status, error, ""), "{i}");
        assert!(answer.json().get("outcome").is_none(), "{i}");
    }
}

#[tokio::test]
async fn the_patience_that_a_busy_gateway_asks_for_is_passed_on_up_to_a_bound() {
    let wait: Arc<Mutex<String>> = Arc::default();
    let current = wait.clone();
    let gateway = Gateway::new(move |_, _| {
        Act::Say(answer_with(
            429,
            &format!("Retry-After: {}\r\n", current.lock().unwrap()),
            "{}",
        ))
    })
    .await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    for (asked, passed_on) in [
        ("7", "7"),
        ("300", "300"),
        ("86400", "300"),
        ("99999999999999999999", ""),
    ] {
        asked.clone_into(&mut wait.lock().unwrap());
        let answer = start_at(api, ORDER).await;
        assert_eq!(told(&answer), as_told(503, "gateway_busy", "rejected"));
        let said = answer.header("retry-after");
        assert!(
            said == passed_on
                || passed_on.is_empty() && said.parse::<u64>().is_ok_and(|said| said <= 300),
            "{asked}: {said}"
        );
    }
}

#[tokio::test]
async fn odd_answers_that_are_whole_are_good() {
    let chunked = format!("{:x}\r\n{STARTED}\r\n0\r\n\r\n", STARTED.len());
    let cases = [
        ("created", Act::Say(answer(201, STARTED))),
        (
            "chunked",
            Act::Say(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}").into(),
            ),
        ),
        (
            "no content type",
            Act::Say(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{STARTED}",
                    STARTED.len()
                )
                .into(),
            ),
        ),
        (
            "up to the end of the connection",
            Act::SayAndEnd(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{STARTED}").into()),
        ),
        (
            "HTTP/1.0",
            Act::SayAndEnd(format!("HTTP/1.0 200 OK\r\n\r\n{STARTED}").into()),
        ),
        (
            "early hints first",
            Act::Say(
                [
                    b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(),
                    answer(200, STARTED),
                ]
                .concat(),
            ),
        ),
        (
            "encoded as itself",
            Act::Say(answer_with(200, "Content-Encoding: identity\r\n", STARTED)),
        ),
        (
            "further fields",
            Act::Say(answer(
                200,
                r#"{"code":"pay_1","message":"m","watch_code":"w","fee":1e2,"big":12345678901234567890}"#,
            )),
        ),
    ];
    for (name, act) in cases {
        let gateway = Gateway::new(move |_, _| act.clone()).await;
        let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            (answer.status, answer.text("code")),
            (200, "pay_1"),
            "{name}: {answer:?}"
        );
        assert_eq!(
            answer.text("pay_url"),
            format!("{}/pay/pay_1", gateway.url()),
            "{name}"
        );
        if name == "further fields" {
            assert!(
                answer
                    .body
                    .contains(r#""fee":1e2,"big":12345678901234567890"#),
                "{}",
                answer.body
            );
        }
    }
}

/// Starts at a gateway that repeats these forms of the secret, in a good answer and in a refusal; what of it is left.
async fn left_of_echo(forms: &'static [&'static str]) -> Vec<String> {
    let gateway = Gateway::new(move |n, _| {
        let form = forms[n / 2];
        Act::Say(if n % 2 == 0 {
            answer(
                200,
                &format!(
                    r#"{{"code":"pay_1","watch_code":"watch_1","message":"got {form}.","{form}":[{{"a":"{form}"}}]}}"#
                ),
            )
        } else {
            answer(422, &format!(r#"{{"message":"bad {form}."}}"#))
        })
    })
    .await;
    let (_sidecar, api, admin) =
        Program::sidecar(&gateway.url(), &[("merchant.secret", ECHOED)]).await;
    let mut left = Vec::new();
    for form in forms {
        for status in [200, 422] {
            let answer = start_at(api, ORDER).await;
            assert_eq!(answer.status, status, "{answer:?}");
            let body = answer.json().to_string();
            if !body.contains("[redacted]") || body.contains(ECHOED) || body.contains(form) {
                left.push(format!("{form}: {body}"));
            }
        }
    }
    let counted = format!("tillgate_secret_echo_total {}", forms.len() * 2);
    if left.is_empty() && !get_at(admin, "/metrics").await.body.contains(&counted) {
        left.push(format!("not {counted}"));
    }
    left
}

const ECHOED: &str = "s3cret/with+special=chars&more";

#[tokio::test]
async fn an_echoed_secret_is_taken_out_of_an_answer_raw_and_escaped() {
    let forms = &[
        ECHOED,
        "s3cret\\/with+special=chars&more",
        "\\u00733cret/with\\u002bspecial=chars&more",
    ];
    assert_eq!(left_of_echo(forms).await, [""; 0]);
}

#[tokio::test]
async fn an_echoed_secret_is_taken_out_of_an_answer_percent_encoded() {
    let forms = &[
        "s3cret%2Fwith%2Bspecial%3Dchars%26more",
        "s3cret%2fwith%2bspecial%3dchars%26more",
    ];
    assert_eq!(left_of_echo(forms).await, [""; 0]);
}

#[tokio::test]
async fn an_echoed_secret_is_taken_out_of_an_answer_in_base64() {
    assert_eq!(
        left_of_echo(&["czNjcmV0L3dpdGgrc3BlY2lhbD1jaGFycyZtb3Jl"]).await,
        [""; 0]
    );
}

#[tokio::test]
async fn a_request_that_is_quoted_in_an_answer_has_no_secret_in_it_however_it_was_escaped() {
    let forms = &[
        r"s3cret\\/with+special=chars&more",
        r"s3cret/with\\u002Bspecial\\u003dchars\\u0026more",
        r"s3cret%2fwith%2Bspecial=chars%26more",
    ];
    assert_eq!(left_of_echo(forms).await, [""; 0]);
}

#[tokio::test]
async fn a_secret_that_was_in_use_before_is_taken_out_of_answers_too() {
    const OLD: &str = "the_secret_of_yesterday";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, OLD).unwrap();
    let gateway =
        Gateway::new(|_, _| Act::Say(answer(422, &format!(r#"{{"message":"not {OLD} again"}}"#))))
            .await;
    let settings = [("merchant.secret_file", file.to_str().unwrap())];
    let (mut sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    assert_eq!(
        start_at(api, ORDER).await.text("gateway_message"),
        "not [redacted] again"
    );
    std::fs::write(&file, "the_secret_of_today").unwrap();
    sidecar.log_line("file loaded").await;
    assert_eq!(
        start_at(api, ORDER).await.text("gateway_message"),
        "not [redacted] again"
    );
}

#[tokio::test]
async fn a_watch_answer_without_what_an_app_acts_on_is_none() {
    let body: Arc<Mutex<String>> = Arc::default();
    let current = body.clone();
    let gateway = Gateway::new(move |_, _| Act::Say(answer(200, &current.lock().unwrap()))).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    let cases = [
        (r#"{"status":"completed"}"#, 200),
        (r#"{"amount":1}"#, 502),
        (r#"{"status":"","amount":1}"#, 502),
        (r#"{"status":1,"amount":1}"#, 502),
        (r#"{"status":"completed","amount":"1"}"#, 200),
        (r#"{"status":"completed","amount":null}"#, 200),
        (r#"{"status":"completed","amount":-1}"#, 200),
        (r#"{"status":"completed","amount":1,"completed_at":5}"#, 200),
        (r#"{"status":"completed","amount":1,"merchant":null}"#, 200),
        (r#"{"status":"completed","amount":1,"created_at":1}"#, 200),
        (
            r#"{"status":"completed","amount":1,"watch_code":"of-another-payment"}"#,
            502,
        ),
        (r#"{"status":"completed","amount":1,"watch_code":7}"#, 200),
        (
            r#"{"status":"completed","amount":1,"watch_code":"of-case-12"}"#,
            200,
        ),
        (
            r#"{"status":"on_hold","amount":1,"completed_at":null}"#,
            200,
        ),
        (r#"{"status":"completed","amount":1}"#, 200),
    ];
    for (i, (answer, status)) in cases.into_iter().enumerate() {
        answer.clone_into(&mut body.lock().unwrap());
        let told = get_at(api, &format!("/watch/of-case-{i}")).await;
        assert_eq!(told.status, status, "{answer}: {told:?}");
    }
}

#[tokio::test]
async fn fields_of_the_gateway_with_the_names_of_ours_do_not_take_their_place() {
    let told = WATCHED.replacen(
        '{',
        r#"{"code":"pay_evil","watch_code":"watch_1","started_at":1,"last_polled_at":2,"#,
        1,
    );
    let gateway = Gateway::new(move |_, request| match good(request) {
        Act::Say(_) if request.starts_with("GET") => Act::Say(answer(200, &told)),
        other => other,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "a-token-of-a-caller").unwrap();
    let settings = [("listen.token_file", file.to_str().unwrap())];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let headers = [
        ("authorization", "Bearer a-token-of-a-caller"),
        ("content-type", "application/json"),
    ];
    let ask = async |path: &str| call(api, Method::GET, path, &headers, "").await;
    assert_eq!(
        call(api, Method::POST, "/api/start_payment", &headers, ORDER)
            .await
            .status,
        200
    );
    // What it says is passed on where it is asked for.
    assert_eq!(ask("/watch/watch_1").await.json()["code"], "pay_evil");
    let ours = |json: &serde_json::Value| {
        assert_eq!(
            (&json["code"], &json["watch_code"]),
            (&"pay_1".into(), &"watch_1".into()),
            "{json}"
        );
        assert_eq!(json["merchant"], "M");
    };
    let listed = ask("/payments").await.json()["payments"][0].clone();
    ours(&listed);
    assert!(
        listed["started_at"].is_string() && listed["last_polled_at"].is_string(),
        "{listed}"
    );

    let mut wire = Wire::open(api).await;
    wire.send("GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-token-of-a-caller\r\n\r\n").await;
    let (mut stream, mut bytes) = (wire.into_stream(), Vec::new());
    let data = until("an event", async || {
        stream.read_buf(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (_, event) = text.split_once("data: ")?;
        Some(event.split_once('\n')?.0.to_owned())
    })
    .await;
    ours(&serde_json::from_str(&data).unwrap());
    assert_eq!(data.matches("watch_code").count(), 1, "{data}");
}
