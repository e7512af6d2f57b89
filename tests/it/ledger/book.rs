//! The app's ledger, kept from answers, events, lists and webhooks alone, and held against what was promised.

mod audit;
mod starts;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

pub use self::starts::{Ask, Sent};
use super::figures::Figures;
use super::gateway::Gateway;

/// An open payment is let go this long after `watch.give_up_after`.
const OPEN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// What the program calls the time of an answer is at most this much before the answer came.
const SLACK: Duration = Duration::from_secs(20);
/// How much is shown of a round that failed.
const SHOWN: usize = 1000;

/// Where the app hears of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    Watch,
    List,
    Events,
    Webhook,
}

/// Where `paid_twice_with` stands.
const FLAGGED: [Channel; 3] = [Channel::List, Channel::Events, Channel::Webhook];

pub struct Book {
    /// `start.idempotency_ttl`, which finished payments are kept for at least.
    ttl: Duration,
    give_up_after: Duration,
    pub has_webhook: bool,
    /// The payments whose codes a start was answered with, by watch code.
    shown: BTreeMap<String, Shown>,
    /// Those of which a start was answered when the program may have forgotten them: another payment may have their codes.
    reborn: BTreeSet<String>,
    keys: HashMap<String, KeyUse>,
    /// The watch codes of each reference, in the order in which they were shown.
    references: BTreeMap<String, Vec<String>>,
    /// Those of each reference that are completed, whether they were shown or not.
    paid: BTreeMap<String, BTreeSet<String>>,
    /// Starts that were sent and have no answer yet, and those that will never have one.
    unanswered: Vec<Sent>,
    lost: Vec<Sent>,
    /// The payments that some channel has called completed.
    completed: BTreeMap<String, Completed>,
    messages: HashMap<String, Message>,
    pub figures: Figures,
    faults: Vec<String>,
    log: VecDeque<String>,
}

/// A payment that the app knows.
struct Shown {
    code: String,
    asked: Ask,
    /// When the gateway first gave its codes.
    given: Duration,
    /// The keys that it was answered under, and the earliest moment at which each can have been kept.
    keys: HashMap<String, Duration>,
    at: Duration,
}

/// What was answered under a key last.
struct KeyUse {
    watch_code: String,
    asked: Ask,
    /// The earliest moment at which it can have been kept.
    since: Duration,
}

struct Completed {
    at: Duration,
    mark: String,
    /// What each channel says of another payment of the reference.
    twice: HashMap<Channel, Option<String>>,
}

/// A webhook, by its id.
struct Message {
    kind: String,
    watch_code: String,
    body: String,
    /// The app answered with a 2xx, or with a 410.
    is_taken: bool,
}

impl Book {
    pub fn new(ttl: Duration, give_up_after: Duration, has_webhook: bool) -> Self {
        Self {
            ttl,
            give_up_after,
            has_webhook,
            shown: BTreeMap::new(),
            reborn: BTreeSet::new(),
            keys: HashMap::new(),
            references: BTreeMap::new(),
            paid: BTreeMap::new(),
            unanswered: Vec::new(),
            lost: Vec::new(),
            completed: BTreeMap::new(),
            messages: HashMap::new(),
            figures: Figures::default(),
            faults: Vec::new(),
            log: VecDeque::new(),
        }
    }

    /// For who has to find out why a round failed.
    pub fn note(&mut self, now: Duration, what: String) {
        if self.log.len() == SHOWN {
            self.log.pop_front();
        }
        self.log.push_back(format!("{now:?} {what}"));
    }

    pub fn fault(&mut self, now: Duration, what: String) {
        self.note(now, format!("FAULT: {what}"));
        self.faults.push(format!("{now:?} {what}"));
    }

    /// What was not as promised, with what has happened before.
    pub fn faults(&self) -> Option<String> {
        let log = || self.log.iter().cloned().collect::<Vec<_>>().join("\n");
        (!self.faults.is_empty()).then(|| format!("{}\n{}", log(), self.faults.join("\n")))
    }

    pub fn process_ended(&mut self, now: Duration) {
        self.note(now, "the process has ended".to_owned());
        self.lost.append(&mut self.unanswered);
    }

    pub fn watch_codes(&self) -> Vec<String> {
        self.shown.keys().cloned().collect()
    }

    /// The app hears a status of a payment in answer to something that it asked then.
    pub fn heard(
        &mut self,
        gateway: &Gateway,
        channel: Channel,
        watch_code: &str,
        asked: Duration,
        now: Duration,
        data: &Value,
    ) {
        let (status, mark) = (data["status"].as_str().unwrap(), data["mark"].as_str());
        self.note(
            now,
            format!("{channel:?}: {watch_code} is {status} {mark:?}"),
        );
        let what = format!("{channel:?}: {watch_code}: {data}");
        if !is_said(gateway, channel, watch_code, status, mark) {
            self.fault(now, format!("the gateway never said this: {what}"));
        }
        let is_completed = status == "completed";
        let let_go = self.may_be_let_go(gateway, watch_code, now);
        if let Some(before) = self.completed.get(watch_code)
            && before.at <= asked
            && !let_go
            && (!is_completed || mark != Some(&before.mark))
        {
            self.fault(now, format!("a final status is taken back: {what}"));
        }
        if is_completed {
            self.completes(gateway, channel, watch_code, now, data);
        }
        if channel != Channel::Watch {
            self.check_identity(gateway, watch_code, now, data);
        }
    }

    fn completes(
        &mut self,
        gateway: &Gateway,
        channel: Channel,
        watch_code: &str,
        now: Duration,
        data: &Value,
    ) {
        let let_go = self.may_be_let_go(gateway, watch_code, now);
        let completed = self.completed.entry(watch_code.to_owned());
        let completed = completed.or_insert_with(|| Completed {
            at: now,
            mark: data["mark"].as_str().unwrap_or_default().to_owned(),
            twice: HashMap::new(),
        });
        if channel == Channel::Watch {
            return;
        }
        let other = data["paid_twice_with"].as_str().map(str::to_owned);
        let before = completed.twice.insert(channel, other.clone());
        if let Some(before) = before
            && before != other
            && !let_go
        {
            let what = format!("{watch_code} was paid twice with {before:?}: {data}");
            self.fault(now, what);
        }
        if let Some(reference) = data["reference"].as_str() {
            let paid = self.paid.entry(reference.to_owned()).or_default();
            paid.insert(watch_code.to_owned());
        }
    }

    /// What is said of a payment is said of the one that was shown.
    fn check_identity(&mut self, gateway: &Gateway, watch_code: &str, now: Duration, data: &Value) {
        let Some(shown) = self.shown.get(watch_code) else {
            return;
        };
        let is_it = data["code"] == shown.code.as_str()
            && data["watch_code"] == watch_code
            && data["reference"].as_str() == shown.asked.reference.as_deref()
            && data["requested_amount"] == shown.asked.amount;
        if !is_it && !self.may_be_let_go(gateway, watch_code, now) {
            let asked = shown.asked.clone();
            self.fault(
                now,
                format!("this is of another order than {asked:?}: {data}"),
            );
        }
    }

    /// A webhook has come.
    pub fn webhook(&mut self, gateway: &Gateway, id: &str, now: Duration, body: &str) {
        let message: Value = serde_json::from_str(body).unwrap();
        let kind = message["type"].as_str().unwrap().to_owned();
        let data = &message["data"];
        let watch_code = data["watch_code"].as_str().unwrap().to_owned();
        let known = self.messages.get(id);
        if known.is_some_and(|known| known.body != body) {
            let what = format!("another body under the same id {id}: {body}");
            self.fault(now, what);
        }
        let is_other = |(other, known): (&String, &Message)| {
            other != id && known.watch_code == watch_code && known.kind == kind
        };
        if let Some(first) = self.messages.iter().find(|known| is_other(*known))
            && !self.may_be_let_go(gateway, &watch_code, now)
        {
            let first = first.0.clone();
            self.fault(
                now,
                format!("{first} and {id} are the same message: {body}"),
            );
        }
        self.messages.entry(id.to_owned()).or_insert(Message {
            kind: kind.clone(),
            watch_code: watch_code.clone(),
            body: body.to_owned(),
            is_taken: false,
        });
        if kind == "payment.completed" && data["status"] != "completed" {
            self.fault(now, format!("completed, and it is not: {body}"));
        }
        self.figures.webhooks += 1;
        // It was made before: what it says held then.
        self.heard(
            gateway,
            Channel::Webhook,
            &watch_code,
            Duration::ZERO,
            now,
            data,
        );
    }

    pub fn webhook_taken(&mut self, id: &str) {
        if let Some(message) = self.messages.get_mut(id) {
            message.is_taken = true;
        }
    }

    fn has_taken(&self, kind: &str, watch_code: &str) -> bool {
        let mut messages = self.messages.values();
        messages.any(|message| {
            message.is_taken && message.kind == kind && message.watch_code == watch_code
        })
    }

    /// Whether the program may have forgotten the payment of this watch code by now.
    fn may_be_let_go(&self, gateway: &Gateway, watch_code: &str, now: Duration) -> bool {
        let Some(payment) = gateway.payment(watch_code) else {
            return true;
        };
        if self.reborn.contains(watch_code) {
            return true;
        }
        let finished = payment.first_completed();
        finished.is_some_and(|finished| now + SLACK >= finished + self.ttl)
            || now >= payment.given + self.give_up_after + OPEN_FOR
    }

    /// When the gateway gave the codes of the youngest payment of the same reference.
    fn followed_since(&self, gateway: &Gateway, watch_code: &str) -> Duration {
        let shown = &self.shown[watch_code];
        let reference = shown.asked.reference.as_ref();
        let same = reference.and_then(|reference| self.references.get(reference));
        let youngest = same
            .into_iter()
            .flatten()
            .filter_map(|other| gateway.payment(other).map(|payment| payment.given));
        youngest.max().unwrap_or(shown.given)
    }
}

/// Whether the gateway has said this about that payment. Completed counts on a connection of its own alone, and nothing
/// need have been said of a payment that is only shown as started.
fn is_said(
    gateway: &Gateway,
    channel: Channel,
    watch_code: &str,
    status: &str,
    mark: Option<&str>,
) -> bool {
    let Some(mark) = mark else {
        return status == "created" && channel != Channel::Watch;
    };
    let said = gateway
        .payment(watch_code)
        .map_or(&[][..], |payment| payment.said());
    said.iter().any(|said| {
        said.status == Some(status)
            && said.mark == mark
            && (said.on_its_own || status != "completed")
    })
}
