//! What the commands print: answers on stdout, complaints on stderr.

use std::io::Write;

use super::exit::Exit;
use crate::config::Diagnostic;
use crate::text;

/// Prints one line of an answer to stdout. A closed stdout is not an error: nobody reads it.
pub(super) fn answer(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints one line for a person to stderr. Parts of it may come from outside.
pub(super) fn complain(line: &str) {
    let line: String = text::printable(line).collect();
    let _ = writeln!(std::io::stderr().lock(), "tillgate: {line}");
}

/// Prints the error; returns the exit code of a failure.
pub(super) fn failed(error: &dyn std::fmt::Display) -> Exit {
    complain(&error.to_string());
    Exit::Failed
}

/// Prints all that is wrong with the configuration; returns the exit code for it.
pub(super) fn misconfigured(diagnostics: &[Diagnostic]) -> Exit {
    let mut text = String::new();
    for Diagnostic {
        key,
        place,
        what,
        help,
    } in diagnostics
    {
        text.push_str(&format!(
            "error: {key}: {what}\n   at: {place}\n help: {help}\n"
        ));
    }
    let plural = if diagnostics.len() == 1 { "" } else { "s" };
    let _ = writeln!(
        std::io::stderr().lock(),
        "{text}{} fault{plural} in the configuration",
        diagnostics.len()
    );
    Exit::Usage
}

/// Prints what is taken for a fault though it is none of the configuration's; returns the exit code for it.
pub(super) fn faulty(faults: &[String]) -> Exit {
    let lines: String = faults
        .iter()
        .map(|fault| format!("error: {fault}\n"))
        .collect();
    let plural = if faults.len() == 1 { "" } else { "s" };
    let _ = writeln!(
        std::io::stderr().lock(),
        "{lines}{} fault{plural} with --strict",
        faults.len()
    );
    Exit::Usage
}
