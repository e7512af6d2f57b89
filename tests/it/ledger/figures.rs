//! What has happened in all rounds together.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

#[derive(Default)]
pub struct Figures {
    pub rounds: u64,
    pub kills: u64,
    pub restarts: u64,
    pub orders: u64,
    pub starts: u64,
    pub payments: u64,
    pub completed: u64,
    pub paid_twice: u64,
    pub webhooks: u64,
    /// Starts without a payment, by the error.
    pub refused: BTreeMap<String, u64>,
}

impl Figures {
    pub fn add(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.kills += other.kills;
        self.restarts += other.restarts;
        self.orders += other.orders;
        self.starts += other.starts;
        self.payments += other.payments;
        self.completed += other.completed;
        self.paid_twice += other.paid_twice;
        self.webhooks += other.webhooks;
        for (error, times) in other.refused {
            *self.refused.entry(error).or_default() += times;
        }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            kills,
            restarts,
            orders,
            starts,
            payments,
            completed,
            paid_twice,
            webhooks,
            refused,
        } = self;
        write!(
            f,
            "{rounds} rounds, {kills} kills, {restarts} restarts; {orders} orders, {starts} starts, {payments} payments, \
             {completed} completed, {paid_twice} references paid twice; {webhooks} tries of webhooks; refused: {refused:?}"
        )
    }
}
