//! An app that was away and comes back: what it was not told meanwhile it is told soon, and not all at once. And clocks
//! that were wrong before a restart, or are after it: they make nothing wait, and end nothing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;

use crate::faults::{by_clock, faketime};
use crate::harness::{Answer, Program, Sidecar, call, get_at, metric_at, pay_at, start_at, until};
use crate::webhook::{
    App, OK, Post, Say, delivered, deliveries, delivery, paid, pending, skip as pass, started,
};

/// From one try to the next.
const STEPS: [f64; 8] = [1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 18000.0];
/// Of a message that the app takes, where it takes its time.
const TAKES: Duration = Duration::from_millis(300);
/// The amount of the payment with which the app is found to be back.
const FRESH: usize = 1000;
const REFUSED: Say = Say::Status(503, "");

/// Whether the app is there, as a test has it.
#[derive(Clone, Default)]
struct IsUp(Arc<AtomicBool>);

impl IsUp {
    fn set(&self, is_up: bool) {
        self.0.store(is_up, Ordering::SeqCst);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An app that refuses everything while it is not there.
    async fn app(&self, script: impl Fn(&Post) -> Say + Send + Sync + 'static) -> App {
        let is_up = self.clone();
        App::new(move |post| if is_up.get() { script(post) } else { REFUSED }).await
    }
}

/// So many payments are paid, and their messages refused so often, one step after the other.
async fn refused(sidecar: &Sidecar, count: usize, tries: usize) {
    for number in 1..=count {
        paid(sidecar, number).await;
    }
    refused_again(sidecar, count, 0, tries).await;
}

/// The same of messages that were tried before.
async fn refused_again(sidecar: &Sidecar, count: usize, before: usize, tries: usize) {
    for number in before..tries {
        if number > 0 {
            pass(Duration::from_secs_f64(STEPS[number - 1] * 1.1 + 0.05)).await;
        }
        until("all are refused", async || {
            let all = deliveries(sidecar).await;
            let tried = all.iter().filter(|one| {
                one["tries"]
                    .as_u64()
                    .is_some_and(|tries| tries > number as u64)
            });
            (tried.count() >= count).then_some(())
        })
        .await;
    }
}

/// Posts that the app has heard since it had heard so many, the first in front.
fn since(app: &App, before: usize) -> Vec<Post> {
    app.heard().split_off(before)
}

/// How many were with the app when this one came, itself among them.
fn at_once(posts: &[Post], number: usize) -> usize {
    let at = posts[number].at;
    1 + posts[..number]
        .iter()
        .filter(|earlier| earlier.at + TAKES > at)
        .count()
}

#[tokio::test]
async fn an_app_that_comes_back_gets_at_once_what_it_refused_meanwhile() {
    let is_up = IsUp::default();
    let app = is_up.app(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    refused(&sidecar, 40, 5).await;
    let before = app.heard().len();
    is_up.set(true);
    app.hears_no_more_than(before).await;
    paid(&sidecar, FRESH).await;
    // Nobody lets five minutes pass.
    app.hears_no_more_than(before + 41).await;
    let posts = since(&app, before);
    assert_eq!(posts[0].amount(), FRESH as u64);
    let mut amounts: Vec<_> = posts[1..].iter().map(Post::amount).collect();
    amounts.sort_unstable();
    assert_eq!(amounts, (1..=40).collect::<Vec<_>>(), "each once");
    until("all are taken", async || {
        (pending(&sidecar).await == 0).then_some(())
    })
    .await;
    assert_eq!(delivered(&sidecar, "delivered").await, 41);
}

#[tokio::test]
async fn what_is_due_again_goes_out_one_at_a_time_at_first_then_doubling_to_sixteen() {
    let is_up = IsUp::default();
    let app = is_up.app(|_| Say::Late(TAKES, 200)).await;
    let sidecar = app.sidecar(&[]);
    refused(&sidecar, 60, 5).await;
    let before = app.heard().len();
    is_up.set(true);
    paid(&sidecar, FRESH).await;
    app.has_heard(before + 61).await;
    let posts = since(&app, before);
    for number in 1..posts.len() {
        let answered = posts[..number]
            .iter()
            .filter(|earlier| earlier.at + TAKES <= posts[number].at)
            .count();
        assert!(
            answered >= 1,
            "nothing but what is fresh comes before it is back"
        );
        let most = 16.min(1 << (answered - 1).min(4));
        assert!(
            at_once(&posts, number) <= most,
            "{} at once after {answered}",
            at_once(&posts, number)
        );
    }
    assert_eq!(
        (1..posts.len()).map(|number| at_once(&posts, number)).max(),
        Some(16)
    );
}

#[tokio::test]
async fn a_failure_on_the_way_begins_with_one_at_a_time_anew_and_no_message_is_hurried_twice() {
    let is_up = IsUp::default();
    let count = AtomicUsize::new(0);
    // It fails again at the third and the fourth.
    let script = move |_: &Post| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Say::Late(TAKES, if matches!(number, 2 | 3) { 500 } else { 200 })
    };
    let app = is_up.app(script).await;
    let sidecar = app.sidecar(&[]);
    refused(&sidecar, 12, 5).await;
    let before = app.heard().len();
    is_up.set(true);
    paid(&sidecar, FRESH).await;
    app.hears_no_more_than(before + 13).await;
    let posts = since(&app, before);
    let at_once: Vec<_> = (0..7).map(|number| at_once(&posts, number)).collect();
    assert_eq!(at_once, [1, 1, 1, 2, 1, 1, 2]);
    // Those two wait for their next step, however much succeeds.
    until("all others are taken", async || {
        (pending(&sidecar).await <= 2).then_some(())
    })
    .await;
    paid(&sidecar, FRESH + 1).await;
    app.hears_no_more_than(before + 14).await;
    until("it is taken", async || {
        (pending(&sidecar).await <= 2).then_some(())
    })
    .await;
    let mut failed: Vec<_> = posts[2..=3].iter().map(Post::amount).collect();
    failed.sort_unstable();
    // After the next outage they are due again.
    is_up.set(false);
    pass(Duration::from_secs(61)).await;
    paid(&sidecar, FRESH + 2).await;
    app.hears_no_more_than(before + 15).await;
    assert_eq!(pending(&sidecar).await, 3);
    // The two did not fail in that time.
    is_up.set(true);
    paid(&sidecar, FRESH + 3).await;
    let posts = app
        .hears_no_more_than(before + 17)
        .await
        .split_off(before + 15);
    assert_eq!(
        posts.iter().map(Post::amount).collect::<Vec<_>>(),
        [FRESH as u64 + 3, FRESH as u64 + 2]
    );
    until("both are taken", async || {
        (pending(&sidecar).await <= 2).then_some(())
    })
    .await;
    is_up.set(false);
    refused_again(&sidecar, 2, 6, 7).await;
    pass(Duration::from_secs(61)).await;
    let before = app.heard().len();
    is_up.set(true);
    paid(&sidecar, FRESH + 4).await;
    let mut posts = app
        .hears_no_more_than(before + 3)
        .await
        .split_off(before + 1);
    posts.sort_by_key(Post::amount);
    assert_eq!(posts.iter().map(Post::amount).collect::<Vec<_>>(), failed);
}

#[tokio::test]
async fn what_the_app_asked_for_is_waited_for_also_when_it_is_back() {
    let is_up = IsUp::default();
    let up = is_up.clone();
    let app = App::new(move |post| match (up.get(), post.tries, post.amount()) {
        (true, ..) => OK,
        (_, 5, 1) => Say::Status(503, "Retry-After: 7200\r\n"),
        // Sooner than its next step would be.
        (_, 5, 2) => Say::Status(503, "Retry-After: 90\r\n"),
        (_, 5, 3) => Say::Status(429, "Retry-After: 0\r\n"),
        _ => REFUSED,
    })
    .await;
    let sidecar = app.sidecar(&[]);
    refused(&sidecar, 4, 5).await;
    let before = app.heard().len();
    is_up.set(true);
    paid(&sidecar, FRESH).await;
    let mut amounts: Vec<_> = app.hears_no_more_than(before + 3).await[before..]
        .iter()
        .map(Post::amount)
        .collect();
    amounts.sort_unstable();
    assert_eq!(amounts, [3, 4, FRESH as u64]);
    pass(Duration::from_secs(91)).await;
    assert_eq!(
        app.hears_no_more_than(before + 4).await[before + 3].amount(),
        2
    );
    pass(Duration::from_secs(7000)).await;
    app.hears_no_more_than(before + 4).await;
    pass(Duration::from_secs(200)).await;
    assert_eq!(
        app.hears_no_more_than(before + 5).await[before + 4].amount(),
        1
    );
}

#[tokio::test]
async fn what_failed_for_less_than_a_minute_waits_for_its_step() {
    let is_up = IsUp::default();
    let app = is_up.app(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    // 21 seconds.
    refused(&sidecar, 3, 4).await;
    let before = app.heard().len();
    is_up.set(true);
    paid(&sidecar, FRESH).await;
    app.hears_no_more_than(before + 1).await;
    pass(Duration::from_secs(67)).await;
    app.hears_no_more_than(before + 4).await;
}

#[tokio::test]
async fn a_message_that_failed_while_others_were_taken_is_not_hurried_by_the_next_that_is() {
    let app = App::new(|post| if post.amount() == 1 { REFUSED } else { OK }).await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    for (number, step) in STEPS[..5].iter().enumerate() {
        until("it is refused", async || {
            (delivered(&sidecar, "retry").await > number as u64).then_some(())
        })
        .await;
        // Something is taken every ten seconds.
        let mut left = step * 1.1 + 0.05;
        while left > 0.0 {
            pass(Duration::from_secs_f64(left.min(10.0))).await;
            left -= 10.0;
            let taken = delivered(&sidecar, "delivered").await;
            paid(&sidecar, FRESH).await;
            until("it is taken", async || {
                (delivered(&sidecar, "delivered").await > taken).then_some(())
            })
            .await;
        }
    }
    let refused = app.heard().iter().filter(|post| post.amount() == 1).count();
    assert!((5..=6).contains(&refused), "{refused}");
}

#[tokio::test]
async fn those_that_are_due_when_it_returns_do_not_all_come_upon_it() {
    let is_up = IsUp::default();
    let app = is_up.app(|_| Say::Late(TAKES, 200)).await;
    let sidecar = app.sidecar(&[]);
    refused(&sidecar, 20, 5).await;
    let before = app.heard().len();
    is_up.set(true);
    pass(Duration::from_secs(331)).await;
    app.has_heard(before + 20).await;
    let posts = since(&app, before);
    assert_eq!(
        (0..4)
            .map(|number| at_once(&posts, number))
            .collect::<Vec<_>>(),
        [1, 1, 1, 2]
    );
}

#[tokio::test]
async fn a_try_that_hung_when_it_returned_is_made_again_at_once() {
    let is_up = IsUp::default();
    let app = App::new({
        let is_up = is_up.clone();
        move |post| match post.amount() {
            1 if post.tries == 6 => Say::Nothing,
            _ if is_up.get() => OK,
            _ => REFUSED,
        }
    })
    .await;
    let sidecar = app.sidecar(&[("webhook.timeout", "3s")]);
    refused(&sidecar, 1, 5).await;
    pass(Duration::from_secs(331)).await;
    app.has_heard(6).await;
    is_up.set(true);
    paid(&sidecar, FRESH).await;
    let posts = app.hears_no_more_than(8).await.split_off(6);
    assert_eq!(
        posts.iter().map(Post::amount).collect::<Vec<_>>(),
        [FRESH as u64, 1]
    );
    assert!(posts[1].at > posts[0].at);
}

/// Asks for a payment that nobody polls, until it is completed.
async fn completed(sidecar: &Sidecar, watch_code: &str) {
    let status = async || sidecar.watch(watch_code).await.text("status").to_owned();
    until("it is completed", async || {
        (status().await == "completed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn within_a_payment_the_order_is_kept_when_it_is_back() {
    let is_up = IsUp::default();
    let app = is_up.app(|_| OK).await;
    let sidecar = app.sidecar(&[("watch.give_up_after", "300ms"), ("watch.fresh_for", "1ms")]);
    let mut codes = Vec::new();
    for number in 1..=5 {
        codes.push(started(&sidecar, number).await);
    }
    until("the end of polling", async || {
        (pending(&sidecar).await > 4).then_some(())
    })
    .await;
    for (code, watch_code) in &codes {
        sidecar.pay(code);
        completed(&sidecar, watch_code).await;
    }
    refused_again(&sidecar, 5, 0, 5).await;
    let before = app.heard().len();
    assert!(
        app.heard()
            .iter()
            .all(|post| post.kind() == "payment.polling_ended")
    );
    is_up.set(true);
    let (code, watch_code) = started(&sidecar, FRESH).await;
    sidecar.pay(&code);
    completed(&sidecar, &watch_code).await;
    app.has_heard(before + 11).await;
    until("all are taken", async || {
        (pending(&sidecar).await == 0).then_some(())
    })
    .await;
    let mut kinds: HashMap<u64, Vec<String>> = HashMap::new();
    for post in since(&app, before) {
        kinds.entry(post.amount()).or_default().push(post.kind());
    }
    for number in 1..=5 {
        assert_eq!(
            kinds[&number],
            ["payment.polling_ended", "payment.completed"]
        );
    }
}

/// The one of a test that ended in this process: its file is closed by another thread.
async fn closed(store: &Path) {
    let lock = fs::File::open(store.join("lock")).unwrap();
    until("the store is closed", async || {
        lock.try_lock().is_ok().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_app_that_was_away_while_tillgate_restarted_gets_what_it_refused_before() {
    let is_up = IsUp::default();
    let app = is_up.app(|_| OK).await;
    let store = app.directory.path().join("store");
    let settings = [("store.url", &*format!("file:{}", store.display()))];
    let sidecar = app.sidecar(&settings);
    refused(&sidecar, 10, 5).await;
    let before = app.heard().len();
    drop(sidecar);
    closed(&store).await;
    let sidecar = app.sidecar(&settings);
    // Its messages wait as they did.
    app.hears_no_more_than(before).await;
    is_up.set(true);
    paid(&sidecar, FRESH).await;
    let posts = app.hears_no_more_than(before + 11).await.split_off(before);
    assert_eq!(posts[0].amount(), FRESH as u64);
}

#[tokio::test]
async fn what_is_due_again_stays_so_over_a_restart() {
    let is_up = IsUp::default();
    let hangs = IsUp::default();
    hangs.set(true);
    let app = {
        let hangs = hangs.clone();
        is_up
            .app(move |post| {
                if post.amount() == FRESH as u64 || !hangs.get() {
                    OK
                } else {
                    Say::Nothing
                }
            })
            .await
    };
    let store = app.directory.path().join("store");
    let settings = [
        ("store.url", &*format!("file:{}", store.display())),
        ("webhook.timeout", "2s"),
    ];
    let sidecar = app.sidecar(&settings);
    refused(&sidecar, 10, 5).await;
    let before = app.heard().len();
    is_up.set(true);
    paid(&sidecar, FRESH).await;
    // One of them hangs, and the others wait for it.
    app.hears_no_more_than(before + 2).await;
    delivery(&sidecar, app.heard()[before].id(), |delivery| {
        delivery["state"] == "delivered"
    })
    .await;
    drop(sidecar);
    closed(&store).await;
    let before = app.heard().len();
    hangs.set(false);
    let _sidecar = app.sidecar(&settings);
    let posts = app.has_heard(before + 9).await.split_off(before);
    let mut amounts: Vec<_> = posts.iter().map(Post::amount).collect();
    amounts.sort_unstable();
    amounts.dedup();
    assert!(
        amounts.len() >= 9 && !amounts.contains(&(FRESH as u64)),
        "{amounts:?}"
    );
}

/// The clock of the first process and of the second: what is written is an hour or a year of the future, or of the past.
const CLOCKS: [(&str, &str); 5] = [
    ("+0d", "-1h"),
    ("+0d", "-366d"),
    ("+0d", "+366d"),
    ("-366d", "+0d"),
    ("+366d", "+0d"),
];

/// Starts a payment under a key.
async fn keyed(api: std::net::SocketAddr, key: &str, amount: usize) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let answer = call(
        api,
        Method::POST,
        "/api/start_payment",
        &headers,
        &format!("{{\"amount\":{amount}}}"),
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
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
        Some(Self {
            gateway,
            app: App::new(script).await,
            library,
            _sandbox: sandbox,
        })
    }

    /// A sidecar whose clock shows this, and the addresses of API and admin listener.
    async fn sidecar(&self, clock: &str) -> (Program, std::net::SocketAddr, std::net::SocketAddr) {
        let path = |name: &str| self.app.directory.path().join(name);
        fs::write(path("clock"), clock).unwrap();
        let (clock, store, keys) = (
            path("clock"),
            format!("file:{}", path("store").display()),
            path("keys"),
        );
        let settings = [
            ("store.url", &*store),
            ("webhook.url", &self.app.url()),
            ("webhook.secret_file", keys.to_str().unwrap()),
            ("watch.max_poll_interval", "50ms"),
            ("watch.fresh_for", "1ms"),
        ];
        let by_clock = by_clock(&self.library, &clock);
        Program::sidecar(&self.gateway, &[&settings[..], &by_clock].concat()).await
    }
}

#[tokio::test]
async fn a_message_waits_no_longer_than_its_step_and_is_not_given_up_whatever_the_clock_says_at_a_restart()
 {
    join_all(CLOCKS.map(async |(first, second)| {
        let Some(world) = Clocked::new(|_| REFUSED).await else {
            return;
        };
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
            (metric_at(
                admin,
                "tillgate_webhook_deliveries_total{outcome=\"retry\"}",
            )
            .await
                == 1)
                .then_some(())
        })
        .await;
        assert_eq!(
            metric_at(admin, "tillgate_webhooks_pending").await,
            1,
            "{first}, {second}: given up"
        );
    }))
    .await;
}

#[tokio::test]
async fn a_message_waits_no_longer_than_the_app_asked_for_whatever_the_clock_says_at_a_restart() {
    join_all(["-1h", "-366d"].map(async |clock| {
        let world = Clocked::new(|post| {
            if post.tries == 1 {
                Say::Status(503, "Retry-After: 4\r\n")
            } else {
                OK
            }
        })
        .await;
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
async fn a_key_stays_one_payments_and_an_open_payment_is_followed_whatever_the_clock_says_at_a_restart()
 {
    join_all(CLOCKS.map(async |(first, second)| {
        let Some(world) = Clocked::new(|_| OK).await else {
            return;
        };
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
                assert_eq!(
                    again.body, before.body,
                    "{first}, {second}: {key} has shown two codes"
                );
            }
            let known = get_at(api, &format!("/watch/{}", paid.text("watch_code"))).await;
            assert_eq!(
                (known.status, known.text("status")),
                (200, "completed"),
                "{first}, {second}"
            );
            sidecar.kill().await;
        }
        let (_sidecar, api, _) = world.sidecar(second).await;
        pay_at(&world.gateway, open.text("code")).await;
        let posts = world.app.has_heard(2).await;
        let kinds: Vec<_> = posts.iter().map(Post::kind).collect();
        assert_eq!(
            kinds, ["payment.completed"; 2],
            "{first}, {second}: it is not polled any more"
        );
        assert_eq!(posts[1].amount(), 2);
        assert_eq!(get_at(api, &path).await.text("status"), "completed");
    }))
    .await;
}
