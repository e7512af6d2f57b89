//! `/metrics`, in both formats.

use super::*;

#[tokio::test]
async fn what_is_counted_is_there_before_it_first_happens() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let settings = [
        ("webhook.url", "http://127.0.0.1:1/"),
        ("webhook.secret_file", keys.to_str().unwrap()),
    ];
    let (_sidecar, _, admin) = Program::sidecar("http://127.0.0.1:1", &settings).await;
    let tries = json!({ "delivered": 0, "retry": 0, "given_up": 0, "gone": 0 });
    assert_eq!(
        get_at(admin, "/status").await.json()["webhooks"],
        json!({ "pending": 0, "oldest_pending_seconds": null, "tries": tries })
    );
    assert!(
        get_at(admin, "/")
            .await
            .body
            .contains("waiting to be taken")
    );
    let metrics = get_at(admin, "/metrics").await.body;
    for (name, label, values) in [
        (
            "starts_total",
            "outcome",
            ["accepted", "rejected", "not_sent", "unknown"].as_slice(),
        ),
        ("waiters", "kind", &["long_poll", "stream", "events"]),
        ("payments_tracked", "status", &["created", "completed"]),
        (
            "webhook_deliveries_total",
            "outcome",
            &["delivered", "retry", "given_up", "gone"],
        ),
    ] {
        for value in values {
            let line = format!("tillgate_{name}{{{label}=\"{value}\"}} 0");
            assert!(
                metrics.lines().any(|other| other == line),
                "no {line} in {metrics}"
            );
        }
    }
}

/// One sample line: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads a sample strictly: `name{label="value",…} number`.
fn sample(line: &str) -> Sample {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (
            name,
            labels
                .strip_suffix('}')
                .unwrap_or_else(|| panic!("no end of labels: {line}")),
        ),
    };
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    assert!(is_name(name), "{line}");
    let labels = labels
        .split("\",")
        .map(|label| label.trim_end_matches('"'))
        .filter(|label| !label.is_empty());
    let labels: Vec<_> = labels
        .map(|label| {
            let (name, value) = label
                .split_once("=\"")
                .unwrap_or_else(|| panic!("no label: {line}"));
            assert!(
                is_name(name) && !value.contains(['"', '\\', '\n']),
                "{line}"
            );
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let value = match value {
        "+Inf" => f64::INFINITY,
        number => number
            .parse()
            .unwrap_or_else(|error| panic!("{error}: {line}")),
    };
    (name.to_owned(), labels, value)
}

/// Reads an exposition strictly; gives types by family, and the samples.
fn exposition(text: &str, open: bool) -> (HashMap<String, String>, Vec<Sample>) {
    assert!(text.ends_with('\n'));
    let (mut types, mut helped, mut samples) = (HashMap::new(), HashSet::new(), Vec::new());
    let lines: Vec<_> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        if open && i + 1 == lines.len() {
            assert_eq!(*line, "# EOF");
        } else if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name, rest) = (
                words.next().unwrap(),
                words.next().expect(line),
                words.next().expect(line),
            );
            assert!(name.starts_with("tillgate_"), "{line}");
            match word {
                "HELP" => assert!(helped.insert(name) && !rest.is_empty(), "{line}"),
                "TYPE" => {
                    let known =
                        ["counter", "gauge", "histogram"].contains(&rest) || open && rest == "info";
                    assert!(known, "{line}");
                    assert!(
                        types.insert(name.to_owned(), rest.to_owned()).is_none(),
                        "a second type: {line}"
                    );
                }
                "UNIT" => assert!(open && name.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("neither HELP nor TYPE: {line}"),
            }
        } else {
            let sample = sample(line);
            let families: Vec<_> = types
                .keys()
                .filter(|family| of_family(&sample.0, family, &types[*family], open))
                .collect();
            assert_eq!(
                families.len(),
                1,
                "of one family that was typed before: {line}"
            );
            samples.push(sample);
        }
    }
    let series: HashSet<_> = samples
        .iter()
        .map(|(name, labels, _)| (name, labels))
        .collect();
    assert_eq!(series.len(), samples.len(), "no series twice");
    assert_eq!(
        types.keys().map(String::as_str).collect::<HashSet<_>>(),
        helped,
        "each family has its help"
    );
    (types, samples)
}

fn of_family(name: &str, family: &str, kind: &str, open: bool) -> bool {
    let Some(suffix) = name.strip_prefix(family) else {
        return false;
    };
    match (kind, open) {
        ("histogram", _) => matches!(suffix, "_bucket" | "_sum" | "_count"),
        ("counter", true) => matches!(suffix, "_total" | "_created"),
        ("info", true) => suffix == "_info",
        // In the older text a counter's type stands under the whole name.
        _ => suffix.is_empty(),
    }
}

#[tokio::test]
async fn metrics_are_well_formed_in_both_formats_and_say_the_same() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    let old = get_at(admin, "/metrics").await;
    assert!(
        old.header("content-type")
            .starts_with("text/plain; version=0.0.4"),
        "{}",
        old.header("content-type")
    );
    let new = call(
        admin,
        Method::GET,
        "/metrics",
        &[("accept", OPENMETRICS)],
        "",
    )
    .await;
    assert!(
        new.header("content-type")
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    let (types, samples) = exposition(&old.body, false);
    let (open_types, open_samples) = exposition(&new.body, true);
    assert_eq!(types.len(), open_types.len());
    let names = |samples: &[Sample]| {
        samples
            .iter()
            .map(|(name, ..)| name.clone())
            .collect::<HashSet<_>>()
    };
    assert_eq!(names(&samples), names(&open_samples));
    for (name, kind) in &types {
        assert_eq!(
            kind == "counter",
            name.ends_with("_total"),
            "{name} is a {kind}"
        );
    }
    // Buckets only grow, and the last one is the count.
    let of_start: Vec<_> = samples
        .iter()
        .filter(|(name, ..)| name == "tillgate_start_duration_seconds_bucket")
        .collect();
    assert!(of_start.windows(2).all(|pair| pair[0].2 <= pair[1].2));
    assert_eq!(
        of_start.last().unwrap().1,
        [("le".to_owned(), "+Inf".to_owned())]
    );
    let count = samples
        .iter()
        .find(|(name, ..)| name == "tillgate_start_duration_seconds_count")
        .unwrap();
    assert!((of_start.last().unwrap().2 - count.2).abs() < 0.5);
}

#[tokio::test]
async fn the_metrics_that_are_fixed_are_there_and_count() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    let (_, samples) = exposition(&get_at(admin, "/metrics").await.body, false);
    let value = |name: &str, label: &str| {
        let found = samples.iter().find(|(known, labels, _)| {
            known == name && (label.is_empty() || labels.iter().any(|(_, value)| value == label))
        });
        let (.., value) = found.unwrap_or_else(|| panic!("no {name} {label}"));
        value.to_string().parse::<u64>().expect("a count")
    };
    for (name, label, expected) in [
        ("tillgate_build_info", "", 1),
        ("tillgate_starts_total", "accepted", 2),
        ("tillgate_starts_total", "unknown", 1),
        ("tillgate_start_duration_seconds_count", "", 3),
        ("tillgate_gateway_requests_total", "ok", 2),
        (
            "tillgate_gateway_request_duration_seconds_count",
            "start",
            3,
        ),
        (
            "tillgate_gateway_request_duration_seconds_count",
            "watch",
            3,
        ),
        ("tillgate_polls_saved_total", "", 2),
        ("tillgate_rate_limited_total", "", 0),
        ("tillgate_refused_total", "invalid_amount", 1),
        ("tillgate_refused_total", "not_found", 1),
        ("tillgate_refused_total", "gateway_bad_answer", 1),
        ("tillgate_refused_total", "unknown_watch_code", 1),
        ("tillgate_secret_reload_failures_total", "", 0),
        ("tillgate_secret_echo_total", "", 0),
    ] {
        assert_eq!(value(name, label), expected, "{name} {label}");
    }
    assert!(value("tillgate_secret_loaded_timestamp_seconds", "") > 1_000_000_000);
    let tracked: f64 = samples
        .iter()
        .filter(|(name, ..)| name == "tillgate_payments_tracked")
        .map(|(.., value)| value)
        .sum();
    assert_eq!(tracked.to_string(), "2", "payments are tracked");
}

#[tokio::test]
async fn no_label_comes_from_a_caller() {
    let (_sandbox, _sidecar, api, admin, _) = busy().await;
    let count = async || {
        exposition(&get_at(admin, "/metrics").await.body, false)
            .1
            .len()
    };
    let before = count().await;
    for i in 0..50 {
        let path = format!("/nowhere-{i}");
        assert_eq!(
            call(
                api,
                Method::from_bytes(format!("M{i}").as_bytes()).unwrap(),
                &path,
                &[],
                ""
            )
            .await
            .status,
            404
        );
    }
    assert_eq!(count().await, before, "no new series");
}
