//! Answers of the gateway, to a start and to a watch. What is passed on is JSON of the promised form, and the secret is
//! not in there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tillgate::fuzz::gateway;

const SECRET: &str = "s3cret\"of\\the/merchant";

fuzz_target!(|data: &[u8]| {
    let Some(([kind], body)) = data.split_first_chunk() else {
        return;
    };
    let body = with_secret(body);
    let status = [
        200, 201, 204, 302, 400, 401, 404, 422, 429, 500, 203, 403, 503,
    ][usize::from(kind / 2) % 13];
    if kind % 2 == 0 {
        match gateway::started(status, &body, SECRET) {
            Ok((code, watch_code, answer)) => {
                assert!([200, 201, 203].contains(&status));
                let Some(value) = read(&answer) else { return };
                assert_eq!(
                    (value["code"].as_str(), value["watch_code"].as_str()),
                    (Some(&*code), Some(&*watch_code))
                );
                assert!(
                    is_code(&code) && is_code(&watch_code),
                    "{code:?} {watch_code:?}"
                );
            }
            Err(told) => no_secret(&told),
        }
    } else {
        match gateway::watched(status, &body, SECRET) {
            Ok((told, answer, tag)) => {
                assert!([200, 203].contains(&status));
                let status = told;
                let Some(value) = read(&answer) else { return };
                assert_eq!(value["status"].as_str(), Some(&*status));
                assert!(is_amount(&value["amount"]), "{}", value["amount"]);
                let again = gateway::watched(200, answer.as_bytes(), SECRET);
                assert_eq!(
                    again,
                    Ok((status, answer, tag)),
                    "the same meaning has other bytes"
                );
            }
            Err(told) => no_secret(&told),
        }
    }
});

/// Where the fuzzer cannot guess the secret, it has it given.
fn with_secret(body: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"$SECRET";
    let secret = SECRET.replace('\\', "\\\\").replace('"', "\\\"");
    let (mut whole, mut rest) = (Vec::new(), body);
    while let Some(at) = rest.windows(MARK.len()).position(|part| part == MARK) {
        whole.extend_from_slice(&rest[..at]);
        whole.extend_from_slice(secret.as_bytes());
        rest = &rest[at + MARK.len()..];
    }
    whole.extend_from_slice(rest);
    whole
}

/// A number, a text that is one, or none.
fn is_amount(value: &Value) -> bool {
    match value {
        Value::Null | Value::Number(_) => true,
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => value.is_number() && text.trim() == text,
            Err(error) => error.to_string().starts_with("number out of range"),
        },
        _ => false,
    }
}

/// `None`: a number that no float can hold is JSON all the same, and passed on as the text it is; this reader gives up.
fn read(answer: &str) -> Option<Value> {
    no_secret(answer);
    match serde_json::from_str(answer) {
        Ok(value) => {
            walk(&value);
            Some(value)
        }
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(error) => panic!("{error}: {answer}"),
    }
}

fn walk(value: &Value) {
    match value {
        Value::String(text) => no_secret(text),
        Value::Array(items) => items.iter().for_each(walk),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            no_secret(name);
            walk(value);
        }),
        _ => {}
    }
}

fn no_secret(text: &str) {
    assert!(!text.contains(SECRET), "the secret is in there: {text}");
}

fn is_code(code: &str) -> bool {
    (1..=256).contains(&code.len())
        && code != "."
        && code != ".."
        && code
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
