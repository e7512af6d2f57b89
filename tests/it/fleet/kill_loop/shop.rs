//! Those who start payments and ask for them, while the replicas that they ask come and go.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;

use crate::dice::Dice;
use crate::fleet::replica::{TOKEN, order, order_of};
use crate::fleet::{Fleet, in_time};
use crate::harness::{Answer, exchange};

/// What callers were told.
#[derive(Clone, Default)]
pub struct Told {
    /// The code that each key and each reference has shown.
    by_name: HashMap<String, String>,
    /// The watch code of each code that any byte of an answer showed, where that much of it came.
    pub codes: HashMap<String, String>,
    pub paid: HashSet<String>,
    pub replayed: u64,
}

#[derive(Default)]
pub struct Shop(Mutex<Told>);

/// What one start says.
struct Order {
    key: Option<String>,
    reference: Option<String>,
    amount: u64,
}

impl Shop {
    pub fn told(&self) -> Told {
        self.0.lock().unwrap().clone()
    }

    /// Makes orders, one after the other, until it is over; each is started until it is answered.
    pub async fn work(&self, fleet: &Fleet, name: u64, mut dice: Dice, is_over: &AtomicBool) {
        let mut before: Vec<Order> = Vec::new();
        for number in 0.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let text = format!("order-{name}-{number}");
            let (has_key, has_reference) = match dice.below(10) {
                0 => (false, false),
                1 | 2 => (false, true),
                3..=5 => (true, false),
                _ => (true, true),
            };
            let order = Order {
                key: has_key.then(|| text.clone()),
                reference: has_reference.then(|| text.clone()),
                amount: 1 + dice.below(1_000_000),
            };
            // Without a name every try is another payment.
            let twins = match has_key || has_reference {
                true => dice.below(3),
                false => 0,
            };
            let tries: Vec<_> = (0..=twins).map(|_| dice.fork()).collect();
            let tries = tries
                .into_iter()
                .map(|dice| self.start(fleet, &order, dice));
            let answers = join_all(tries).await;
            let (code, watch_code) = answers[0].clone();
            for answer in &answers {
                assert_eq!(*answer, answers[0], "{text}: two answers");
            }
            if dice.percent(60) {
                self.watch(fleet, &watch_code, &mut dice).await;
            }
            if dice.percent(70) {
                fleet.gateway.pay(&code).await;
                self.0.lock().unwrap().paid.insert(code);
                self.watch(fleet, &watch_code, &mut dice).await;
            }
            if has_key {
                before.push(order);
            }
            if dice.percent(30) && !before.is_empty() {
                let again = &before[dice.index(before.len())];
                self.start(fleet, again, dice.fork()).await;
            }
            tokio::time::sleep(dice.milliseconds(0, 100)).await;
        }
    }

    /// Starts it, each time on a replica at random, until one answers well: code and watch code.
    async fn start(&self, fleet: &Fleet, order: &Order, mut dice: Dice) -> (String, String) {
        let body = match &order.reference {
            Some(reference) => order_of(reference, order.amount),
            None => self::order(order.amount),
        };
        let bearer = format!("Bearer {TOKEN}");
        let mut headers = vec![
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        headers.extend(order.key.as_deref().map(|key| ("Idempotency-Key", key)));
        let tries = async {
            loop {
                let replica = &fleet[dice.index(3)];
                // Now and then the caller hangs up.
                let patience = if dice.percent(10) {
                    dice.milliseconds(5, 200)
                } else {
                    Duration::from_secs(4)
                };
                let path = "/api/start_payment";
                let method = Method::POST;
                let bytes = exchange(replica.api, method, path, &headers, &body, patience).await;
                let shown = self.hear(order, &bytes);
                let answers = Answer::all(&bytes).ok();
                match answers.and_then(|mut answers| answers.pop()) {
                    Some(answer) if answer.status == 200 => {
                        let replayed = answer.header("idempotency-replayed") == "true";
                        self.0.lock().unwrap().replayed += u64::from(replayed);
                        let text = |name| answer.text(name).to_owned();
                        return (text("code"), text("watch_code"));
                    }
                    Some(answer) => {
                        assert!(!shown, "an error shows a code: {answer:?}");
                        assert!(matches!(answer.status, 502..=504), "{answer:?}");
                    }
                    None => {}
                }
                tokio::time::sleep(dice.milliseconds(5, 100)).await;
            }
        };
        let what = format!("{:?} {:?} is answered", order.key, order.reference);
        in_time(&what, tries).await
    }

    /// Remembers what these bytes show, be they all of the answer or not; says whether that is a code.
    fn hear(&self, order: &Order, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!(r#""{name}":""#))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let Some(code) = field("code") else {
            return false;
        };
        let mut told = self.0.lock().unwrap();
        let watch_code = told.codes.entry(code.clone()).or_default();
        if let Some(shown) = field("watch_code") {
            *watch_code = shown;
        }
        let names = [
            order.key.as_ref().map(|key| format!("key {key}")),
            order
                .reference
                .as_ref()
                .map(|name| format!("reference {name}")),
        ];
        for name in names.into_iter().flatten() {
            let before = told.by_name.entry(name.clone()).or_insert(code.clone());
            assert_eq!(*before, code, "{name} has shown two codes");
        }
        true
    }

    /// A watch or two of what was told before, on any replica.
    async fn watch(&self, fleet: &Fleet, watch_code: &str, dice: &mut Dice) {
        for _ in 0..=dice.below(2) {
            let wait = if dice.percent(20) { "?wait=1" } else { "" };
            let path = format!("/watch/{watch_code}{wait}");
            let replica = &fleet[dice.index(3)];
            let patience = Duration::from_secs(1);
            let answer = replica.try_call(Method::GET, &path, &[], "", patience);
            let Some(answer) = answer.await else {
                continue;
            };
            assert!(matches!(answer.status, 200 | 502..=504), "{answer:?}");
        }
    }
}
