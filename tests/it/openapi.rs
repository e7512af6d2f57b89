//! `GET /openapi.json`: true, whole, and of use.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Map, Value};

use crate::clients::file;
use crate::described::{DOCUMENT, Document};
use crate::harness::{Answer, Block, Sidecar, get, post};

#[tokio::test]
async fn the_document_is_there_and_is_of_this_version() {
    let sidecar = Sidecar::new();
    let answer = sidecar.api(get("/openapi.json")).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    let served = answer.json();
    assert_eq!(served["openapi"], "3.1.0");
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        served, DOCUMENT.value,
        "the defaults are those of the source"
    );
    let mut other = get("/openapi.json");
    *other.method_mut() = Method::DELETE;
    let refused = sidecar.api(other).await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, "GET, HEAD"),
        "{refused:?}"
    );
    let nowhere = sidecar.api(get("/nowhere")).await.json()["detail"]
        .as_str()
        .unwrap()
        .to_owned();
    for (path, method, _) in DOCUMENT.operations() {
        assert!(
            nowhere.contains(&format!("{method} {path}")),
            "{method} {path}: {nowhere}"
        );
    }
}

#[tokio::test]
async fn it_is_behind_the_door_like_everything_else() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "a-token\n").unwrap();
    let sidecar = Sidecar::with(&[("listen.token_file", tokens.to_str().unwrap())]);
    let refused = sidecar.api(get("/openapi.json")).await;
    assert_eq!(
        (refused.status, refused.text("error")),
        (401, "unauthorized"),
        "{refused:?}"
    );
    let mut request = get("/openapi.json");
    request
        .headers_mut()
        .insert("authorization", "Bearer a-token".parse().unwrap());
    assert_eq!(sidecar.api(request).await.status, 200);
}

#[tokio::test]
async fn it_shows_a_start_as_the_operator_wants_it() {
    let settings = [
        ("start.min_amount", "50"),
        ("start.max_amount", "5000"),
        ("start.forward_fields", r#"["note", "lang"]"#),
    ];
    let sidecar = Sidecar::with(&settings);
    let document = Document::new(sidecar.api(get("/openapi.json")).await.json());
    for body in [
        r#"{"amount":50}"#,
        r#"{"amount":5000,"note":{"a":[1]},"lang":"de"}"#,
        r#"{"amount":49}"#,
        r#"{"amount":5001}"#,
        r#"{"amount":100,"other":1}"#,
        r#"{"note":"x"}"#,
        r#"{"amount":"100"}"#,
        r#"{"amount":100,"redirect":7}"#,
        "[]",
    ] {
        let request = post("/api/start_payment", body);
        let fits = document.request(&Method::POST, "/api/start_payment", request.headers(), body);
        let granted = sidecar.start(body).await.status == 200;
        assert_eq!(fits.is_ok(), granted, "{body}: {fits:?}");
    }
}

#[test]
fn its_words_for_errors_are_those_of_the_program() {
    let source = std::fs::read_to_string(file("src/api/problem/code.rs")).unwrap();
    let row = |row: &str| {
        let (word, rest) = row.trim_start().strip_prefix('"')?.split_once("\",")?;
        Some((rest.split(',').next()?.trim().to_owned(), word.to_owned()))
    };
    let rows: BTreeSet<_> = source.split('(').filter_map(row).collect();
    assert!(rows.len() > 30, "the rows are found: {rows:?}");
    let mut told = BTreeSet::new();
    for (path, _, operation) in DOCUMENT.operations() {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = DOCUMENT.resolve(response);
            let Some(words) = response["x-error-codes"].as_array() else {
                assert!(
                    matches!(&**status, "200" | "204" | "304"),
                    "{path} {status} has no words"
                );
                continue;
            };
            let example = &response["content"]["application/problem+json"]["example"];
            assert_eq!(example["status"].to_string(), *status, "{path}");
            assert!(words.contains(&example["error"]), "{path}: {example}");
            told.extend(
                words
                    .iter()
                    .map(|word| (status.clone(), word.as_str().unwrap().to_owned())),
            );
        }
    }
    assert_eq!(told, rows);
    let words: BTreeSet<_> = rows.into_iter().map(|(_, word)| word).collect();
    let problem = &DOCUMENT.value["components"]["schemas"]["Problem"]["properties"];
    let all = &problem["error"]["x-extensible-enum"];
    let all: BTreeSet<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(all, words);
}

/// Calls `see` with every schema of the document that has an example beside it, and that example.
fn examples(value: &Value, see: &mut impl FnMut(&Value, &Value)) {
    match value {
        Value::Object(members) => {
            if let Some(schema) = members.get("schema") {
                let several = members.get("examples").and_then(Value::as_object);
                let several = several
                    .into_iter()
                    .flat_map(|examples| examples.values().map(|example| &example["value"]));
                several
                    .chain(members.get("example"))
                    .for_each(|example| see(schema, example));
            }
            members.values().for_each(|value| examples(value, see));
        }
        Value::Array(items) => items.iter().for_each(|item| examples(item, see)),
        _ => {}
    }
}

#[test]
fn its_examples_are_what_they_are_examples_of() {
    let mut seen = 0;
    examples(&DOCUMENT.value, &mut |schema, example| {
        seen += 1;
        if let Err(fault) = DOCUMENT.validate(schema, example) {
            panic!("{fault}");
        }
    });
    assert!(seen > 40, "the examples are found: {seen}");
    for (path, target) in [("/watch/{watch_code}", "/watch/x"), ("/events", "/events")] {
        let content = &DOCUMENT.value["paths"][path]["get"]["responses"]["200"]["content"];
        let stream = content["text/event-stream"]["example"].as_str().unwrap();
        let blocks: Vec<_> = stream.split_terminator("\n\n").map(Block::parse).collect();
        let [event] = &blocks[..] else {
            panic!("{stream}")
        };
        assert_eq!(event.retry, "1000");
        assert_eq!(DOCUMENT.event(target, event), Ok(()));
    }
}

#[tokio::test]
async fn an_answer_that_it_does_not_describe_is_noticed() {
    let sidecar = Sidecar::new();
    let good = sidecar.start(r#"{"amount": 1000}"#).await;
    let check = |change: &dyn Fn(&mut Answer)| {
        let mut answer = Answer {
            status: good.status,
            headers: good.headers.clone(),
            body: good.body.clone(),
        };
        change(&mut answer);
        DOCUMENT.answer(&Method::POST, "/api/start_payment", &answer)
    };
    assert_eq!(check(&|_| {}), Ok(()));
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Answer));
    let changes: [Change<'_>; 7] = [
        ("does not answer 201", &|answer| answer.status = 201),
        ("has no X-Request-Id", &|answer| {
            drop(answer.headers.remove("x-request-id"))
        }),
        ("Cache-Control", &|answer| {
            drop(
                answer
                    .headers
                    .insert("cache-control", "public".parse().unwrap()),
            )
        }),
        ("not described", &|answer| {
            drop(answer.headers.insert("x-powered-by", "us".parse().unwrap()))
        }),
        ("is not \"text/html\"", &|answer| {
            drop(
                answer
                    .headers
                    .insert("content-type", "text/html".parse().unwrap()),
            )
        }),
        ("watch_code", &|answer| {
            answer.body = answer.body.replace("watch_code", "other_code")
        }),
        ("200", &|answer| answer.body.truncate(9)),
    ];
    for (fault, change) in changes {
        let found = check(change).expect_err(fault);
        assert!(found.contains(fault) || fault == "200", "{fault}: {found}");
    }
    let problem = sidecar.start("{}").await;
    for (from, to, fault) in [
        ("invalid_amount", "invalid_json", "invalid_json"),
        ("\"status\":422", "\"status\":400", "400"),
        ("error:invalid_amount", "error:internal", "error:internal"),
        ("\"status\"", "\"more\":1,\"status\"", "more"),
    ] {
        let other = Answer {
            status: problem.status,
            headers: problem.headers.clone(),
            body: problem.body.replace(from, to),
        };
        let found = DOCUMENT
            .answer(&Method::POST, "/api/start_payment", &other)
            .expect_err(fault);
        assert!(found.contains(fault), "{found}");
    }
}

/// Calls `see` with every object in it, and where it is.
fn objects(value: &Value, path: &str, see: &mut impl FnMut(&str, &Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            see(path, members);
            for (name, value) in members {
                objects(value, &format!("{path}/{name}"), see);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| objects(item, path, see)),
        _ => {}
    }
}

/// Whether a generator has to invent a name for what is made of this schema.
fn needs_a_name(schema: &Value) -> bool {
    let types = schema["type"].as_array().map_or(1, Vec::len);
    // A type, and null.
    types > 2
        || schema["items"].is_object() && needs_a_name(&schema["items"])
        || ["properties", "enum", "oneOf", "anyOf", "allOf"]
            .iter()
            .any(|keyword| schema.get(keyword).is_some())
}

#[test]
fn generators_find_a_name_for_all_that_they_make() {
    let mut seen = 0;
    objects(&DOCUMENT.value, "", &mut |path, members| {
        // openapi-generator makes an empty type of such a schema.
        assert!(
            !members.contains_key("$ref") || members.len() == 1,
            "{path} has more beside its $ref"
        );
        if let Some(schema) = members
            .get("schema")
            .filter(|_| !path.contains("/headers/"))
        {
            seen += 1;
            assert!(!needs_a_name(schema), "the schema of {path} has no name");
        }
    });
    assert!(seen > 40, "the schemas are found: {seen}");
    let schemas = DOCUMENT.value["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas {
        assert!(schema["description"].is_string(), "{name}");
        let inner = std::iter::once(schema).chain(schema["allOf"].as_array().into_iter().flatten());
        let fields = inner.filter_map(|schema| schema["properties"].as_object());
        for (field, schema) in fields.flatten() {
            assert!(!needs_a_name(schema), "{name}.{field}");
        }
    }
}

#[test]
fn each_operation_is_described_and_has_its_place() {
    let declared = DOCUMENT.value["tags"].as_array().unwrap();
    let declared: Vec<_> = declared.iter().map(|tag| &tag["name"]).collect();
    assert_eq!(declared, ["payments", "operations"]);
    let mut ids = BTreeSet::new();
    for (path, _, operation) in DOCUMENT.operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is there twice");
        for text in ["summary", "description"] {
            assert!(operation[text].is_string(), "{path} has no {text}");
        }
        let [tag] = &operation["tags"].as_array().unwrap()[..] else {
            panic!("{path} has not one tag")
        };
        assert!(declared.contains(&tag), "{path}: {tag}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.contains_key("200"), "{path} can only fail");
        let parameters = operation["parameters"].as_array().unwrap();
        let parameters: Vec<_> = parameters
            .iter()
            .map(|parameter| DOCUMENT.resolve(parameter))
            .collect();
        for parameter in &parameters {
            assert!(parameter["description"].is_string(), "{path}: {parameter}");
        }
        // What a caller rarely sends comes last, for languages that pass parameters by position.
        assert_eq!(parameters.last().unwrap()["name"], "X-Request-Id", "{path}");
    }
}

#[test]
fn a_client_of_today_can_read_a_problem_of_a_later_version() {
    let responses = &DOCUMENT.value["paths"]["/api/start_payment"]["post"]["responses"];
    let content = &responses["422"]["content"]["application/problem+json"];
    let mut schema = content["schema"].clone();
    schema["components"] = DOCUMENT.value["components"].clone();
    let mut problem = content["example"].clone();
    problem["error"] = "of_version_2".into();
    problem["type"] = "urn:tillgate:error:of_version_2".into();
    problem["more"] = 1.into();
    let read = jsonschema::draft202012::new(&schema).unwrap();
    assert!(read.is_valid(&problem), "{problem}");
    problem["outcome"] = Value::Null;
    assert!(!read.is_valid(&problem), "it does not read everything");
}
