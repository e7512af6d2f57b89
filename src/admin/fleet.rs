//! The store that replicas share, and the replicas.

use maud::{Markup, html};
use serde::Serialize;

use crate::store::Store;

/// Of `/status`.
#[derive(Serialize)]
pub(super) struct Fleet {
    /// Hosts and ports of the database.
    database: String,
    up: bool,
    away_seconds: Option<u64>,
    /// Why it is away.
    why: Option<String>,
    /// Whether the database waits for a standby before it says that something is written; `null` before it was reached.
    waits_for_standby: Option<bool>,
    /// Those that are alive, as far as this one knows.
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    name: String,
    version: String,
    /// Whether it has the settings that all replicas should have in common.
    same_settings: bool,
}

impl Fleet {
    /// `None` where no replicas share the store.
    pub(super) fn new(store: &Store) -> Option<Self> {
        let replicas = store.members()?;
        let (database, waits_for_standby) = store.database()?;
        let trouble = store.trouble();
        let replicas = replicas.into_iter().map(|(member, same_settings)| Replica {
            name: member.name,
            version: member.version,
            same_settings,
        });
        Some(Self {
            database: database.to_owned(),
            waits_for_standby,
            up: trouble.is_none(),
            away_seconds: trouble.as_ref().map(|(since, _)| since.as_secs()),
            why: trouble.map(|(_, why)| why),
            replicas: replicas.collect(),
        })
    }

    /// A table for the page.
    pub(super) fn table(&self) -> Markup {
        let state = match self.away_seconds {
            None => "up".to_owned(),
            Some(seconds) => format!("away {seconds} s"),
        };
        let standby = match self.waits_for_standby {
            None => "not known yet",
            Some(true) => "yes",
            Some(false) => "no",
        };
        html! {
            tr { th scope="row" { (self.database) } td { (state) } }
            tr { th scope="row" { "Waits for a standby" } td { (standby) } }
            @for Replica { name, version, same_settings } in &self.replicas {
                tr {
                    th scope="row" { (name) }
                    td { (version) @if !same_settings { ", other settings" } }
                }
            }
        }
    }
}
