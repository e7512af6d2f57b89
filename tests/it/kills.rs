//! A sidecar with a file store that is killed again and again: what callers were told holds.
//!
//! With `TILLGATE_TEST_KILLS=10000 cargo test kill_loop -- --nocapture` as often as wanted, and with
//! `TILLGATE_TEST_SEED=N` with the choices of an earlier run, as it printed them. Not with its moments: those are the
//! scheduler's.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::dice::Dice;
use crate::harness::{Answer, Program, exchange, free_port, pay_at, set_faults, until};
use crate::receiver::{Mood, Receiver};

/// Unless another number is asked for.
const KILLS: u64 = 200;
/// One store's life.
const KILLS_PER_ROUND: u64 = 50;
/// Rounds at the same time.
const LANES: u64 = 4;
const CALLERS: u64 = 6;
const TOKEN: &str = "a-token";

/// What the callers of one store were told.
#[derive(Default)]
struct Told {
    /// The whole answer under each key.
    by_key: HashMap<String, String>,
    /// The watch code of each code that any byte of an answer showed, where that much of it came.
    codes: HashMap<String, String>,
    paid: HashSet<String>,
    /// Watch codes that were seen completed.
    completed: HashSet<String>,
}

struct Round {
    api: SocketAddr,
    sandbox: String,
    told: Mutex<Told>,
    is_over: AtomicBool,
    replayed: AtomicU64,
}

#[tokio::test]
async fn kill_loop_no_key_shows_two_codes_and_nothing_that_was_told_is_forgotten() {
    let kills = std::env::var("TILLGATE_TEST_KILLS")
        .map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut dice = Dice::new(Dice::seed("kill_loop"));
    let rounds: Vec<_> = (0..kills.div_ceil(KILLS_PER_ROUND))
        .map(|_| dice.fork())
        .collect();
    let (rounds, done) = (Mutex::new(rounds), Mutex::new([0; 4]));
    let lanes = (0..LANES).map(async |_| {
        loop {
            let Some(dice) = rounds.lock().unwrap().pop() else {
                return;
            };
            let more = round(dice).await;
            done.lock()
                .unwrap()
                .iter_mut()
                .zip(more)
                .for_each(|(sum, more)| *sum += more);
            if kills > KILLS {
                let left = rounds.lock().unwrap().len();
                let _ = writeln!(
                    std::io::stderr(),
                    "kill_loop: {left} rounds of {KILLS_PER_ROUND} kills left"
                );
            }
        }
    });
    futures_util::future::join_all(lanes).await;
    let sums = *done.lock().unwrap();
    let [killed, keys, replayed, delivered] = sums;
    let _ = writeln!(
        std::io::stderr(),
        "kill_loop: {killed} kills, {keys} keys, {replayed} answers replayed, {delivered} payments delivered; \
         TILLGATE_TEST_KILLS=10000 for more"
    );
    // On a busy machine many a sidecar is killed before it hears anybody.
    assert!(
        killed >= kills && keys > killed / 10 && replayed > 0 && delivered > 0,
        "too little happened"
    );
}

/// One store, killed many times: kills, keys, replayed answers, delivered payments.
async fn round(mut dice: Dice) -> [u64; 4] {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("tokens"), TOKEN).unwrap();
    std::fs::write(
        path("keys"),
        "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    )
    .unwrap();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let faults = [
        "start:reset,rate=0.1",
        "start:truncate,rate=0.1",
        "start:hang,rate=0.02",
        "start:status=500,rate=0.05",
        "start:delay=150ms,rate=0.3",
        "watch:reset,rate=0.1",
        "watch:truncate,rate=0.05",
        "watch:delay=100ms,rate=0.2",
    ];
    set_faults(&gateway, &faults).await;
    let mut moods = dice.fork();
    // Twice at most, or it would take too long until the last is delivered.
    let receiver = Receiver::new(move |before| match moods.below(10) {
        0..2 if before < 2 => Mood::Refuse,
        2..4 if before < 2 => Mood::HangUp,
        _ => Mood::Take,
    })
    .await;
    let ports = [free_port(), free_port()];
    let addresses = ports.map(|port| format!("127.0.0.1:{port}"));
    let (store, tokens, keys, url) = (
        format!("file:{}", path("store")),
        path("tokens"),
        path("keys"),
        receiver.url(),
    );
    let settings = [
        ("listen.address", addresses[0].as_str()),
        ("admin.address", &addresses[1]),
        ("listen.token_file", &tokens),
        ("store.url", &store),
        ("webhook.url", &url),
        ("webhook.secret_file", &keys),
        ("gateway.timeout", "700ms"),
        ("start.rate", "100000"),
        ("start.burst", "100000"),
        ("watch.poll_rate", "1000"),
        ("log.level", "error"),
    ];
    let round = Arc::new(Round {
        api: addresses[0].parse().unwrap(),
        sandbox: gateway.clone(),
        told: Mutex::default(),
        is_over: AtomicBool::new(false),
        replayed: AtomicU64::new(0),
    });
    let mut callers = tokio::task::JoinSet::new();
    for name in 0..CALLERS {
        callers.spawn(round.clone().call(name, dice.fork()));
    }
    for _ in 0..KILLS_PER_ROUND {
        let sidecar = Program::launch(&[], &gateway, &settings);
        let life = if dice.percent(15) {
            dice.milliseconds(0, 100)
        } else {
            dice.milliseconds(100, 500)
        };
        tokio::time::sleep(life).await;
        sidecar.kill().await;
    }
    let sidecar = Program::launch(&[], &gateway, &settings);
    round.is_over.store(true, Ordering::Relaxed);
    let end = async {
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), end)
        .await
        .expect("every caller is answered at last");
    let told = std::mem::take(&mut *round.told.lock().unwrap());
    until("every payment that was paid is delivered", async || {
        told.paid
            .is_subset(&receiver.taken("payment.completed"))
            .then_some(())
    })
    .await;
    receiver.check_ids();
    round.check_list(&told).await;
    // And once more, from what the file holds alone: nobody asks the gateway now.
    sidecar.kill().await;
    set_faults(&gateway, &["watch:status=500"]).await;
    let sidecar = Program::launch(&[], &gateway, &settings);
    round.check_list(&told).await;
    for (code, watch_code) in &told.codes {
        if told.paid.contains(code) {
            let answer = round.ask(&format!("/watch/{watch_code}")).await.unwrap();
            assert_eq!(
                (answer.status, answer.text("status")),
                (200, "completed"),
                "{answer:?}"
            );
        }
    }
    // What is known to be delivered when the process ends in peace is not delivered again.
    until("nothing is owed", async || {
        let page = round.ask("/deliveries?limit=1000").await?;
        (!page.body.contains(r#""pending""#)).then_some(())
    })
    .await;
    sidecar.signal("TERM");
    let (code, _, log) = sidecar.end().await;
    assert_eq!(code, 0, "{log}");
    let tries = receiver.messages().len();
    let sidecar = Program::launch(&[], &gateway, &settings);
    round.check_list(&told).await;
    assert_eq!(receiver.messages().len(), tries, "delivered again");
    sidecar.kill().await;
    receiver.check_ids();
    let count = |number: usize| u64::try_from(number).unwrap();
    let replayed = round.replayed.load(Ordering::Relaxed);
    [
        KILLS_PER_ROUND + 2,
        count(told.by_key.len()),
        replayed,
        count(told.paid.len()),
    ]
}

impl Round {
    /// One caller: orders, one after the other, each until it is answered.
    async fn call(self: Arc<Self>, name: u64, mut dice: Dice) {
        let mut keys = Vec::new();
        for order in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("order-{name}-{order}");
            let amount = 1 + dice.below(1_000_000);
            let body = if dice.percent(15) {
                // Without a key every try is another payment.
                self.start(None, amount, &mut dice).await
            } else {
                let twins = (0..dice.below(3)).map(|_| (dice.fork(), self.clone(), key.clone()));
                let twins: Vec<_> = twins
                    .map(|(mut dice, this, key)| {
                        tokio::spawn(async move { this.start(Some(&key), amount, &mut dice).await })
                    })
                    .collect();
                let body = self.start(Some(&key), amount, &mut dice).await;
                for twin in twins {
                    assert_eq!(twin.await.unwrap(), body, "{key}: two answers");
                }
                keys.push((key, amount));
                body
            };
            let field = |name: &str| body[name].as_str().unwrap().to_owned();
            let (code, watch_code) = (field("code"), field("watch_code"));
            if dice.percent(60) {
                self.watch(&watch_code, &mut dice).await;
            }
            if dice.percent(70) {
                pay_at(&self.sandbox, &code).await;
                self.told.lock().unwrap().paid.insert(code);
                self.watch(&watch_code, &mut dice).await;
            }
            if dice.percent(30) && !keys.is_empty() {
                let (key, amount) = &keys[dice.index(keys.len())];
                self.start(Some(key), *amount, &mut dice).await;
            }
            tokio::time::sleep(dice.milliseconds(0, 60)).await;
        }
    }

    /// A start, again and again until it is answered.
    async fn start(&self, key: Option<&str>, amount: u64, dice: &mut Dice) -> Value {
        let token = format!("Bearer {TOKEN}");
        let mut headers = vec![
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json"),
        ];
        headers.extend(key.map(|key| ("Idempotency-Key", key)));
        loop {
            // Now and then the caller hangs up.
            let patience = if dice.percent(10) {
                dice.milliseconds(5, 100)
            } else {
                Duration::from_secs(5)
            };
            let body = format!(r#"{{"amount": {amount}}}"#);
            let bytes = exchange(
                self.api,
                Method::POST,
                "/api/start_payment",
                &headers,
                &body,
                patience,
            )
            .await;
            let shown = self.hear(key, &bytes);
            let answer = Answer::all(&bytes)
                .ok()
                .and_then(|mut answers| answers.pop());
            match answer {
                Some(answer) if answer.status == 200 => {
                    if answer.header("idempotency-replayed") == "true" {
                        self.replayed.fetch_add(1, Ordering::Relaxed);
                    }
                    return answer.json();
                }
                Some(answer) => {
                    assert!(!shown, "an error shows a code: {answer:?}");
                    assert!(matches!(answer.status, 502..=504), "{answer:?}");
                }
                None => {}
            }
            tokio::time::sleep(dice.milliseconds(5, 50)).await;
        }
    }

    /// Remembers what these bytes show, be they all of the answer or not; says whether that is a code.
    fn hear(&self, key: Option<&str>, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let field = |name: &str| {
            Some(
                text.split_once(&format!(r#""{name}":""#))?
                    .1
                    .split_once('"')?
                    .0
                    .to_owned(),
            )
        };
        let Some(code) = field("code") else {
            return false;
        };
        let mut told = self.told.lock().unwrap();
        let watch_code = told.codes.entry(code.clone()).or_default();
        if let Some(shown) = field("watch_code") {
            *watch_code = shown;
        }
        if let Some(key) = key {
            let before = told
                .by_key
                .entry(key.to_owned())
                .or_insert_with(|| code.clone());
            assert_eq!(*before, code, "{key} has shown two codes");
        }
        true
    }

    /// A watch or two of what was told before.
    async fn watch(&self, watch_code: &str, dice: &mut Dice) {
        for _ in 0..=dice.below(2) {
            let was_completed = self.told.lock().unwrap().completed.contains(watch_code);
            let wait = if dice.percent(20) { "?wait=1" } else { "" };
            let Some(answer) = self.ask(&format!("/watch/{watch_code}{wait}")).await else {
                continue;
            };
            assert!(matches!(answer.status, 200 | 502..=504), "{answer:?}");
            if answer.status == 200 {
                let is_completed = answer.text("status") == "completed";
                assert!(is_completed || !was_completed, "taken back: {answer:?}");
                if is_completed {
                    self.told
                        .lock()
                        .unwrap()
                        .completed
                        .insert(watch_code.to_owned());
                }
            }
        }
    }

    /// The whole answer, if there is one.
    async fn ask(&self, path: &str) -> Option<Answer> {
        let token = format!("Bearer {TOKEN}");
        let headers = [("Authorization", token.as_str())];
        let bytes = exchange(
            self.api,
            Method::GET,
            path,
            &headers,
            "",
            Duration::from_secs(5),
        )
        .await;
        Answer::all(&bytes).ok()?.pop()
    }

    /// Everything that was told is in the list, and paid where a caller was told so.
    async fn check_list(&self, told: &Told) {
        let mut listed = HashMap::new();
        let mut after = String::new();
        loop {
            let path = format!("/payments?limit=1000{after}");
            let page = until("a page", async || self.ask(&path).await).await;
            assert_eq!(page.status, 200, "{page:?}");
            let page = page.json();
            for payment in page["payments"].as_array().unwrap() {
                let field = |name: &str| payment[name].as_str().unwrap().to_owned();
                let before = listed.insert(field("code"), (field("watch_code"), field("status")));
                assert!(before.is_none(), "twice: {payment}");
            }
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
        }
        for (code, watch_code) in &told.codes {
            let (listed, status) = listed
                .get(code)
                .unwrap_or_else(|| panic!("{code} is forgotten"));
            assert!(
                watch_code.is_empty() || watch_code == listed,
                "{code}: another watch code"
            );
            if told.completed.contains(listed) || told.paid.contains(code) {
                assert_eq!(status, "completed", "{code}");
            }
        }
    }
}
