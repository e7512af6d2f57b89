//! A store in a PostgreSQL database, which replicas share.

#![expect(dead_code, reason = "the keeper that uses it comes next")]

mod dial;
pub(super) mod link;
mod tls;
pub(super) mod trouble;
mod url;

pub(crate) use self::url::DatabaseUrl;
pub(super) use self::url::FORM;
