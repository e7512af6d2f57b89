//! The payments of the sandbox, in memory. The oldest are dropped when there are too many.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{clock, random};

const MAX_PAYMENTS: usize = 100_000;

/// The longest amount: longer than any sum, and short enough that a full ledger stays small.
const MAX_AMOUNT_DIGITS: usize = 128;

/// Payments, found by either of their codes.
pub(super) struct Ledger {
    /// The payments in the order of their start. Only the front is ever removed, so the place of a payment is its number
    /// minus `first`.
    payments: VecDeque<Payment>,
    /// The number of the payment at the front.
    first: usize,
    by_code: HashMap<String, usize>,
    by_watch_code: HashMap<String, usize>,
    auto_complete: Option<Duration>,
}

impl Ledger {
    pub(super) fn new(auto_complete: Option<Duration>) -> Self {
        Ledger {
            payments: VecDeque::new(),
            first: 0,
            by_code: HashMap::new(),
            by_watch_code: HashMap::new(),
            auto_complete,
        }
    }

    pub(super) fn start(&mut self, amount: Amount) -> Payment {
        if self.payments.len() >= MAX_PAYMENTS
            && let Some(oldest) = self.payments.pop_front()
        {
            self.by_code.remove(&oldest.code);
            self.by_watch_code.remove(&oldest.watch_code);
            self.first += 1;
        }
        let payment = Payment::new(amount, self.auto_complete);
        let number = self.first + self.payments.len();
        self.by_code.insert(payment.code.clone(), number);
        self.by_watch_code
            .insert(payment.watch_code.clone(), number);
        self.payments.push_back(payment.clone());
        payment
    }

    pub(super) fn by_code(&self, code: &str) -> Option<&Payment> {
        self.payments.get(self.by_code.get(code)? - self.first)
    }

    pub(super) fn by_watch_code(&self, watch_code: &str) -> Option<&Payment> {
        self.payments
            .get(self.by_watch_code.get(watch_code)? - self.first)
    }

    /// Pays a payment. One that is paid already keeps its time.
    pub(super) fn complete(&mut self, code: &str) -> Option<&Payment> {
        let payment = self
            .payments
            .get_mut(self.by_code.get(code)? - self.first)?;
        payment.paid_at = payment.completed_at().or_else(|| Some(clock::wall()));
        Some(payment)
    }

    pub(super) fn newest_first(&self) -> impl ExactSizeIterator<Item = &Payment> {
        self.payments.iter().rev()
    }
}

#[derive(Clone)]
pub(super) struct Payment {
    pub(super) code: String,
    pub(super) watch_code: String,
    pub(super) amount: Amount,
    pub(super) created_at: Timestamp,
    paid_at: Option<Timestamp>,
    /// When it counts as paid if nobody pays: by the steady clock, which decides, and by the wall clock, which is shown. It
    /// is compared when the payment is read, so no timer runs.
    due: Option<(Instant, Timestamp)>,
}

impl Payment {
    fn new(amount: Amount, auto_complete: Option<Duration>) -> Self {
        let created_at = clock::wall();
        Payment {
            code: format!("pay_{}", random::token(20)),
            watch_code: format!("watch_{}", random::token(20)),
            amount,
            created_at,
            paid_at: None,
            due: auto_complete.and_then(|after| {
                Some((
                    clock::now().checked_add(after)?,
                    created_at.checked_add(after).ok()?,
                ))
            }),
        }
    }

    pub(super) fn completed_at(&self) -> Option<Timestamp> {
        let due = || {
            self.due
                .filter(|(at, _)| *at <= clock::now())
                .map(|(_, shown)| shown)
        };
        self.paid_at.or_else(due)
    }

    pub(super) fn status(&self) -> &'static str {
        if self.completed_at().is_some() {
            "completed"
        } else {
            "created"
        }
    }
}

/// A positive JSON number. It is kept as text, so that an amount of thirty digits keeps them all.
#[derive(Clone)]
pub(super) struct Amount(String);

impl Amount {
    /// Takes the text of a JSON number; `None` if it is not above zero, or too long.
    pub(super) fn parse(number: &str) -> Option<Self> {
        let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
        let positive =
            !number.starts_with('-') && mantissa.contains(|digit| matches!(digit, '1'..='9'));
        (positive && number.len() <= MAX_AMOUNT_DIGITS).then(|| Amount(number.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Formats a time as the guide does, in UTC.
pub(super) fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
