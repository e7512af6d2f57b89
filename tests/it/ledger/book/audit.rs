//! What must hold in the end, when all has gone well for long enough.

use std::time::Duration;

use serde_json::Value;

use super::*;

/// The longest time after which the program asks again for a payment that is young enough.
const ASKED_WITHIN: Duration = Duration::from_secs(30 * 60);
/// A message is tried for three days.
const TRIED_FOR: Duration = Duration::from_secs(2 * 24 * 3600);

impl Book {
    /// The gateway and the app have been well since `healed`, for longer than a message waits at most. Nobody has asked
    /// for a payment since, but who reads all events, if somebody does.
    pub fn audit_background(
        &mut self,
        gateway: &Gateway,
        healed: Duration,
        now: Duration,
        has_reader: bool,
    ) {
        for watch_code in self.watch_codes() {
            let Some(payment) = gateway.payment(&watch_code) else {
                continue;
            };
            let polled_until = self.followed_since(gateway, &watch_code) + self.give_up_after;
            let is_polled = healed + ASKED_WITHIN < polled_until;
            let is_paid = payment.last_status() == "completed";
            let is_known = self.completed.contains_key(&watch_code);
            let is_reborn = self.reborn.contains(&watch_code);
            if has_reader && is_polled && is_paid && !is_known && !is_reborn {
                let what = format!("no event says that {watch_code} is paid");
                self.fault(now, what);
            }
            let has_heard_the_end = self.has_heard_the_end(gateway, &watch_code, healed, now);
            if !self.has_webhook || has_heard_the_end {
                continue;
            }
            if is_known || is_polled && is_paid {
                let what = format!("the app has got no webhook of {watch_code}, which is paid");
                self.fault(now, what);
            }
            let is_still_polled = now < payment.asked + ASKED_WITHIN;
            let may_be_given_up = payment.asked + TRIED_FOR < healed;
            let is_told = self.has_taken("payment.polling_ended", &watch_code);
            if !is_still_polled && !may_be_given_up && !is_told {
                let what = format!("nobody polls {watch_code} any more, and the app was not told");
                self.fault(now, what);
            }
        }
    }

    /// The same, where the app has asked for each payment.
    pub fn audit(&mut self, gateway: &Gateway, healed: Duration, now: Duration) {
        for watch_code in self.watch_codes() {
            let Some(payment) = gateway.payment(&watch_code) else {
                continue;
            };
            let is_paid = payment.last_status() == "completed";
            let is_reborn = self.reborn.contains(&watch_code);
            if is_paid && !is_reborn && !self.completed.contains_key(&watch_code) {
                self.fault(
                    now,
                    format!("the app never hears that {watch_code} is paid"),
                );
            }
            if !self.has_webhook {
                continue;
            }
            let is_known = self.completed.contains_key(&watch_code);
            let has_heard_the_end = self.has_heard_the_end(gateway, &watch_code, healed, now);
            if is_known && !has_heard_the_end {
                let what = format!("the app has got no webhook of {watch_code}, which is paid");
                self.fault(now, what);
            }
        }
        self.audit_references(gateway, now);
    }

    /// Whether the app has taken the message that a payment is completed, or cannot get it any more.
    fn has_heard_the_end(
        &self,
        gateway: &Gateway,
        watch_code: &str,
        healed: Duration,
        now: Duration,
    ) -> bool {
        let payment = gateway.payment(watch_code);
        let first = payment.and_then(|payment| payment.first_completed());
        let is_given_up = first.is_some_and(|first| first + TRIED_FOR < healed);
        let is_let_go = self.reborn.contains(watch_code)
            || payment.is_none_or(|payment| now >= payment.given + self.give_up_after + OPEN_FOR);
        is_given_up || is_let_go || self.has_taken("payment.completed", watch_code)
    }

    /// Of the completed payments of a reference each but the first has the name of another.
    fn audit_references(&mut self, gateway: &Gateway, now: Duration) {
        let mut faults = Vec::new();
        for (reference, paid) in &self.paid {
            self.figures.paid_twice += u64::from(paid.len() > 1);
            for channel in FLAGGED {
                let twice = |code: &&String| self.completed[*code].twice.get(&channel);
                let unflagged: Vec<_> = paid
                    .iter()
                    .filter(|code| twice(code) == Some(&None))
                    .collect();
                for (i, one) in unflagged.iter().enumerate() {
                    for other in &unflagged[i + 1..] {
                        if !self.may_be_apart(gateway, one, other) {
                            faults.push(format!(
                                "{channel:?}: {reference} is paid with {one} and {other}, and nobody says so"
                            ));
                        }
                    }
                }
                for code in paid {
                    if let Some(Some(other)) = twice(&code)
                        && (other == code || !paid.contains(other))
                    {
                        faults.push(format!("{channel:?}: {code} is paid twice with {other}"));
                    }
                }
            }
        }
        self.figures.completed += self.completed.len() as u64;
        faults.into_iter().for_each(|fault| self.fault(now, fault));
    }

    /// Whether the first of them may have been let go before the second was completed.
    fn may_be_apart(&self, gateway: &Gateway, one: &str, other: &str) -> bool {
        let from = |code: &str| {
            gateway
                .payment(code)
                .and_then(|payment| payment.first_completed())
        };
        let (Some(first), Some(second)) = (from(one), from(other)) else {
            return true;
        };
        if self.reborn.contains(one) || self.reborn.contains(other) {
            return true;
        }
        let gap = |from: Duration, code: &str| self.completed[code].at.saturating_sub(from);
        gap(first, other).max(gap(second, one)) + SLACK >= self.ttl
    }

    /// What is kept stands in the list.
    pub fn audit_list(&mut self, gateway: &Gateway, now: Duration, list: &[Value]) {
        for watch_code in self.watch_codes() {
            let listed = list
                .iter()
                .find(|payment| payment["watch_code"] == watch_code.as_str());
            if self.may_be_let_go(gateway, &watch_code, now) {
                continue;
            }
            let is_completed = self.completed.contains_key(&watch_code);
            let is_right =
                listed.is_some_and(|listed| (listed["status"] == "completed") == is_completed);
            if !is_right {
                self.fault(now, format!("{watch_code} is listed as {listed:?}"));
            }
        }
    }
}
