//! `tillgate store`

use std::path::Path;

use super::exit::Exit;
use super::output::{answer, misconfigured};
use crate::config::{self, Environment};
use crate::store::schema_sql;

/// Prints what makes the tables of the configured store, for whoever may run it.
pub(super) fn schema(path: Option<&Path>, environment: &Environment) -> Exit {
    match config::schema(path, environment) {
        Ok(schema) => {
            answer(schema_sql(&schema).trim_end());
            Exit::Fine
        }
        Err(diagnostics) => misconfigured(&diagnostics),
    }
}
