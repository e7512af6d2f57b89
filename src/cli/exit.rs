//! The exit codes of the program.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: success.
    Fine,
    /// 1: a failure while running.
    Failed,
    /// 2: bad usage, or a bad configuration.
    Usage,
    /// The exit code of the app that `dev` ran.
    AsApp(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::AsApp(code) => code,
        })
    }
}
