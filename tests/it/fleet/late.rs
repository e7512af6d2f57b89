//! Statements that are carried out when nobody waits for them any more.

use super::postgres::{Options, USER};
use super::proxy::{Fate, Way};
use super::replica::{assert_away, codes, order_of};
use super::{Fleet, MANY, until};

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
    let count = format!(
        "create sequence tillgate.taken; grant usage on sequence tillgate.taken to {USER}; \
         create function tillgate.count() returns trigger language plpgsql as $$ begin \
         perform nextval('tillgate.taken'); return new; end $$; \
         create trigger count before insert on tillgate.leases for each row execute function tillgate.count()"
    );
    fleet.server.query(&count).await;
    fleet[0].proxy.free();
    until("it is taken", async || {
        let is_taken = "select is_called from tillgate.taken";
        (fleet.server.query_one(is_taken).await == "t").then_some(())
    })
    .await;
    let shown = fleet[1].start_at_last("order-1", &body).await;
    let again = fleet[0].start_at_last("order-2", &body).await;
    assert_eq!(codes(&shown), codes(&again));
    assert_eq!(fleet.gateway.starts(), 1);
}
