//! What one replica learns, all others show.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::Value;

use super::replica::order_of;
use super::{Fleet, MANY, in_time, until};
use crate::harness::{Block, Stream};

/// Reads up to the event of this payment with this status; gives all that came.
async fn read_to(stream: &mut Stream, code: &str, status: &str) -> Vec<Block> {
    let mut events = Vec::new();
    loop {
        let event = in_time("an event", stream.event()).await;
        let event = event.unwrap_or_else(|| panic!("ended before {code} was {status}"));
        let json = event.json();
        let is_it = json["code"] == code && json["status"] == status;
        events.push(event);
        if is_it {
            return events;
        }
    }
}

#[tokio::test]
async fn a_completion_reaches_those_who_wait_on_every_replica_by_one_question() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    let (code, watch_code) = fleet[0].started(1000).await;
    let waits = (0..9).map(|number| fleet[number % 3].waits_for_completion(&watch_code));
    let pay = async {
        until("it is asked for", async || {
            (fleet.gateway.watches(&watch_code) > 1).then_some(())
        })
        .await;
        let before = fleet.gateway.watches(&watch_code);
        fleet.gateway.pay(&code).await;
        before
    };
    let (answers, before) = tokio::join!(join_all(waits), pay);
    let tags: HashSet<_> = answers
        .iter()
        .map(|answer| answer.header("etag").to_owned())
        .collect();
    assert_eq!(tags.len(), 1, "{tags:?}");
    // The one that heard it, its confirmation, and one that was on its way when it was paid.
    let asked = fleet.gateway.watches(&watch_code) - before;
    assert!(asked <= 3, "{asked} questions after it was paid");
    // It is final for all: nobody asks any more.
    let before = fleet.gateway.watches(&watch_code);
    for replica in &fleet.replicas {
        let answer = replica.watch_anew(&watch_code).await;
        assert_eq!(answer.text("status"), "completed");
    }
    assert_eq!(fleet.gateway.watches(&watch_code), before);
}

#[tokio::test]
async fn a_completion_reaches_the_streams_of_every_replica() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    let (code, watch_code) = fleet[0].started(1000).await;
    let path = format!("/watch/{watch_code}");
    let streams = fleet
        .replicas
        .iter()
        .map(|replica| replica.stream(&path, None));
    let mut streams = join_all(streams).await;
    for stream in &mut streams {
        let first = in_time("an event", stream.event()).await.unwrap();
        assert_eq!(first.json()["status"], "created");
    }
    fleet.gateway.pay(&code).await;
    let mut ids = HashSet::new();
    for stream in &mut streams {
        loop {
            let event = in_time("an event", stream.event()).await.unwrap();
            if event.json()["status"] == "completed" {
                ids.insert(event.id);
                break;
            }
        }
        assert!(in_time("the end", stream.event()).await.is_none());
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    // A reconnect anywhere is told that there is nothing more.
    let id = ids.into_iter().next().unwrap();
    for replica in &fleet.replicas {
        assert_eq!(replica.stream(&path, Some(&id)).await.status, 204);
    }
}

#[tokio::test]
async fn the_events_of_all_replicas_are_the_same_with_the_same_ids() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    let streams = fleet
        .replicas
        .iter()
        .map(|replica| replica.stream("/events", None));
    let mut streams = join_all(streams).await;
    let mut last = String::new();
    for number in 0..9 {
        let (code, watch_code) = fleet[number % 3].started(1000).await;
        fleet.gateway.pay(&code).await;
        fleet[(number + 1) % 3]
            .waits_for_completion(&watch_code)
            .await;
        last = code;
    }
    let mut told = Vec::new();
    for stream in &mut streams {
        let events = read_to(stream, &last, "completed").await;
        told.push(
            events
                .into_iter()
                .map(|event| (event.id, event.data))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
    assert!(told[0].len() >= 18, "{told:?}");
}

#[tokio::test]
async fn an_event_id_of_one_replica_is_resumed_on_another_without_a_gap() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    // One who reads everything at one replica, and one who goes from replica to replica.
    let mut steady = fleet[0].stream("/events", None).await;
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut all = Vec::new();
    for round in 0..6 {
        let mut stream = match seen.last() {
            None => fleet[1].stream("/events", None).await,
            Some((id, _)) => fleet[round % 3].stream("/events", Some(id)).await,
        };
        assert_eq!(stream.status, 200);
        let (code, watch_code) = fleet[(round + 1) % 3].started(1000).await;
        let events = read_to(&mut stream, &code, "created").await;
        seen.extend(events.into_iter().map(|event| (event.id, event.data)));
        drop(stream);
        // This it hears only after it has come back.
        fleet.gateway.pay(&code).await;
        fleet[(round + 2) % 3]
            .waits_for_completion(&watch_code)
            .await;
        let events = read_to(&mut steady, &code, "completed").await;
        all.extend(events.into_iter().map(|event| (event.id, event.data)));
    }
    let (id, _) = seen.last().expect("some");
    let mut stream = fleet[0].stream("/events", Some(id)).await;
    let (last, _) = all.last().expect("some").clone();
    loop {
        let event = in_time("an event", stream.event()).await.unwrap();
        let is_last = event.id == last;
        seen.push((event.id, event.data));
        if is_last {
            break;
        }
    }
    assert_eq!(seen, all);
}

/// What each replica says of a payment, but for when it was last asked for: that is not written for its own sake.
fn without_last_poll(mut payments: Vec<Value>) -> Vec<Value> {
    for payment in &mut payments {
        payment.as_object_mut().unwrap().remove("last_polled_at");
    }
    payments
}

#[tokio::test]
async fn payments_are_listed_the_same_by_every_replica() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    for number in 0..12 {
        let body = order_of(&format!("order-{number}"), 1000 + number as u64);
        let started = fleet[number % 3].start(None, &body).await;
        if number % 2 == 0 {
            fleet.gateway.pay(started.text("code")).await;
            let watch_code = started.text("watch_code");
            fleet[(number + 1) % 3]
                .waits_for_completion(watch_code)
                .await;
        }
    }
    let lists = until("the same lists", async || {
        let lists = join_all(fleet.replicas.iter().map(|replica| replica.payments())).await;
        let lists: Vec<_> = lists.into_iter().map(without_last_poll).collect();
        let same = lists.iter().all(|list| *list == lists[0]);
        (same && lists[0].len() == 12).then_some(lists)
    })
    .await;
    let completed = |payment: &&Value| payment["status"] == "completed";
    assert_eq!(lists[0].iter().filter(completed).count(), 6);
    let order: Vec<_> = lists[0]
        .iter()
        .map(|payment| payment["reference"].as_str().unwrap().to_owned())
        .collect();
    let newest_first = (0..12).rev().map(|number| format!("order-{number}"));
    assert!(newest_first.eq(order), "{lists:?}");
    // A page of one replica is followed by that of another.
    let (mut paged, mut after) = (Vec::new(), String::new());
    for number in 0.. {
        let path = format!("/payments?limit=5{after}");
        let page = fleet[number % 3].json(&path).await;
        paged.extend(page["payments"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(without_last_poll(paged), lists[0]);
    // And so is what is asked for by a reference or a status.
    for query in ["reference=order-4", "status=completed", "status=created"] {
        let path = format!("/payments?{query}");
        let pages = join_all(fleet.replicas.iter().map(|replica| replica.json(&path))).await;
        let pages: Vec<_> = pages
            .into_iter()
            .map(|page| without_last_poll(page["payments"].as_array().unwrap().clone()))
            .collect();
        assert!(!pages[0].is_empty(), "{query}");
        assert!(pages.iter().all(|page| *page == pages[0]), "{query}");
    }
}

#[tokio::test]
async fn a_replica_that_comes_later_knows_everything() {
    let Some(mut fleet) = Fleet::new(1, &MANY).await else {
        return;
    };
    let first = fleet[0].start(Some("order-1"), &order_of("7", 1000)).await;
    let (code, watch_code) = fleet[0].started(2000).await;
    fleet.gateway.pay(&code).await;
    fleet[0].waits_for_completion(&watch_code).await;
    fleet.add_replica().await;
    fleet.set_all(&MANY);
    fleet.run().await;
    let asked = fleet.gateway.watches(&watch_code);
    assert_eq!(
        fleet[1].watch(&watch_code).await.text("status"),
        "completed"
    );
    assert_eq!(fleet.gateway.watches(&watch_code), asked);
    let again = fleet[1].start(Some("order-1"), &order_of("7", 1000)).await;
    assert_eq!(again.body, first.body);
    assert_eq!(
        without_last_poll(fleet[1].payments().await),
        without_last_poll(fleet[0].payments().await)
    );
}
