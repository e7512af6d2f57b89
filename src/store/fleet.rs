//! A store in a PostgreSQL database, which replicas share.

#![expect(dead_code, reason = "the keeper that uses it comes next")]

mod check;
mod dial;
pub(super) mod link;
mod schema;
mod tls;
pub(super) mod trouble;
mod url;
mod usable;

pub(crate) use self::check::{Findings, check};
pub(crate) use self::link::parse_password;
pub(crate) use self::schema::schema_sql;
pub(super) use self::url::FORM;
pub(crate) use self::url::{DatabaseUrl, SCHEMA};
