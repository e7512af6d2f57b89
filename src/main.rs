//! The `tillgate` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tillgate::cli::run(std::env::args_os()).into()
}
