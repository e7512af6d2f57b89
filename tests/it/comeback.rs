//! Clocks that were wrong before a restart, or are after it: they make nothing wait, and end nothing.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;

use crate::faults::{by_clock, faketime};
use crate::harness::{Answer, Program, call, get_at, pay_at, start_at, until};
use crate::push::{App, OK, Post, Say};

const REFUSED: Say = Say::Status(503, "");

/// The clock of the first process and of the second: what is written is an hour or a year of the future, or of the past.
const CLOCKS: [(&str, &str); 5] =
    [("+0d", "-1h"), ("+0d", "-366d"), ("+0d", "+366d"), ("-366d", "+0d"), ("+366d", "+0d")];

/// Starts a payment under a key.
async fn keyed(api: std::net::SocketAddr, key: &str, amount: usize) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let answer = call(api, Method::POST, "/api/start_payment", &headers, &format!("{{\"amount\":{amount}}}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

async fn has_metric(admin: std::net::SocketAddr, line: &str) -> bool {
    get_at(admin, "/metrics").await.body.lines().any(|other| other == line)
}

/// A gateway, an app, a store, and the clock that both processes of a test have.
struct Clocked {
    gateway: String,
    app: App,
    library: String,
    _sandbox: Program,
}

impl Clocked {
    /// `None` where there is no way to have another clock.
    async fn new(script: impl Fn(&Post) -> Say + Send + Sync + 'static) -> Option<Self> {
        let Some(library) = faketime() else {
            crate::harness::skip("libfaketime is not installed");
            return None;
        };
        let (sandbox, gateway) = Program::sandbox(&[]).await;
        Some(Self { gateway, app: App::new(script).await, library, _sandbox: sandbox })
    }

    /// A sidecar whose clock shows this, and the addresses of API and admin listener.
    async fn sidecar(&self, clock: &str) -> (Program, std::net::SocketAddr, std::net::SocketAddr) {
        let path = |name: &str| self.app.directory.path().join(name);
        fs::write(path("clock"), clock).unwrap();
        let (clock, store, keys) = (path("clock"), format!("file:{}", path("store").display()), path("keys"));
        let settings = [
            ("STORE__URL", &*store),
            ("WEBHOOK__URL", &self.app.url()),
            ("WEBHOOK__SECRET_FILE", keys.to_str().unwrap()),
            ("WATCH__MAX_POLL_INTERVAL", "50ms"),
            ("WATCH__FRESH_FOR", "1ms"),
        ];
        Program::sidecar_with(&self.gateway, &settings, &by_clock(&self.library, &clock)).await
    }
}

#[tokio::test]
async fn a_message_waits_no_longer_than_its_step_and_is_not_given_up_whatever_the_clock_says_at_a_restart() {
    join_all(CLOCKS.map(async |(first, second)| {
        let Some(world) = Clocked::new(|_| REFUSED).await else { return };
        let (sidecar, api, _) = world.sidecar(first).await;
        let payment = start_at(api, r#"{"amount":1}"#).await;
        pay_at(&world.gateway, payment.text("code")).await;
        world.app.has_heard(2).await;
        // The next is five seconds away; that of a killed process is written, or the one before is made again.
        tokio::time::sleep(Duration::from_millis(300)).await;
        sidecar.kill().await;
        let (_sidecar, _, admin) = world.sidecar(second).await;
        let posts = world.app.has_heard(3).await;
        assert_eq!(posts[2].id(), posts[0].id());
        until("it is refused again", async || {
            has_metric(admin, "tillgate_webhook_deliveries_total{outcome=\"retry\"} 1").await.then_some(())
        })
        .await;
        assert!(has_metric(admin, "tillgate_webhooks_pending 1").await, "{first}, {second}: given up");
    }))
    .await;
}

#[tokio::test]
async fn a_message_waits_no_longer_than_the_app_asked_for_whatever_the_clock_says_at_a_restart() {
    join_all(["-1h", "-366d"].map(async |clock| {
        let world =
            Clocked::new(|post| if post.tries == 1 { Say::Status(503, "Retry-After: 4\r\n") } else { OK }).await;
        let Some(world) = world else { return };
        let (sidecar, api, _) = world.sidecar("+0d").await;
        let payment = start_at(api, r#"{"amount":1}"#).await;
        pay_at(&world.gateway, payment.text("code")).await;
        world.app.has_heard(1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        sidecar.kill().await;
        let (_sidecar, ..) = world.sidecar(clock).await;
        world.app.has_heard(2).await;
    }))
    .await;
}

#[tokio::test]
async fn a_key_stays_one_payments_and_an_open_payment_is_followed_whatever_the_clock_says_at_a_restart() {
    join_all(CLOCKS.map(async |(first, second)| {
        let Some(world) = Clocked::new(|_| OK).await else { return };
        let (sidecar, api, _) = world.sidecar(first).await;
        let paid = keyed(api, "paid", 1).await;
        pay_at(&world.gateway, paid.text("code")).await;
        world.app.has_heard(1).await;
        let open = keyed(api, "open", 2).await;
        let path = format!("/watch/{}", open.text("watch_code"));
        assert_eq!(get_at(api, &path).await.text("status"), "created");
        // In peace, and then not.
        sidecar.signal("TERM");
        assert_eq!(sidecar.end().await.0, 0);
        for _ in 0..2 {
            let (sidecar, api, _) = world.sidecar(second).await;
            for (key, amount, before) in [("paid", 1, &paid), ("open", 2, &open)] {
                let again = keyed(api, key, amount).await;
                assert_eq!(again.body, before.body, "{first}, {second}: {key} has shown two codes");
            }
            let known = get_at(api, &format!("/watch/{}", paid.text("watch_code"))).await;
            assert_eq!((known.status, known.text("status")), (200, "completed"), "{first}, {second}");
            sidecar.kill().await;
        }
        let (_sidecar, api, _) = world.sidecar(second).await;
        pay_at(&world.gateway, open.text("code")).await;
        let posts = world.app.has_heard(2).await;
        let kinds: Vec<_> = posts.iter().map(Post::kind).collect();
        assert_eq!(kinds, ["payment.completed"; 2], "{first}, {second}: it is not polled any more");
        assert_eq!(posts[1].amount(), 2);
        assert_eq!(get_at(api, &path).await.text("status"), "completed");
    }))
    .await;
}
