//! The gateway: it reuses codes, changes its mind, loses answers and comes late, as the dice have it.

mod answers;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};
use tillgate::app::Unanswered;

use self::answers::{failure, response, started, unknown};
use super::town::Town;
use crate::dice::Dice;

/// What an exchange is answered with, if it is.
pub type Answered = Result<Response<Bytes>, Unanswered>;

const STATUSES: [&str; 4] = ["created", "completed", "cancelled", "on_hold"];
/// `gateway.timeout` of the program.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Gateway {
    payments: Vec<Payment>,
    by_watch_code: HashMap<String, usize>,
    /// Of a hundred exchanges, how many go wrong.
    trouble: u64,
    /// Of a hundred starts, how many are answered with codes that were given before.
    reuse: u64,
    /// It answers at once.
    is_prompt: bool,
    /// `watch.give_up_after` of the program.
    give_up_after: Duration,
    process: u64,
    /// Since when all goes well, and no status changes any more.
    healed: Option<Duration>,
}

pub struct Payment {
    pub code: String,
    pub watch_code: String,
    amount: u64,
    order: Option<String>,
    /// When its codes were first given.
    pub given: Duration,
    /// And last.
    pub last_given: Duration,
    /// When it was asked for last.
    pub asked: Duration,
    /// Each status, and since when it is the payment's.
    history: Vec<(Duration, &'static str)>,
    said: Vec<Said>,
}

/// An answer about a payment that may have reached the program.
#[derive(Clone, Debug)]
pub struct Said {
    pub at: Duration,
    /// `None`: the gateway does not know the payment.
    pub status: Option<&'static str>,
    /// Names the time in which it had that status.
    pub mark: String,
    pub on_its_own: bool,
    /// In which process of the program.
    pub process: u64,
}

/// How an exchange goes.
struct Plan {
    after: Duration,
    answer: Answered,
    /// What it says, and of which payment.
    says: Option<(String, Said)>,
    /// The program may have something to write.
    is_news: bool,
}

impl Gateway {
    pub fn new(dice: &mut Dice, give_up_after: Duration) -> Self {
        Self {
            trouble: [0, 10, 30, 60][dice.index(4)],
            reuse: [0, 10, 40][dice.index(3)],
            is_prompt: dice.percent(30),
            give_up_after,
            ..Self::default()
        }
    }

    pub fn process_ended(&mut self) {
        self.process += 1;
    }

    pub fn process(&self) -> u64 {
        self.process
    }

    pub fn is_healed(&self) -> bool {
        self.healed.is_some()
    }

    pub fn heal(&mut self, now: Duration) {
        self.healed = Some(now);
        for payment in &mut self.payments {
            let (_, last) = payment.history.pop().unwrap();
            payment.history.retain(|(since, _)| *since <= now);
            payment.history.push((now, last));
        }
    }

    pub fn payment(&self, watch_code: &str) -> Option<&Payment> {
        Some(&self.payments[*self.by_watch_code.get(watch_code)?])
    }

    fn start(&mut self, now: Duration, dice: &mut Dice, asked: &Value) -> Plan {
        let amount = asked["amount"].as_u64().unwrap();
        let order = asked["order"].as_str().map(str::to_owned);
        let late = self.late(dice);
        if self.healed.is_none() && dice.percent(self.trouble) {
            return match dice.below(10) {
                0..4 => {
                    // Accepted, and the answer is lost.
                    let codes = self.new_payment(now, dice, amount, order);
                    let (after, answer) = match dice.below(3) {
                        0 => (late, Err(Unanswered::Broken)),
                        1 => (late, Ok(started(&codes, true))),
                        _ => (2 * TIMEOUT, Ok(started(&codes, false))),
                    };
                    Plan::of(after, answer)
                }
                4 => Plan::of(late, Err(Unanswered::NotSent)),
                5 => Plan::of(late, Err(Unanswered::Broken)),
                _ => Plan::of(late, Ok(failure(dice))),
            };
        }
        let same = self.payments.iter().position(|payment| {
            payment.order.is_some() && payment.order == order && payment.amount == amount
        });
        let codes = match same {
            // A gateway with keys of its own.
            Some(same) if dice.percent(60) => self.payments[same].codes(),
            _ if self.healed.is_none() && dice.percent(self.reuse) && !self.payments.is_empty() => {
                let first = self.payments.len().saturating_sub(6);
                let earlier = &self.payments[first + dice.index(self.payments.len() - first)];
                let (code, watch_code) = earlier.codes();
                match dice.below(8) {
                    0 => (code, format!("watch-x{}", now.as_nanos())),
                    1 => (format!("pay-x{}", now.as_nanos()), watch_code),
                    _ => (code, watch_code),
                }
            }
            _ => self.new_payment(now, dice, amount, order),
        };
        if let Some(number) = self.by_watch_code.get(&codes.1) {
            self.payments[*number].last_given = now;
        }
        Plan::of(late, Ok(started(&codes, false)))
    }

    fn late(&self, dice: &mut Dice) -> Duration {
        if self.is_prompt || self.healed.is_some() || dice.percent(50) {
            Duration::ZERO
        } else {
            dice.milliseconds(0, 3000)
        }
    }

    fn new_payment(
        &mut self,
        now: Duration,
        dice: &mut Dice,
        amount: u64,
        order: Option<String>,
    ) -> (String, String) {
        let number = self.payments.len();
        let payment = Payment {
            code: format!("pay-{number}"),
            watch_code: format!("watch-{number}"),
            amount,
            order,
            given: now,
            last_given: now,
            asked: now,
            history: history(now, dice, self.healed.is_some()),
            said: Vec::new(),
        };
        let codes = payment.codes();
        self.by_watch_code.insert(codes.1.clone(), number);
        self.payments.push(payment);
        codes
    }

    fn watch(&mut self, now: Duration, dice: &mut Dice, watch_code: &str, own: bool) -> Plan {
        let Some(number) = self.by_watch_code.get(watch_code).copied() else {
            return Plan::of(Duration::ZERO, Ok(unknown()));
        };
        self.payments[number].asked = now;
        let mut said = Said {
            at: now,
            status: None,
            mark: String::new(),
            on_its_own: own,
            process: self.process,
        };
        let is_healed = self.healed.is_some();
        let mut after = self.late(dice);
        let mut about = number;
        if !is_healed && dice.percent(self.trouble) {
            match dice.below(12) {
                0 => after = 2 * TIMEOUT,
                1..3 => return Plan::of(after, Err(Unanswered::Broken)),
                3 => return Plan::of(after, Err(Unanswered::NotSent)),
                4..6 => {
                    let says = Some((watch_code.to_owned(), said));
                    let answer = Ok(unknown());
                    return Plan {
                        after,
                        answer,
                        says,
                        is_news: true,
                    };
                }
                // The answer to another question, which cannot come on a connection of its own.
                6 | 7 if !own => about = dice.index(self.payments.len()),
                _ => return Plan::of(after, Ok(failure(dice))),
            }
        }
        let payment = &self.payments[about];
        let (episode, status) = payment.status(now);
        said.status = Some(status);
        said.mark = format!("{about}.{episode}");
        let answer = json!({
            "status": status,
            "amount": payment.amount,
            "merchant": "M",
            "created_at": "2030-01-01 00:00:00",
            "completed_at": (status == "completed").then_some("2030-01-02 00:00:00"),
            "mark": said.mark,
        });
        let last = self.payments[number].said.last();
        let is_news = status == "completed"
            || last.is_none_or(|last| last.mark != said.mark)
            || now >= self.payments[number].given + self.give_up_after;
        Plan {
            after,
            answer: Ok(response(200, &answer.to_string())),
            says: Some((watch_code.to_owned(), said)),
            is_news,
        }
    }
}

impl Payment {
    fn codes(&self) -> (String, String) {
        (self.code.clone(), self.watch_code.clone())
    }

    /// The status at that moment, and its place in the history.
    pub fn status(&self, now: Duration) -> (usize, &'static str) {
        let mut past = self.history.iter().enumerate().rev();
        let (episode, (_, status)) = past
            .find(|(_, (since, _))| *since <= now)
            .expect("it is started");
        (episode, status)
    }

    /// The one that it will have in the end.
    pub fn last_status(&self) -> &'static str {
        self.history.last().unwrap().1
    }

    pub fn said(&self) -> &[Said] {
        &self.said
    }

    /// When the gateway first said, on a connection of its own, that it is completed.
    pub fn first_completed(&self) -> Option<Duration> {
        let mut said = self.said.iter();
        said.find(|said| said.status == Some("completed") && said.on_its_own)
            .map(|said| said.at)
    }
}

impl Plan {
    fn of(after: Duration, answer: Answered) -> Self {
        Self {
            after,
            answer,
            says: None,
            is_news: true,
        }
    }
}

/// When a payment changes its status, and to what.
fn history(now: Duration, dice: &mut Dice, is_healed: bool) -> Vec<(Duration, &'static str)> {
    let mut history = vec![(now, "created")];
    let changes = match dice.below(10) {
        _ if is_healed => 0,
        0..2 => 0,
        2..6 => 1,
        _ => 2 + dice.below(4),
    };
    let mut at = now;
    for change in 0..changes {
        at += a_while(dice);
        let status = if changes == 1 || change > 0 && dice.percent(40) {
            "completed"
        } else {
            STATUSES[dice.index(STATUSES.len())]
        };
        history.push((at, status));
    }
    history
}

/// From a moment to a few days: each order of magnitude is as likely, but days are rare.
pub fn a_while(dice: &mut Dice) -> Duration {
    const LONGEST: [u64; 5] = [5, 60, 600, 3600, 6 * 3600];
    let longest = if dice.percent(2) {
        3 * 24 * 3600
    } else {
        LONGEST[dice.index(LONGEST.len())]
    };
    dice.milliseconds(1, longest * 1000)
}

/// Answers a request of the program to the gateway.
pub async fn answer(town: &Town, request: Request<Bytes>) -> Answered {
    town.event();
    let own = request.headers().contains_key("connection");
    let path = request.uri().path();
    let plan = {
        let (now, state) = (town.now(), &mut *town.state());
        let (gateway, dice) = (&mut state.gateway, &mut state.dice);
        match path.strip_prefix("/watch/") {
            Some(watch_code) => gateway.watch(now, dice, watch_code, own),
            None => {
                let asked = serde_json::from_slice(request.body()).unwrap();
                state.book.note(now, format!("gateway: start {asked}"));
                gateway.start(now, dice, &asked)
            }
        }
    };
    if !plan.after.is_zero() {
        tokio::time::sleep(plan.after).await;
    }
    {
        let (now, mut state) = (town.now(), town.state());
        let shown = match &plan.answer {
            Ok(answer) => format!("{} {:?}", answer.status(), answer.body()),
            Err(why) => format!("{why:?}"),
        };
        state.book.note(now, format!("gateway: {path}: {shown}"));
        if let Some((watch_code, said)) = plan.says {
            let number = state.gateway.by_watch_code[&watch_code];
            state.gateway.payments[number]
                .said
                .push(Said { at: now, ..said });
        }
    }
    if plan.is_news {
        town.idle.stored();
    }
    town.event();
    plan.answer
}
