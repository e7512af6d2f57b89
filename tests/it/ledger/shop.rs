//! The app: it starts payments, again and again and sometimes wrongly, asks for them, and takes webhooks, or does not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Request, Response, StatusCode};
use serde_json::Value;
use tillgate::app::{Sidecar, Unanswered};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::book::{Ask, Channel};
use super::gateway::{Answered, a_while};
use super::town::{Town, Written};
use crate::dice::Dice;
use crate::harness::{Block, get, get_stream, post};

/// What the app does during one process of the program.
pub struct Shop {
    town: Arc<Town>,
    sidecar: Arc<Sidecar>,
    dice: Dice,
    pub tasks: JoinSet<()>,
}

impl Shop {
    pub fn new(town: &Arc<Town>, sidecar: &Arc<Sidecar>, dice: Dice) -> Self {
        Self {
            town: town.clone(),
            sidecar: sidecar.clone(),
            dice,
            tasks: JoinSet::new(),
        }
    }

    /// One thing that it does, and a pause.
    pub async fn step(&mut self, orders: &mut Vec<Ask>) {
        match self.dice.below(100) {
            0..25 => {
                let ask = self.new_order(orders.len());
                self.town.state().book.figures.orders += 1;
                orders.push(ask.clone());
                self.start(ask);
            }
            25..60 if !orders.is_empty() => {
                let ask = self.again(orders);
                self.start(ask);
            }
            60..85 => self.watch(),
            85..91 => self.list(),
            91..94 => self.stream(),
            94..99 => self.pass(),
            _ => {}
        }
        while self.tasks.try_join_next().is_some() {}
        let pause = match self.dice.below(10) {
            0..8 => self.dice.milliseconds(0, 3000),
            _ => a_while(&mut self.dice),
        };
        sleep(pause).await;
    }

    fn new_order(&mut self, number: usize) -> Ask {
        let (has_key, has_reference) = match self.dice.below(10) {
            0..5 => (false, true),
            5..7 => (true, false),
            7..9 => (true, true),
            _ => (false, false),
        };
        Ask {
            key: has_key.then(|| format!("key-{number}")),
            reference: has_reference.then(|| format!("{number}")),
            amount: [1000, 1000, 1200][self.dice.index(3)],
            order: self.dice.percent(20).then(|| format!("order-{number}")),
            redirect: None,
        }
    }

    /// An order that was started before, as it was or not quite.
    fn again(&mut self, orders: &[Ask]) -> Ask {
        // The latest more often than the others.
        let first = if self.dice.percent(60) {
            orders.len().saturating_sub(4)
        } else {
            0
        };
        let mut ask = orders[first + self.dice.index(orders.len() - first)].clone();
        let other = &orders[self.dice.index(orders.len())];
        match self.dice.below(20) {
            0 => ask.amount = 1200,
            1 => ask.key.clone_from(&other.key),
            2 => ask.reference.clone_from(&other.reference),
            3..6 if ask.reference.is_some() => {
                ask.key = Some(format!("again-{}", self.dice.below(50)));
            }
            6 if ask.reference.is_some() => ask.key = None,
            _ => {}
        }
        ask
    }

    /// Starts it, maybe several times at once.
    fn start(&mut self, ask: Ask) {
        let times = if self.dice.percent(20) {
            1 + self.dice.below(4)
        } else {
            1
        };
        for _ in 0..times {
            let mut ask = ask.clone();
            if self.dice.percent(30) {
                let page = format!("https://shop.example/{}", self.dice.below(9));
                ask.redirect = Some(page);
            }
            let patience = self.dice.percent(10).then(|| a_while(&mut self.dice));
            let (town, sidecar) = (self.town.clone(), self.sidecar.clone());
            self.tasks.spawn(start(town, sidecar, ask, patience));
        }
    }

    fn watch(&mut self) {
        let codes = self.town.state().book.watch_codes();
        if codes.is_empty() {
            return;
        }
        let code = codes[self.dice.index(codes.len())].clone();
        let query = match self.dice.below(3) {
            0 => format!("?wait={}", self.dice.below(60)),
            _ => String::new(),
        };
        let forces = self.dice.percent(30);
        let (town, sidecar) = (self.town.clone(), self.sidecar.clone());
        self.tasks.spawn(async move {
            watch(&town, &sidecar, &code, &query, forces).await;
        });
    }

    fn list(&mut self) {
        let (town, sidecar) = (self.town.clone(), self.sidecar.clone());
        self.tasks.spawn(async move {
            list(&town, &sidecar).await;
        });
    }

    /// Asks for all payments at once.
    fn pass(&mut self) {
        let codes = self.town.state().book.watch_codes();
        for code in codes {
            let (town, sidecar) = (self.town.clone(), self.sidecar.clone());
            self.tasks.spawn(async move {
                watch(&town, &sidecar, &code, "", true).await;
            });
        }
    }

    /// Streams one payment for a while.
    fn stream(&mut self) {
        let codes = self.town.state().book.watch_codes();
        if codes.is_empty() {
            return;
        }
        let code = codes[self.dice.index(codes.len())].clone();
        let (town, sidecar) = (self.town.clone(), self.sidecar.clone());
        let time = a_while(&mut self.dice).min(Duration::from_secs(600));
        self.tasks.spawn(async move {
            let path = format!("/watch/{code}");
            let _ = timeout(time, stream(&town, &sidecar, &path, Channel::Watch)).await;
        });
    }
}

async fn start(town: Arc<Town>, sidecar: Arc<Sidecar>, ask: Ask, patience: Option<Duration>) {
    let sent = town.state().book.sends(town.now(), &ask);
    if ask.key.is_some() && ask.reference.is_some() {
        // The payment of the reference may be kept under the key.
        town.idle.stored();
    }
    town.event();
    let mut request = post("/api/start_payment", ask.body());
    if let Some(key) = &ask.key {
        let headers = request.headers_mut();
        headers.insert("idempotency-key", key.parse().unwrap());
    }
    let answer = sidecar.api(request);
    let answer = match patience {
        None => answer.await,
        Some(patience) => match timeout(patience, answer).await {
            Ok(answer) => answer,
            Err(_) => return town.state().book.hangs_up(sent),
        },
    };
    {
        let (now, state) = (town.now(), &mut *town.state());
        let status = answer.status().as_u16();
        let body = json(&answer);
        let gateway = &state.gateway;
        state.book.answered(gateway, &sent, now, status, &body);
    }
    town.event();
}

fn json(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

/// Asks for a payment; returns the status of the answer.
pub async fn watch(
    town: &Town,
    sidecar: &Sidecar,
    code: &str,
    query: &str,
    forces: bool,
) -> StatusCode {
    let asked = town.now();
    let mut request = get(&format!("/watch/{code}{query}"));
    if forces {
        let no_cache = "no-cache".parse().unwrap();
        request.headers_mut().insert("cache-control", no_cache);
    }
    let answer = sidecar.api(request).await;
    if answer.status() == StatusCode::OK {
        let (now, state) = (town.now(), &mut *town.state());
        let body = json(&answer);
        let gateway = &state.gateway;
        state
            .book
            .heard(gateway, Channel::Watch, code, asked, now, &body);
    }
    town.event();
    answer.status()
}

/// Lists all payments.
pub async fn list(town: &Town, sidecar: &Sidecar) -> Vec<Value> {
    let asked = town.now();
    let answer = sidecar.api(get("/payments?limit=1000")).await;
    if answer.status() != StatusCode::OK {
        return Vec::new();
    }
    let page = json(&answer);
    let (now, state) = (town.now(), &mut *town.state());
    let payments = page["payments"].as_array().unwrap();
    for payment in payments {
        let code = payment["watch_code"].as_str().unwrap();
        let gateway = &state.gateway;
        state
            .book
            .heard(gateway, Channel::List, code, asked, now, payment);
    }
    payments.clone()
}

/// Reads a stream to its end.
pub async fn stream(town: &Town, sidecar: &Sidecar, path: &str, channel: Channel) {
    let answer = sidecar.stream(get_stream(path, None)).await;
    if answer.status() != StatusCode::OK {
        return;
    }
    let asked = town.now();
    let (mut body, mut read) = (answer.into_body(), String::new());
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        read.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some((block, rest)) = read.split_once("\n\n") {
            let block = Block::parse(block);
            read = rest.to_owned();
            if block.event != "payment" || block.data.is_empty() {
                continue;
            }
            let data = block.json();
            let code = data["watch_code"].as_str().map(str::to_owned);
            let code = code.unwrap_or_else(|| path.replace("/watch/", ""));
            let (now, state) = (town.now(), &mut *town.state());
            let gateway = &state.gateway;
            state.book.heard(gateway, channel, &code, asked, now, &data);
        }
        town.event();
    }
}

/// Answers a webhook.
pub async fn take(town: &Town, request: Request<Bytes>, is_well: bool) -> Answered {
    let _written = Written(&town.idle);
    town.event();
    let id = request.headers()["webhook-id"].to_str().unwrap().to_owned();
    let body = std::str::from_utf8(request.body()).unwrap();
    let (mood, late) = {
        let (now, state) = (town.now(), &mut *town.state());
        state.book.webhook(&state.gateway, &id, now, body);
        let mood = if is_well { 0 } else { state.dice.below(100) };
        (mood, state.dice.milliseconds(0, 10_000))
    };
    let status = match mood {
        0..50 => 204,
        50..60 => {
            sleep(late).await;
            200
        }
        60..75 => 500,
        75..80 => 302,
        80..85 => 503,
        85..86 => 410,
        86..94 => return Err(Unanswered::Broken),
        94..97 => return Err(Unanswered::NotSent),
        _ => std::future::pending().await,
    };
    if matches!(status, 200 | 204 | 410) {
        town.state().book.webhook_taken(&id);
    }
    town.event();
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    if status == 503 {
        let headers = answer.headers_mut();
        headers.insert("retry-after", "120".parse().unwrap());
    }
    Ok(answer)
}
