//! Each message is the fleet's: one id, posted by one replica, by another where that one is gone.

use std::collections::HashSet;

use futures_util::future::join_all;
use hyper::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::postgres::Options;
use super::{Fleet, MANY, until};
use crate::receiver::{Message, Mood, Receiver};

const COMPLETED: &str = "payment.completed";

/// Three replicas that post to this app.
async fn posting_to(receiver: &Receiver) -> Option<Fleet> {
    let mut fleet = Fleet::prepare(3, Options::default()).await?;
    fleet.set_all(&MANY);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    Some(fleet)
}

/// Three replicas, each with an app of its own.
async fn each_to_its_own(receivers: &[Receiver; 3]) -> Option<Fleet> {
    let mut fleet = Fleet::prepare(3, Options::default()).await?;
    fleet.set_all(&MANY);
    fleet.post_to("");
    for (replica, receiver) in fleet.replicas.iter_mut().zip(receivers) {
        replica.set("webhook.url", receiver.url());
    }
    fleet.run().await;
    Some(fleet)
}

async fn three(mood: impl Fn(usize) -> Mood + Clone + Send + 'static) -> [Receiver; 3] {
    [
        Receiver::new(mood.clone()).await,
        Receiver::new(mood.clone()).await,
        Receiver::new(mood).await,
    ]
}

async fn has_taken(receiver: &Receiver, codes: &HashSet<String>) {
    until("every payment is delivered", async || {
        codes.is_subset(&receiver.taken(COMPLETED)).then_some(())
    })
    .await;
}

/// Nothing is owed any more, as every replica says.
async fn nothing_is_owed(fleet: &Fleet) {
    for replica in &fleet.replicas {
        until(&format!("{} owes nothing", replica.name), async || {
            let all = replica.deliveries().await;
            let is_owed = |delivery: &Value| delivery["state"] == "pending";
            (!all.iter().any(is_owed)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_completed_payment_is_one_message_of_the_fleet() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(fleet) = posting_to(&receiver).await else {
        return;
    };
    let mut codes = HashSet::new();
    for number in 0..12 {
        let (code, _) = fleet[number % 3].started(1000).await;
        fleet.gateway.pay(&code).await;
        codes.insert(code);
    }
    has_taken(&receiver, &codes).await;
    nothing_is_owed(&fleet).await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), codes.len());
    let lists = join_all(fleet.replicas.iter().map(|one| one.deliveries())).await;
    assert_eq!(lists[0].len(), codes.len());
    assert!(lists.iter().all(|list| *list == lists[0]), "{lists:?}");
}

#[tokio::test]
async fn a_message_that_is_refused_is_tried_again_under_the_same_id() {
    let receiver = Receiver::new(|before| match before {
        0 | 1 => Mood::Refuse,
        _ => Mood::Take,
    })
    .await;
    let Some(fleet) = posting_to(&receiver).await else {
        return;
    };
    let (code, _) = fleet[0].started(1000).await;
    fleet.gateway.pay(&code).await;
    has_taken(&receiver, &HashSet::from([code])).await;
    nothing_is_owed(&fleet).await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), 3);
    for replica in &fleet.replicas {
        let [delivery] = &replica.deliveries().await[..] else {
            panic!("not one delivery");
        };
        assert_eq!(delivery["tries"], 3, "{delivery}");
    }
}

/// The one that has got the message, once there is one.
async fn holder(receivers: &[Receiver; 3]) -> (usize, Message) {
    until("a try", async || {
        let mut tries = receivers.iter().map(Receiver::messages).enumerate();
        tries.find_map(|(number, tries)| Some((number, tries.first()?.clone())))
    })
    .await
}

#[tokio::test]
async fn a_message_whose_replica_is_killed_is_posted_by_another() {
    let receivers = three(|_| Mood::TakeLater).await;
    let Some(fleet) = each_to_its_own(&receivers).await else {
        return;
    };
    let (code, _) = fleet[0].started(1000).await;
    fleet.gateway.pay(&code).await;
    let (holder, message) = holder(&receivers).await;
    fleet[holder].kill().await;
    for receiver in &receivers {
        receiver.let_one_go();
    }
    let others = || (0..3).filter(|number| *number != holder);
    let again = until("another posts it", async || {
        others().find_map(|number| receivers[number].messages().first().cloned())
    })
    .await;
    assert_eq!((again.id, again.body), (message.id, message.body));
    for number in others() {
        until("nothing is owed", async || {
            let all = fleet[number].deliveries().await;
            (all.len() == 1 && all[0]["state"] == "delivered").then_some(())
        })
        .await;
    }
    let tries: usize = others()
        .map(|number| receivers[number].messages().len())
        .sum();
    assert_eq!(tries, 1);
}

#[tokio::test]
async fn a_message_whose_replica_is_paused_is_posted_by_another() {
    let receivers = three(|_| Mood::TakeLater).await;
    let Some(fleet) = each_to_its_own(&receivers).await else {
        return;
    };
    let (code, _) = fleet[0].started(1000).await;
    fleet.gateway.pay(&code).await;
    let (holder, message) = holder(&receivers).await;
    fleet[holder].pause();
    let others = || (0..3).filter(|number| *number != holder);
    let again = until("another posts it", async || {
        others().find_map(|number| receivers[number].messages().first().cloned())
    })
    .await;
    assert_eq!((again.id, again.body), (message.id, message.body));
    for receiver in &receivers {
        receiver.let_one_go();
    }
    fleet[holder].resume();
    nothing_is_owed(&fleet).await;
    let all = fleet[holder].deliveries().await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["state"], "delivered");
}

#[tokio::test]
async fn payments_of_a_replica_that_is_killed_or_stopped_are_polled_and_delivered_by_others() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(fleet) = posting_to(&receiver).await else {
        return;
    };
    let mut codes = HashSet::new();
    for number in 0..12 {
        codes.insert(fleet[number % 2].started(1000).await.0);
    }
    fleet[0].kill().await;
    fleet[1].stop().await;
    for code in &codes {
        fleet.gateway.pay(code).await;
    }
    has_taken(&receiver, &codes).await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), codes.len());
}

#[tokio::test]
async fn a_fleet_that_was_away_polls_and_delivers_when_one_is_back() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(fleet) = posting_to(&receiver).await else {
        return;
    };
    let mut codes = HashSet::new();
    for number in 0..6 {
        codes.insert(fleet[number % 3].started(1000).await.0);
    }
    for replica in &fleet.replicas {
        replica.kill().await;
    }
    for code in &codes {
        fleet.gateway.pay(code).await;
    }
    fleet[2].restart().await;
    has_taken(&receiver, &codes).await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), codes.len());
}

#[tokio::test]
async fn where_the_app_of_one_replica_is_down_the_others_deliver() {
    let receivers = [
        Receiver::new(|_| Mood::Refuse).await,
        Receiver::new(|_| Mood::Take).await,
        Receiver::new(|_| Mood::Take).await,
    ];
    let Some(fleet) = each_to_its_own(&receivers).await else {
        return;
    };
    let mut codes = HashSet::new();
    for number in 0..12 {
        let (code, _) = fleet[number % 3].started(1000).await;
        fleet.gateway.pay(&code).await;
        codes.insert(code);
    }
    until("every payment is delivered", async || {
        let taken = receivers[1].taken(COMPLETED);
        let taken: HashSet<_> = taken
            .union(&receivers[2].taken(COMPLETED))
            .cloned()
            .collect();
        (taken == codes).then_some(())
    })
    .await;
    nothing_is_owed(&fleet).await;
    let all = receivers.iter().flat_map(Receiver::messages);
    let ids: HashSet<_> = all
        .map(|message| (message.json()["data"]["code"].to_string(), message.id))
        .collect();
    assert_eq!(ids.len(), codes.len(), "one id for each: {ids:?}");
    // Each real try counts once.
    let refused = receivers[0].messages().len();
    let listed = fleet[1].deliveries().await;
    let tries: u64 = listed
        .iter()
        .map(|delivery| delivery["tries"].as_u64().unwrap())
        .sum();
    assert_eq!(tries, (codes.len() + refused) as u64, "{listed:?}");
}

#[tokio::test]
async fn a_message_is_delivered_again_when_any_replica_is_asked_to() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(fleet) = posting_to(&receiver).await else {
        return;
    };
    let (code, _) = fleet[0].started(1000).await;
    fleet.gateway.pay(&code).await;
    has_taken(&receiver, &HashSet::from([code])).await;
    nothing_is_owed(&fleet).await;
    let id = receiver.messages()[0].id.clone();
    for (number, replica) in fleet.replicas.iter().enumerate() {
        let path = format!("/deliveries/{id}/redeliver");
        let asked = replica.call(Method::POST, &path, &[], "").await;
        assert_eq!((asked.status, asked.text("id")), (200, &*id), "{asked:?}");
        until("it is posted again", async || {
            (receiver.messages().len() == number + 2).then_some(())
        })
        .await;
        nothing_is_owed(&fleet).await;
    }
    receiver.check_ids();
    let unknown = fleet[1]
        .call(Method::POST, "/deliveries/msg_nobody/redeliver", &[], "")
        .await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
}

#[tokio::test]
async fn a_rolling_restart_loses_no_message_and_sends_none_twice() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(fleet) = posting_to(&receiver).await else {
        return;
    };
    let mut codes = HashSet::new();
    for number in 0..9 {
        // Whoever ends takes no start; the others do.
        let leaving = &fleet[number % 3];
        leaving.signal(Signal::TERM);
        for other in (0..3).filter(|other| *other != number % 3) {
            let (code, _) = fleet[other].started(1000).await;
            fleet.gateway.pay(&code).await;
            codes.insert(code);
        }
        let status = leaving.ended().await;
        assert_eq!(status.code(), Some(0), "{}", leaving.log());
        leaving.restart().await;
    }
    has_taken(&receiver, &codes).await;
    nothing_is_owed(&fleet).await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), codes.len());
}

#[tokio::test]
async fn the_end_of_polling_is_one_message_of_the_fleet_and_a_later_completion_another() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(mut fleet) = Fleet::prepare(3, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.set_all(&[("watch.give_up_after", "2s")]);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    let starts = (0..9).map(|number| fleet[number % 3].started(1000));
    let payments = join_all(starts).await;
    let codes: HashSet<_> = payments.iter().map(|(code, _)| code.clone()).collect();
    until("the end of polling", async || {
        (receiver.taken("payment.polling_ended") == codes).then_some(())
    })
    .await;
    // Whoever asks now finds out, and that is told.
    for (number, (code, watch_code)) in payments.iter().enumerate() {
        fleet.gateway.pay(code).await;
        fleet[number % 3].waits_for_completion(watch_code).await;
    }
    has_taken(&receiver, &codes).await;
    nothing_is_owed(&fleet).await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), 2 * codes.len());
}
