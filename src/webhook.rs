//! Webhooks: what the app is owed, when each message is tried again, and one signed POST after the other.

mod attempt;
mod config;
mod deliveries;
mod dispatch;
mod message;
mod recovery;
mod send;
mod sign;

pub(crate) use self::config::Config;
pub(crate) use self::deliveries::{Deliveries, ListedDelivery};
pub(crate) use self::dispatch::Dispatcher;
pub(crate) use self::message::compose;
pub(crate) use self::send::Sender;
pub(crate) use self::sign::{Keys, fresh_key};
