//! What is no fault, and still easy to get wrong.

use super::super::environment::variable_of;
use super::super::reading::Reading;
use super::super::sections::Config;
use crate::store::{KEY_BYTES, Place};

/// The settings that decide together how many keys are kept.
const KEPT: [&str; 3] = ["start.rate", "start.idempotency_ttl", "store.max_bytes"];

impl Reading {
    /// Says what of all this may surprise an operator.
    pub(super) fn remark(&mut self, config: &Config) {
        self.remark_variables(config);
        self.remark_room(config);
        if matches!(config.store.url, Place::Memory) && config.webhook.url.is_some() {
            self.warn("webhooks without a durable store: a webhook that is not delivered when tillgate ends is lost; set store.url = \"file:/var/lib/tillgate\"".to_owned());
        }
        self.remark_memory(config);
        let password = config.store.password_file.as_ref();
        if let Some(path) = password.filter(|path| !path.0.exists()) {
            let place = self.place("store.password_file");
            self.remarks
                .missing
                .push(format!("store.password_file ({place}): {path}"));
        }
    }

    fn remark_variables(&mut self, config: &Config) {
        for (name, key) in std::mem::take(&mut self.near_misses) {
            let variable = variable_of(&key);
            self.warn(format!(
                "{name} is not read: {key} is set by {variable}, with a second underscore"
            ));
        }
        let url = config.gateway.url.as_ref().map(ToString::to_string);
        let is_far = config.gateway.is_exposed() || url.is_some_and(|url| url.starts_with("https"));
        let needs_none = config.gateway.proxy.is_some() || !is_far;
        for name in std::mem::take(&mut self.proxies) {
            match needs_none {
                true => self.remarks.notes.push(format!("{name} is not read: no proxy variable is")),
                false => self.warn(format!("{name} is not read, no proxy variable is: if only a proxy leads to the gateway, set gateway.proxy; else unset it for tillgate")),
            }
        }
    }

    /// Keys are never let go before their time: at the full rate there must be room for all of them.
    fn remark_room(&mut self, config: &Config) {
        if !KEPT.iter().any(|key| self.found.contains_key(*key)) {
            return;
        }
        let (start, room) = (&config.start, config.store.max_bytes);
        let keys = start.rate.0 * start.idempotency_ttl.as_secs_f64();
        let wanted = keys * KEY_BYTES as f64;
        if wanted > room.bytes() as f64 {
            self.warn(format!(
                "store.max_bytes: at start.rate all the time there are {keys:.0} keys within start.idempotency_ttl, which take about {:.0} MiB, and it is {room}: when it is full, starts are refused (503 overloaded); raise it, or lower one of the other two",
                (wanted / f64::from(1 << 20)).ceil()
            ));
        }
    }

    fn remark_memory(&mut self, config: &Config) {
        let note = config.memory().to_string();
        self.remarks.notes.push(note);
    }

    fn warn(&mut self, warning: String) {
        self.remarks.warnings.push(warning);
    }
}
