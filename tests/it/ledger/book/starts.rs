//! What the answers to starts must be.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// What a start asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub key: Option<String>,
    pub reference: Option<String>,
    pub amount: u64,
    /// A field that is forwarded.
    pub order: Option<String>,
    pub redirect: Option<String>,
}

/// A start that was sent.
#[derive(Clone)]
pub struct Sent {
    pub number: u64,
    pub at: Duration,
    pub ask: Ask,
}

impl Ask {
    pub fn body(&self) -> String {
        let mut body = json!({"amount": self.amount});
        let fields = [
            ("reference", &self.reference),
            ("order", &self.order),
            ("redirect", &self.redirect),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        body.to_string()
    }

    /// Whether both ask for the same payment.
    fn is(&self, other: &Self) -> bool {
        let meaning = |ask: &Self| (ask.amount, ask.order.clone(), ask.reference.clone());
        meaning(self) == meaning(other)
    }

    fn pay_url(&self, code: &str) -> String {
        let redirect = self.redirect.as_ref().map(|redirect| {
            let escaped = redirect.replace(':', "%3A").replace('/', "%2F");
            format!("?redirect={escaped}")
        });
        let redirect = redirect.unwrap_or_default();
        format!("http://localhost:8081/pay/{code}{redirect}")
    }
}

impl Book {
    /// A start is sent.
    pub fn sends(&mut self, now: Duration, ask: &Ask) -> Sent {
        self.figures.starts += 1;
        let sent = Sent {
            number: self.figures.starts,
            at: now,
            ask: ask.clone(),
        };
        self.note(now, format!("start {} sent: {ask:?}", sent.number));
        self.unanswered.push(sent.clone());
        sent
    }

    /// It is answered.
    pub fn answered(
        &mut self,
        gateway: &Gateway,
        sent: &Sent,
        now: Duration,
        status: u16,
        body: &Value,
    ) {
        let (number, ask) = (sent.number, &sent.ask);
        self.note(now, format!("start {number} answered: {status} {body}"));
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        if status == 200 {
            let (code, watch_code) = (text("code"), text("watch_code"));
            if text("pay_url") != ask.pay_url(code) {
                self.fault(now, format!("not the page of {ask:?}: {body}"));
            }
            self.check_codes(gateway, sent, now, code, watch_code);
            self.check_key(sent, now, watch_code);
            self.check_reference(gateway, sent, now, watch_code);
            self.keep(gateway, sent, now, code, watch_code);
        } else {
            self.refused(gateway, ask, now, body);
        }
        self.unanswered.retain(|other| other.number != number);
    }

    /// What a refusal says of an older payment is of this key or this reference.
    fn refused(&mut self, gateway: &Gateway, ask: &Ask, now: Duration, body: &Value) {
        let error = body["error"].as_str().unwrap();
        *self.figures.refused.entry(error.to_owned()).or_default() += 1;
        let Some(watch_code) = body["watch_code"].as_str() else {
            return;
        };
        let payment = gateway.payment(watch_code);
        let is_completed = payment.is_some_and(|payment| payment.first_completed().is_some());
        if error == "reference_paid" && !is_completed {
            self.fault(now, format!("the gateway never called it paid: {body}"));
        }
        let Some(shown) = self.shown.get(watch_code) else {
            return;
        };
        let key = ask.key.as_ref();
        let is_its_own = match error {
            "idempotency_mismatch" => key.is_some_and(|key| shown.keys.contains_key(key)),
            _ => ask.reference.is_some() && shown.asked.reference == ask.reference,
        };
        if !is_its_own && !self.may_be_let_go(gateway, watch_code, now) {
            self.fault(
                now,
                format!("this is of another order than {ask:?}: {body}"),
            );
        }
    }

    /// One order never gets what another one has.
    fn check_codes(
        &mut self,
        gateway: &Gateway,
        sent: &Sent,
        now: Duration,
        code: &str,
        watch_code: &str,
    ) {
        let has_one =
            |(other, shown): &(&String, &Shown)| *other == watch_code || shown.code == code;
        let others = self.shown.iter().filter(has_one);
        let others: Vec<_> = others.map(|(other, _)| other.clone()).collect();
        for other in others {
            let shown = &self.shown[&other];
            let has_both = other == watch_code && shown.code == code;
            let Some(why) = self.is_of_another(&other, sent, now, has_both) else {
                continue;
            };
            if !self.may_be_let_go(gateway, &other, now) {
                let (before, ask) = (&shown.asked, &sent.ask);
                let what = format!("{other} is of {before:?}, and {ask:?} gets it: {why}");
                self.fault(now, what);
            }
        }
    }

    /// Why this payment may not be the answer to this start; `None` if it may.
    fn is_of_another(
        &self,
        watch_code: &str,
        sent: &Sent,
        now: Duration,
        has_both: bool,
    ) -> Option<&'static str> {
        let (shown, ask) = (&self.shown[watch_code], &sent.ask);
        let is_replay = self.is_replay(shown, sent);
        let completed = self.completed.get(watch_code);
        if !has_both {
            Some("one of two codes")
        } else if shown.asked.reference != ask.reference {
            Some("another reference")
        } else if shown.asked.amount != ask.amount {
            Some("another amount")
        } else if is_replay {
            None
        } else if completed.is_some_and(|completed| completed.at <= sent.at) {
            Some("it is completed")
        } else if self.is_of_other_key(shown, sent, now) {
            Some("another live key")
        } else {
            None
        }
    }

    /// Whether it may have been kept under the key of this start before: maybe by one whose answer nobody got.
    fn is_replay(&self, shown: &Shown, sent: &Sent) -> bool {
        let Some(key) = &sent.ask.key else {
            return false;
        };
        let of_key = |other: &Sent| other.ask.key.as_ref() == Some(key) && other.ask.is(&sent.ask);
        let others = self.unanswered.iter().chain(&self.lost);
        let mut others = others.filter(|other| other.number != sent.number);
        shown.keys.contains_key(key) || others.any(of_key)
    }

    fn is_of_other_key(&self, shown: &Shown, sent: &Sent, now: Duration) -> bool {
        let ask = &sent.ask;
        let has_same_fields = ask.order.is_some() && ask.order == shown.asked.order;
        let is_live = |since: &Duration| now < *since + self.ttl;
        // One without a key may have been the first of two at once.
        let may_be_first = ask.key.is_none() && shown.at > sent.at;
        ask.reference.is_none()
            && !has_same_fields
            && !may_be_first
            && shown.keys.values().any(is_live)
    }

    /// One key has one payment as long as it lives.
    fn check_key(&mut self, sent: &Sent, now: Duration, watch_code: &str) {
        let ask = &sent.ask;
        let Some(key) = &ask.key else { return };
        let Some(last) = self.keys.get(key) else {
            return;
        };
        let is_live = now < last.since + self.ttl;
        if is_live && last.watch_code != watch_code {
            let first = last.watch_code.clone();
            self.fault(now, format!("{key} has {first}, and gets {watch_code}"));
        } else if is_live && !last.asked.is(ask) {
            let first = last.asked.clone();
            self.fault(now, format!("{ask:?} gets the answer to {first:?}"));
        }
    }

    /// One reference has one payment as long as it is open.
    fn check_reference(&mut self, gateway: &Gateway, sent: &Sent, now: Duration, watch_code: &str) {
        let Some(reference) = &sent.ask.reference else {
            return;
        };
        let all = self.references.get(reference).cloned().unwrap_or_default();
        let is_known = all.iter().any(|other| other == watch_code);
        // A key is looked at first, and has its answer.
        let key = sent.ask.key.as_ref();
        let same = |other: &Sent| other.number != sent.number && other.ask.key.as_ref() == key;
        let is_replay = key.is_some() && self.lost.iter().any(same);
        if is_known || is_replay {
            return;
        }
        for paid in &all {
            let completed = self.completed.get(paid);
            let is_paid = completed.is_some_and(|completed| completed.at <= sent.at);
            if is_paid && !self.may_be_let_go(gateway, paid, now) {
                let what = format!("{reference} is paid with {paid}, and gets {watch_code}");
                self.fault(now, what);
            }
        }
        let Some(last) = all.last() else { return };
        let is_there = self.shown[last].at <= sent.at;
        if is_there && !self.may_be_followed(gateway, last, watch_code, now) {
            let what = format!("{reference} has {last}, which is open, and gets {watch_code}");
            self.fault(now, what);
        }
    }

    /// Whether this payment, of the same reference, may come after that one.
    fn may_be_followed(&self, gateway: &Gateway, last: &str, next: &str, now: Duration) -> bool {
        /// From the look at the older payment to the start of the new one.
        const TURN: Duration = Duration::from_secs(60);
        let (Some(payment), Some(next)) = (gateway.payment(last), gateway.payment(next)) else {
            return true;
        };
        let is_recent = |at: Duration| at + TURN >= next.last_given;
        let is_other = |status: &str| status != "created" && status != "completed";
        // The last status before then, and all since. One of an earlier process may have been forgotten with it.
        let mut in_force = Vec::new();
        for said in payment.said().iter().rev() {
            let Some(status) = said.status else { continue };
            if status == "completed" && !said.on_its_own {
                continue;
            }
            in_force.push(status);
            if !is_recent(said.at) && said.process == gateway.process() {
                break;
            }
        }
        let mut said = payment.said().iter();
        let is_asked = said.any(|said| is_recent(said.at) && said.status != Some("completed"));
        let is_old = now >= self.shown[last].given + self.give_up_after;
        in_force.into_iter().any(is_other)
            || is_old && is_asked
            || self.may_be_let_go(gateway, last, now)
    }

    fn keep(
        &mut self,
        gateway: &Gateway,
        sent: &Sent,
        now: Duration,
        code: &str,
        watch_code: &str,
    ) {
        let ask = &sent.ask;
        let known = self.shown.get(watch_code);
        if self.may_be_let_go(gateway, watch_code, now) {
            self.reborn.insert(watch_code.to_owned());
            if known.is_some_and(|shown| !shown.asked.is(ask)) {
                self.shown.remove(watch_code);
            }
        }
        let payment = gateway.payment(watch_code);
        let given = payment.map_or(now, |payment| payment.given);
        if !self.shown.contains_key(watch_code) {
            self.figures.payments += 1;
        }
        let shown = self.shown.entry(watch_code.to_owned());
        let shown = shown.or_insert_with(|| Shown {
            code: code.to_owned(),
            asked: ask.clone(),
            given,
            keys: HashMap::new(),
            at: now,
        });
        if let Some(key) = &ask.key {
            // It may have been kept by any of these.
            let same = |other: &&Sent| other.ask.key.as_ref() == Some(key);
            let all = self.unanswered.iter().chain(&self.lost).filter(same);
            let since = all.map(|other| other.at).min().unwrap_or(sent.at);
            shown.keys.entry(key.clone()).or_insert(since);
            let known = self.keys.get(key);
            if known.is_none_or(|known| known.watch_code != watch_code) {
                let key_use = KeyUse {
                    watch_code: watch_code.to_owned(),
                    asked: ask.clone(),
                    since,
                };
                self.lost.retain(|other| !same(&other));
                self.keys.insert(key.clone(), key_use);
            }
        }
        if let Some(reference) = &ask.reference {
            let all = self.references.entry(reference.clone()).or_default();
            if !all.iter().any(|other| other == watch_code) {
                all.push(watch_code.to_owned());
            }
        }
    }

    /// Nobody waits for the answer any more.
    pub fn hangs_up(&mut self, sent: Sent) {
        self.unanswered.retain(|other| other.number != sent.number);
        self.lost.push(sent);
    }
}
