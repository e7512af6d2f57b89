//! The tables of a store in a database.

/// With `{schema}` for the name of the schema, in quotes: it may be a keyword.
const SQL: &str = include_str!("schema.sql");

/// Returns what makes the tables in this schema. It may be run again.
pub(crate) fn schema_sql(schema: &str) -> String {
    SQL.replace("{schema}", schema)
}
