//! Protects the memory of this process: it writes no core file, other processes of the same user can neither read it in
//! `/proc` nor attach a debugger, it gets no new privileges, and freed memory is wiped. Landlock, seccomp and a separate user
//! are up to what starts the process, such as systemd or a container engine.

use std::alloc::System;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior,
    setrlimit,
};
use serde::Serialize;
use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory as it is freed. The secret passes through buffers that other crates own: those of hyper when the gateway
/// echoes it, the text of the configuration file, and the variables that the standard library copies.
#[global_allocator]
static MEMORY: ZeroAlloc<System> = ZeroAlloc(System);

/// The protection of this process, as the kernel reports it. Some of it may have been set by the program that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Hardening {
    /// Only root can read its memory and its environment, or attach a debugger.
    pub(crate) not_dumpable: bool,
    /// It cannot write a core file.
    pub(crate) no_core: bool,
    /// No program that it runs can have more privileges than it has.
    pub(crate) no_new_privs: bool,
}

/// Closes the memory of this process, and its environment, to other processes of its user, as far as the system permits.
pub(crate) fn close_memory() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Opens it again.
pub(crate) fn open_memory() {
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
}

/// Applies the whole protection, as far as the system permits; [`Hardening::now`] returns the result. Call it before the first
/// thread is started, because a thread inherits it.
pub(crate) fn apply() {
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    close_memory();
    let _ = rustix::thread::set_no_new_privs(true);
}

impl Hardening {
    /// Returns the present protection.
    pub(crate) fn now() -> Self {
        let no_core = getrlimit(Resource::Core).current == Some(0);
        // The third value, readable by root alone, is what the kernel sets for a program that changed its user.
        let not_dumpable = !matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable) | Err(_));
        let no_new_privs = rustix::thread::no_new_privs().unwrap_or(false);
        Self {
            not_dumpable,
            no_core,
            no_new_privs,
        }
    }

    /// Returns whether everything that [`apply`] asks for is in effect.
    pub(crate) fn is_whole(self) -> bool {
        self.not_dumpable && self.no_core && self.no_new_privs
    }
}
