//! Statements that are carried out when nobody waits for them any more.

use futures_util::future::join_all;

use super::postgres::Options;
use super::proxy::{Fate, Way};
use super::replica::{assert_away, codes, order_of};
use super::{Fleet, MANY};

/// Whether this request takes a name.
fn takes_a_lease(request: &str) -> bool {
    request.contains("insert into tillgate.leases")
}

#[tokio::test]
async fn a_name_that_is_taken_when_nobody_waits_for_it_any_more_is_free_again() {
    let Some(mut fleet) = Fleet::prepare(2, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    // A start may take long, and so does its lease.
    fleet.set_all(&[("gateway.timeout", "300s")]);
    fleet.run().await;
    let body = order_of("late-1", 1000);
    let stuck = fleet[0].proxy.trap(Fate::IsStuck, Way::Open, takes_a_lease);
    let refused = fleet[0].start(None, &body).await;
    stuck.wait().await;
    assert_away(&refused, "not_sent");
    fleet[0].has_store(true).await;
    let members = "select count(*) from tillgate.leases";
    assert_eq!(fleet.server.query_one(members).await, "0");
    fleet[0].proxy.free();
    let shown = fleet[1].start_at_last("order-1", &body).await;
    let again = fleet[0].start_at_last("order-2", &body).await;
    assert_eq!(codes(&shown), codes(&again));
    assert_eq!(fleet.gateway.starts(), 1);
}

#[tokio::test]
async fn a_server_that_was_paused_in_starts_goes_on_with_the_same_references() {
    let Some(mut fleet) = Fleet::prepare(2, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.set_all(&[("gateway.timeout", "300s")]);
    fleet.run().await;
    fleet.server.pause();
    let body = |number: usize| order_of(&format!("paused-{number}"), 1000);
    let starts = (0..8).map(async |number| fleet[number % 2].start(None, &body(number)).await);
    for refused in join_all(starts).await {
        assert_away(&refused, "not_sent");
    }
    fleet.server.resume();
    let starts = (0..8).map(async |number| {
        let key = format!("order-{number}");
        let replica = &fleet[(number + 1) % 2];
        codes(&replica.start_at_last(&key, &body(number)).await)
    });
    join_all(starts).await;
    assert_eq!(fleet.gateway.starts(), 8);
}
