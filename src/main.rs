//! The `tillgate` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tillgate::cli::run().into()
}
