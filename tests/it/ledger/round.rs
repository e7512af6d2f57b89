//! One round: a gateway, an app, and a program that is killed or ended and started again, until all goes well.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hyper::{Request, StatusCode};
use tempfile::TempDir;
use tillgate::app::{Answering, Sidecar, World};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::book::{Ask, Book, Channel};
use super::figures::Figures;
use super::gateway::{self, Gateway};
use super::shop::{self, Shop};
use super::town::{Town, copy_as_killed, wait_for_lock};
use crate::dice::Dice;

/// Longer than any message waits for its next try. Minute by minute, so that a write that is not waited for costs no more.
const MINUTES: u64 = 12 * 60;

impl World for Town {
    fn answer(&self, request: Request<Bytes>) -> Answering<'_> {
        Box::pin(async move {
            match request.uri().host() {
                Some("app.example") => {
                    let is_well = self.state().gateway.is_healed();
                    shop::take(self, request, is_well).await
                }
                _ => gateway::answer(self, request).await,
            }
        })
    }
}

struct Round {
    dice: Dice,
    directory: TempDir,
    settings: Vec<(&'static str, String)>,
    /// Where the store is, if it is in a file; then there are so many processes.
    store: Option<PathBuf>,
    processes: u64,
    town: Arc<Town>,
    orders: Vec<Ask>,
    has_reader: bool,
}

/// How a process ends.
enum End {
    Killed,
    Ended,
}

/// Plays the round of this seed.
pub fn play(seed: u64) -> Result<Figures, String> {
    let mut round = Round::new(Dice::new(seed));
    for process in 0..round.processes {
        let runtime = round.runtime();
        let is_last = process + 1 == round.processes;
        let end = runtime.block_on(round.process(is_last));
        drop(runtime);
        if let (End::Ended, Some(store)) = (end, &round.store) {
            wait_for_lock(store);
        }
        if let Some(faults) = round.town.state().book.faults() {
            return Err(faults);
        }
    }
    let mut state = round.town.state();
    let mut figures = std::mem::take(&mut state.book.figures);
    figures.rounds = 1;
    Ok(figures)
}

impl Round {
    fn new(mut dice: Dice) -> Self {
        let shared = Path::new("/dev/shm");
        let directory = if shared.is_dir() {
            TempDir::new_in(shared)
        } else {
            TempDir::new()
        };
        let directory = directory.unwrap();
        let mut one_of = |all: &[(&str, u64)]| {
            let (text, seconds) = all[dice.index(all.len())];
            (text.to_owned(), Duration::from_secs(seconds))
        };
        let (ttl_text, ttl) = one_of(&[("1h", 3600), ("24h", 24 * 3600)]);
        let (give_up_text, give_up_after) =
            one_of(&[("10m", 600), ("1h", 3600), ("24h", 24 * 3600)]);
        let mut settings = vec![
            ("start.idempotency_ttl", ttl_text),
            ("watch.give_up_after", give_up_text),
            ("start.forward_fields", r#"["order"]"#.to_owned()),
            ("redirect.allowed", r#"["https://shop.example"]"#.to_owned()),
        ];
        if dice.percent(50) {
            settings.push(("watch.fresh_for", "0s".to_owned()));
        }
        if dice.percent(80) {
            settings.push(("start.burst", "1000".to_owned()));
        }
        let has_webhook = dice.percent(75);
        if has_webhook {
            let keys = directory.path().join("keys");
            let key = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
            std::fs::write(&keys, key).unwrap();
            let keys = keys.to_str().unwrap().to_owned();
            settings.push(("webhook.url", "http://app.example/events".to_owned()));
            settings.push(("webhook.secret_file", keys));
        }
        let is_file = dice.percent(60);
        let gateway = Gateway::new(&mut dice, give_up_after);
        let book = Book::new(ttl, give_up_after, has_webhook);
        let town = Town::new(dice.fork(), gateway, book);
        town.idle.set_slow(Some(dice.fork()));
        Self {
            store: is_file.then(|| directory.path().join("store")),
            processes: if is_file { 2 + dice.below(5) } else { 1 },
            has_reader: dice.percent(50),
            directory,
            settings,
            town: Arc::new(town),
            orders: Vec::new(),
            dice,
        }
    }

    fn runtime(&self) -> Runtime {
        let town = self.town.clone();
        let mut builder = Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        builder.on_thread_park(move || town.idle.wait());
        builder.build().unwrap()
    }

    fn sidecar(&self) -> Arc<Sidecar> {
        let store = self
            .store
            .as_ref()
            .map(|store| format!("file:{}", store.display()));
        let store = store.unwrap_or_else(|| "memory:".to_owned());
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let settings: Vec<_> = settings.chain([("store.url", store.as_str())]).collect();
        let sidecar = Sidecar::within(&settings, self.town.clone(), true);
        Arc::new(sidecar.expect("good settings"))
    }

    /// One process of the program.
    async fn process(&mut self, is_last: bool) -> End {
        let town = self.town.clone();
        let is_killed = !is_last && self.dice.percent(75);
        let kill_after = is_killed.then(|| self.dice.below(120));
        town.begin(kill_after);
        let sidecar = self.sidecar();
        town.idle.watch(Some(sidecar.clone()));
        let mut shop = Shop::new(&town, &sidecar, self.dice.fork());
        let swept = sidecar.clone();
        let sweeper = tokio::spawn(async move { swept.keep_sweeping().await });
        if self.has_reader {
            let (town, sidecar) = (town.clone(), sidecar.clone());
            shop.tasks.spawn(async move {
                shop::stream(&town, &sidecar, "/events", Channel::Events).await;
            });
        }
        let steps = 5 + self.dice.below(50);
        let orders = &mut self.orders;
        let ran = async {
            for _ in 0..steps {
                shop.step(orders).await;
            }
        };
        let is_over = tokio::select! {
            biased;
            () = town.kill.notified() => false,
            () = ran => true,
        };
        if !is_over || is_killed {
            self.kill(shop).await;
            return End::Killed;
        }
        if is_last {
            self.conclude(&sidecar).await;
        }
        self.end(shop, sweeper, sidecar).await;
        End::Ended
    }

    /// As SIGKILL ends it: what the store's file holds at this moment is all that is left.
    async fn kill(&mut self, shop: Shop) {
        for _ in 0..self.dice.below(8) {
            tokio::task::yield_now().await;
        }
        let store = self.store.clone().unwrap();
        let next = self
            .directory
            .path()
            .join(format!("after-{}", self.dice.below(1 << 40)));
        copy_as_killed(&store, &next);
        self.store = Some(next);
        self.town.idle.watch(None);
        let pause = gateway::a_while(&mut self.dice) / 10;
        self.town.end(pause);
        self.town.state().book.figures.kills += 1;
        drop(shop);
    }

    /// As SIGTERM ends it.
    async fn end(&mut self, mut shop: Shop, sweeper: JoinHandle<()>, sidecar: Arc<Sidecar>) {
        sidecar.drain();
        sweeper.abort();
        let _ = sweeper.await;
        while shop.tasks.join_next().await.is_some() {}
        drop(shop);
        self.town.idle.watch(None);
        let sidecar = Arc::into_inner(sidecar).expect("nobody else has it");
        sidecar.end().await;
        let pause = gateway::a_while(&mut self.dice) / 10;
        self.town.end(pause);
        self.town.state().book.figures.restarts += 1;
    }

    /// From now on all goes well, and in the end the app's ledger is right.
    async fn conclude(&mut self, sidecar: &Sidecar) {
        let town = &self.town;
        let healed = town.now();
        town.idle.set_slow(None);
        {
            let state = &mut *town.state();
            state.gateway.heal(healed);
            state
                .book
                .note(healed, "all is well from now on".to_owned());
        }
        for _ in 0..MINUTES {
            sleep(Duration::from_secs(60)).await;
        }
        {
            let (now, state) = (town.now(), &mut *town.state());
            let book = &mut state.book;
            book.audit_background(&state.gateway, healed, now, self.has_reader);
        }
        self.ask_for_all(sidecar).await;
        sleep(Duration::from_secs(3600)).await;
        let list = shop::list(town, sidecar).await;
        let (now, state) = (town.now(), &mut *town.state());
        state.book.audit_list(&state.gateway, now, &list);
        state.book.audit(&state.gateway, healed, now);
    }

    /// The app asks for each payment that it was ever given: some at once, as many as find a turn.
    async fn ask_for_all(&self, sidecar: &Sidecar) {
        let town = &self.town;
        let codes = town.state().book.watch_codes();
        for codes in codes.chunks(16) {
            let asked = codes.iter().map(async |code| {
                let status = shop::watch(town, sidecar, code, "", true).await;
                let mut state = town.state();
                if status != StatusCode::OK && state.gateway.payment(code).is_some() {
                    let what = format!("no answer about {code}: {status}");
                    state.book.fault(town.now(), what);
                }
            });
            join_all(asked).await;
        }
    }
}
