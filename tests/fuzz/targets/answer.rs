//! Answers of the gateway, to a start and to a watch. What is passed on is JSON of the promised form, and the secret is
//! not in there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tillgate::fuzz::gateway;

const SECRET: &str = "s3cret\"of\\the/merchant";

fuzz_target!(|data: &[u8]| {
    let Some(([kind], body)) = data.split_first_chunk() else { return };
    // Where the fuzzer cannot guess it, it has it given.
    let body =
        String::from_utf8_lossy(body).replace("$SECRET", SECRET.replace('\\', "\\\\").replace('"', "\\\"").as_str());
    let status = [200, 201, 204, 302, 400, 401, 404, 422, 429, 500][usize::from(kind / 2) % 10];
    if kind % 2 == 0 {
        match gateway::started(status, body.as_bytes(), SECRET) {
            Ok((code, watch_code, answer)) => {
                assert!([200, 201].contains(&status));
                let Some(value) = read(&answer) else { return };
                assert_eq!((value["code"].as_str(), value["watch_code"].as_str()), (Some(&*code), Some(&*watch_code)));
                assert!(is_code(&code) && is_code(&watch_code), "{code:?} {watch_code:?}");
            }
            Err(told) => no_secret(&told),
        }
    } else {
        match gateway::watched(status, body.as_bytes(), SECRET) {
            Ok((status, answer, tag)) => {
                let Some(value) = read(&answer) else { return };
                assert_eq!(value["status"].as_str(), Some(&*status));
                assert!(value["amount"].is_number());
                let again = gateway::watched(200, answer.as_bytes(), SECRET);
                assert_eq!(again, Ok((status, answer, tag)), "the same meaning has other bytes");
            }
            Err(told) => no_secret(&told),
        }
    }
});

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
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
