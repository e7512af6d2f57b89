//! Why a database could not be used, in words that an operator can act on.

use std::error::Error;
use std::io;

use tokio_postgres::error::{DbError, SqlState};

use crate::client::{self, Side};
use crate::text;

/// The longest message of a server that is repeated, in characters.
const MAX_MESSAGE: usize = 200;

/// Why the database could not be used. Its text has no password, and nothing that was sent as a parameter.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub(in crate::store) struct Trouble {
    pub(in crate::store) reason: Reason,
    what: String,
    code: Option<SqlState>,
    is_unknown: bool,
    ends_connection: bool,
}

/// The kinds of trouble, from the one that says least to the one that says most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Reason {
    /// There is no connection, or it broke.
    Unreachable,
    /// No answer came in time, or the server gave the statement up.
    Timeout,
    /// It takes no writes: a standby, or a primary that has become one.
    ReadOnly,
    /// Its disk or its memory is full.
    Full,
    /// It refuses the user, the database, the schema or the statement, or it is no server that can be used.
    Refused,
    /// What it holds cannot be read.
    Damaged,
}

impl Reason {
    /// Returns the value of the label `reason` in metrics.
    pub(in crate::store) fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
        }
    }
}

impl Trouble {
    /// Trouble before anything was asked: whatever was to be done was not.
    pub(in crate::store) fn new(reason: Reason, what: impl Into<String>) -> Self {
        Self {
            reason,
            what: what.into(),
            code: None,
            is_unknown: false,
            ends_connection: true,
        }
    }

    /// No answer came within the time limit for a statement. The connection may still be good, and the statement may still
    /// be carried out.
    pub(in crate::store) fn timeout() -> Self {
        Self {
            is_unknown: true,
            ends_connection: false,
            ..Self::new(Reason::Timeout, "no answer within store.timeout")
        }
    }

    /// The server has committed a statement, but no standby may have it yet: it was asked to wait no longer.
    pub(super) fn unconfirmed() -> Self {
        let what = "it gave up waiting for its synchronous standby (was the statement cancelled, as statement_timeout does?)";
        Self::new(Reason::Timeout, what).into_unknown()
    }

    /// Why a statement has no result.
    pub(super) fn of_statement(error: &tokio_postgres::Error) -> Self {
        if let Some(error) = error.as_db_error() {
            return Self::of_server(error);
        }
        let trouble = Self::of_connection(error);
        match trouble.reason {
            Reason::Unreachable => trouble.into_unknown(),
            // A value that is not of the type that was expected.
            _ => Self {
                ends_connection: false,
                ..Self::new(Reason::Damaged, trouble.what)
            },
        }
    }

    /// Why a server lets nobody in. Without a password it may have wanted one.
    pub(super) fn of_login(error: &tokio_postgres::Error, has_password: bool) -> Self {
        let trouble = match error.as_db_error() {
            Some(error) => Self::of_server(error),
            None => Self::of_connection(error),
        };
        let what = match (trouble.reason, &trouble.code) {
            (Reason::Refused, None) if !has_password && !is_io(error) => {
                "it asks for a password, and there is none: set store.password_file".to_owned()
            }
            (Reason::Refused, Some(code)) if !has_password && is_login(code) => {
                format!("{} (there is no password)", trouble.what)
            }
            _ => trouble.what,
        };
        Self {
            what,
            is_unknown: false,
            ends_connection: true,
            ..trouble
        }
    }

    /// What the server itself says.
    fn of_server(error: &DbError) -> Self {
        let code = error.code();
        let (reason, hint) = match is_pooler_login(error) {
            true => (Reason::Refused, CHECK_LOGIN),
            false => (reason_of(code), hint_of(code)),
        };
        let message: String = text::printable(error.message()).take(MAX_MESSAGE).collect();
        Self {
            reason,
            what: format!("{message} (SQLSTATE {}){hint}", code.code()),
            code: Some(code.clone()),
            is_unknown: is_unknown(code),
            ends_connection: matches!(reason, Reason::Unreachable | Reason::ReadOnly),
        }
    }

    /// What is wrong with the connection, or with what came over it.
    fn of_connection(error: &tokio_postgres::Error) -> Self {
        if error.is_closed() {
            return Self::new(Reason::Unreachable, "it closed the connection");
        }
        match error.source() {
            Some(source) if is_io(error) => {
                let reason = match client::is_of_tls(source) {
                    true => Reason::Refused,
                    false => Reason::Unreachable,
                };
                Self::new(reason, client::causes(Side::Store, source))
            }
            Some(source) => Self::new(Reason::Refused, format!("{error}: {source}")),
            // It answered something that no answer can be.
            None => Self::new(Reason::Unreachable, error.to_string()),
        }
    }

    /// What came is the answer to another statement, so that nothing that comes over this connection can be believed.
    pub(super) fn crossed() -> Self {
        let what =
            "it gave the answer to another statement: is a pooler in between, and did it hang?";
        Self::new(Reason::Unreachable, what).into_unknown()
    }

    /// There is no connection at the moment, so nothing was sent.
    pub(super) fn no_connection() -> Self {
        Self::new(Reason::Unreachable, "there is no connection to it").into_not_sent()
    }

    /// The connection has ended.
    pub(super) fn lost() -> Self {
        Self::new(Reason::Unreachable, "the connection has ended")
    }

    /// What it holds is not what was expected.
    pub(super) fn damaged(what: &str) -> Self {
        Self {
            ends_connection: false,
            ..Self::new(Reason::Damaged, what)
        }
    }

    /// Returns whether the statement may have been carried out: no answer came to it. True after [`Trouble::timeout`] too.
    pub(in crate::store) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Returns whether another connection has to be made.
    pub(in crate::store) fn ends_connection(&self) -> bool {
        self.ends_connection
    }

    /// Returns whether the statement was undone for another one that ran at the same time, and may be sent again.
    pub(super) fn is_undone(&self) -> bool {
        let code = self.code.as_ref().map(SqlState::code);
        matches!(code, Some("40001" | "40P01"))
    }

    /// Returns the SQLSTATE, if the server gave one.
    pub(in crate::store) fn code(&self) -> Option<&SqlState> {
        self.code.as_ref()
    }

    /// The same, for a statement that had no answer when the connection ended.
    pub(super) fn into_unknown(self) -> Self {
        Self {
            is_unknown: true,
            ends_connection: true,
            ..self
        }
    }

    /// The same for a statement that was never sent.
    pub(super) fn into_not_sent(self) -> Self {
        Self {
            is_unknown: false,
            ends_connection: true,
            ..self
        }
    }

    /// The same, with the place where it happened, and without this password, which a server could have repeated.
    pub(super) fn at(self, place: &str, password: Option<&str>) -> Self {
        let what = match password {
            Some(password) => self.what.replace(password, "[redacted]"),
            None => self.what,
        };
        Self {
            what: format!("{place}: {what}"),
            ..self
        }
    }

    /// Returns one for the troubles of several servers. Its reason is the one that says most.
    pub(super) fn together(troubles: Vec<Self>) -> Self {
        let texts: Vec<_> = troubles.iter().map(|trouble| &*trouble.what).collect();
        let what = texts.join("; ");
        let most = troubles.into_iter().max_by_key(|trouble| trouble.reason);
        Self {
            what,
            ..most.unwrap_or_else(|| Self::new(Reason::Unreachable, ""))
        }
    }
}

/// What to look at when a login fails.
const CHECK_LOGIN: &str = ": check the user and the database in store.url, and store.password_file";

/// Returns whether a PgBouncer refuses the login: it has one SQLSTATE for everything, and its messages have one language.
fn is_pooler_login(error: &DbError) -> bool {
    *error.code() == SqlState::PROTOCOL_VIOLATION
        && ["authentication failed", "no such database"]
            .iter()
            .any(|words| error.message().contains(words))
}

/// What a SQLSTATE means here (PostgreSQL, appendix A).
fn reason_of(code: &SqlState) -> Reason {
    let code = code.code();
    match (&code[..2], code) {
        // Connections, shutdowns, too many connections.
        ("08", _) | (_, "53300" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05") => {
            Reason::Unreachable
        }
        (_, "25006") => Reason::ReadOnly,
        ("53", _) => Reason::Full,
        // Given up for another transaction, for a lock, or cancelled.
        ("40", _) | (_, "57014" | "55P03" | "25P03") => Reason::Timeout,
        ("58" | "XX", _) => Reason::Damaged,
        _ => Reason::Refused,
    }
}

/// Returns whether a server that answers so may have carried the statement out: it may end a connection after the commit.
fn is_unknown(code: &SqlState) -> bool {
    matches!(
        code.code(),
        "57P01" | "57P02" | "57P03" | "57P04" | "40003" | "08006" | "08007"
    )
}

/// Returns whether the cause is one of the connection below, or of what came over it.
fn is_io(error: &tokio_postgres::Error) -> bool {
    error
        .source()
        .is_some_and(|source| source.is::<io::Error>())
}

fn is_login(code: &SqlState) -> bool {
    code.code().starts_with("28")
}

/// Returns what to look at.
fn hint_of(code: &SqlState) -> &'static str {
    match code.code() {
        "28P01" => CHECK_LOGIN,
        "28000" => ": check the user in store.url, and who may come in there (pg_hba.conf)",
        "3D000" => ": check the database in store.url",
        "42501" => {
            ": the user in store.url needs that right; tillgate store schema prints what to run"
        }
        "3F000" | "42P01" | "42703" | "42883" => {
            ": the tables are not there, or are others; tillgate store schema prints what to run"
        }
        "53300" => ": the server, or this user, has no connection left (max_connections)",
        "53100" => ": its disk is full",
        "53200" => ": its memory is full",
        _ => "",
    }
}
