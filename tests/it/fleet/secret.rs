//! The merchant secret is in nothing that the database keeps or says.

use std::path::Path;

use super::gateway::Gateway;
use super::postgres::{Options, PASSWORD, Postgres, has_postgres, template};
use super::replica::{codes, order_of};
use super::{Fleet, MANY, until};
use crate::canary::Canary;
use crate::receiver::{Mood, Receiver};

/// Every file below this directory: its path, and what is in it.
fn files(directory: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, all);
        } else if let Ok(bytes) = std::fs::read(&path) {
            all.push((path.display().to_string(), bytes));
        }
    }
}

/// The places in which it stands.
fn seen(canary: &Canary, places: &[(String, Vec<u8>)]) -> Vec<String> {
    let seen = places.iter().filter_map(|(place, bytes)| {
        let first = canary.sightings(bytes).into_iter().next()?;
        Some(format!("{place}: {first:?}"))
    });
    seen.collect()
}

#[tokio::test]
async fn the_secret_is_in_nothing_that_the_database_keeps_or_logs() {
    if !has_postgres() {
        return;
    }
    let canary = Canary::new();
    let options = Options::default()
        .parameter("log_statement", "all")
        .parameter("log_connections", "on")
        .parameter("log_min_duration_statement", "0")
        .parameter("log_min_messages", "debug1");
    let server = Postgres::with(options).await;
    let gateway = Gateway::with(&["--secret", &canary.secret]).await;
    let receiver = Receiver::new(|_| Mood::Take).await;
    let mut fleet = Fleet::over(2, server, gateway).await;
    fleet.write("secret", &canary.secret);
    let secret = fleet.path("secret");
    fleet.set_all(&MANY);
    fleet.set_all(&[
        ("merchant.secret", ""),
        ("merchant.secret_file", &secret),
        ("log.level", "trace"),
        ("start.forward_fields", r#"["note"]"#),
    ]);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    // Whatever comes of a start or a watch, also with the secret in the caller's hand.
    let note = serde_json::json!({"amount": 1000, "note": "a note", "reference": "with-a-note"});
    fleet[0].start(Some("noted"), &note.to_string()).await;
    for (number, fault) in ["echo-secret", "status=500", "truncate", "not-json", "huge"]
        .into_iter()
        .enumerate()
    {
        fleet.gateway.faults(&[]).await;
        let body = order_of(&format!("order-{number}"), 1000);
        let key = format!("key-{number}");
        let started = fleet[number % 2].start(Some(&key), &body).await;
        let (code, watch_code) = codes(&started);
        fleet
            .gateway
            .faults(&[&format!("start:{fault}"), &format!("watch:{fault}")])
            .await;
        let body = order_of(&format!("bad-{number}"), 1000);
        fleet[0].start(Some(&format!("bad-{number}")), &body).await;
        fleet[1].start(None, &body).await;
        fleet[1].watch_anew(&watch_code).await;
        fleet.gateway.faults(&["watch:echo-secret"]).await;
        fleet.gateway.pay(&code).await;
        fleet[0].waits_for_completion(&watch_code).await;
    }
    until("webhooks", async || {
        (receiver.taken("payment.completed").len() >= 5).then_some(())
    })
    .await;
    let echoes = fleet[0].metric("tillgate_secret_echo_total").await
        + fleet[1].metric("tillgate_secret_echo_total").await;
    assert!(echoes > 0, "the echo was there, and was seen");

    let mut dump = template::unprivileged(&template::program("pg_dump"));
    let host = format!("--host={}", fleet.server.sockets().display());
    let port = format!("--port={}", fleet.server.port);
    dump.args([&host, &port, "--username=postgres", "--inserts", "tillgate"]);
    let dump = template::succeeds(dump.current_dir("/")).await;
    assert!(dump.contains("order-1"), "what is kept is in the dump");
    fleet.server.stop().await;
    let mut places = vec![
        ("pg_dump".to_owned(), dump.into_bytes()),
        (
            "the server's log".to_owned(),
            fleet.server.log().into_bytes(),
        ),
    ];
    files(fleet.server.data(), &mut places);
    // The log of the statements, the write-ahead log and the tables are among them.
    let has = |part: &str, content: &str| {
        places.iter().any(|(place, bytes)| {
            place.contains(part) && String::from_utf8_lossy(bytes).contains(content)
        })
    };
    assert!(
        has("the server's log", "order-1") && has("pg_wal", "order-1") && has("base", "order-1")
    );
    for replica in &fleet.replicas {
        places.push((replica.name.clone(), replica.log().into_bytes()));
    }
    let found = seen(&canary, &places);
    assert!(found.is_empty(), "{found:#?}");
    // Nor is the database's password where it does not belong.
    for (place, bytes) in &places {
        let is_password = |bytes: &[u8]| bytes == PASSWORD.as_bytes();
        assert!(!bytes.windows(PASSWORD.len()).any(is_password), "{place}");
    }
    // The search would have found it.
    let planted = canary.planted();
    for (form, leak) in planted {
        let place = vec![(form.to_owned(), [b"<", &*leak, b">"].concat())];
        assert_eq!(seen(&canary, &place).len(), 1, "{form}");
    }
}
