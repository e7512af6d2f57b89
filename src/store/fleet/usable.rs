//! Whether a server can be used.

use tokio_postgres::Row;

use super::trouble::{Reason, Trouble};

/// The oldest version that the statements are written for.
const OLDEST: u32 = 13;

/// Asked once, in one round trip. A pooler may have another server behind it later; then a write fails with 25006.
pub(super) const QUESTION: &str = "select version(), current_setting('transaction_read_only'),
  current_setting('transaction_isolation'), current_user::text";

/// Returns the name and the number of the server's version if it can be used.
///
/// # Errors
/// Says why it cannot.
pub(super) fn usable(rows: &[Row]) -> Result<String, Trouble> {
    let text = |i| rows.first().and_then(|row| row.try_get::<_, &str>(i).ok());
    let version = text(0).unwrap_or_default();
    check_version(version).map_err(|what| Trouble::new(Reason::Refused, what))?;
    if text(1) != Some("off") {
        let what = "it is read-only: a standby, or default_transaction_read_only is on";
        return Err(Trouble::new(Reason::ReadOnly, what));
    }
    let (isolation, user) = (text(2).unwrap_or_default(), text(3).unwrap_or_default());
    if isolation != "read committed" {
        let what = format!(
            "its transactions are {isolation}, so that statements of replicas undo one another: run alter role {user} set \
             default_transaction_isolation = 'read committed'"
        );
        return Err(Trouble::new(Reason::Refused, what));
    }
    Ok(version.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// Checks what `version()` says. Others that speak the protocol of PostgreSQL do not keep all of its promises.
fn check_version(version: &str) -> Result<(), String> {
    let others = [
        ("Cockroach", "CockroachDB"),
        ("-YB-", "YugabyteDB"),
        ("Redshift", "Redshift"),
    ];
    let other = others.iter().find(|(word, _)| version.contains(word));
    let major = version.strip_prefix("PostgreSQL ").map(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse::<u32>().ok())
    });
    match (other, major) {
        (Some((_, name)), _) => Err(format!(
            "it is {name}, which tillgate was never tested with: use PostgreSQL"
        )),
        (None, Some(Some(major))) if major >= OLDEST => Ok(()),
        (None, Some(Some(major))) => Err(format!(
            "it is PostgreSQL {major}, and the oldest that can be used is {OLDEST}"
        )),
        (None, _) => Err("it is no PostgreSQL".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_postgresql_from_13_on_is_used() {
        let good = [
            "PostgreSQL 13.0 on x86_64-pc-linux-gnu, compiled by gcc",
            "PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu",
            "PostgreSQL 18beta1",
        ];
        for version in good {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        let bad = [
            (
                "CockroachDB CCL v26.3.1 (x86_64-pc-linux-gnu)",
                "CockroachDB",
            ),
            (
                "PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu",
                "YugabyteDB",
            ),
            (
                "PostgreSQL 8.0.2 on i686-pc-linux-gnu, Redshift 1.0.77467",
                "Redshift",
            ),
            ("PostgreSQL 12.22 on x86_64-pc-linux-gnu", "PostgreSQL 12"),
            ("PostgreSQL x", "no PostgreSQL"),
            ("CrateDB 5.9", "no PostgreSQL"),
            ("", "no PostgreSQL"),
        ];
        for (version, word) in bad {
            let what = check_version(version).unwrap_err();
            assert!(what.contains(word), "{version}: {what}");
        }
    }
}
