//! What this process does so that its memory stays its own: no core file, nothing to read in `/proc` or with a debugger
//! for others of the same user, no new privileges, and freed memory is wiped. Landlock, seccomp and users of their own
//! are for what starts it: systemd, a container.

use std::alloc::System;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior,
    setrlimit,
};
use serde::Serialize;
use zeroizing_alloc::ZeroAlloc;

/// The secret passes through memory that others own and free: the read buffers of hyper when the gateway echoes it, the
/// text of the configuration file, the variables that the standard library copies. All of it is wiped as it is freed.
#[global_allocator]
static MEMORY: ZeroAlloc<System> = ZeroAlloc(System);

/// What the kernel says of this process. The program that started it may have set some of it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Hardening {
    /// Only root can read its memory and its environment, or attach a debugger.
    pub(crate) not_dumpable: bool,
    /// It may not write a core file.
    pub(crate) no_core: bool,
    /// Nothing that it runs can have more privileges than it has.
    pub(crate) no_new_privs: bool,
}

/// Takes what the system grants; [`Hardening::now`] returns what that was. Threads have it from the one that starts them,
/// so this comes before the first.
pub(crate) fn apply() {
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_no_new_privs(true);
}

impl Hardening {
    /// As it is now.
    pub(crate) fn now() -> Self {
        let no_core = getrlimit(Resource::Core).current == Some(0);
        // Readable by root alone is what the kernel makes of a program that changed its user.
        let not_dumpable = !matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable) | Err(_));
        let no_new_privs = rustix::thread::no_new_privs().unwrap_or(false);
        Self {
            not_dumpable,
            no_core,
            no_new_privs,
        }
    }

    /// Everything that was asked for.
    pub(crate) fn is_whole(self) -> bool {
        self.not_dumpable && self.no_core && self.no_new_privs
    }
}
