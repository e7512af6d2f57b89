//! The files that this process may have open: each connection is one.

use std::num::NonZeroU32;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What else is open at most: connections over the limit that get an answer, the admin listener's, those to the gateway
/// and to the app, and files.
const OTHERS: u64 = 1024;

/// Returns how many connections over the limit of a listener may be open at once: each gets one answer.
pub(super) fn over() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 8).map_or(256, |share| share.clamp(16, 256))
}

/// How many of these connections there is room for. The system's soft limit is raised for them as far as its hard
/// one lets us: it is as low as 1024 for the sake of programs that use select(2).
pub(crate) fn room_for(connections: NonZeroU32) -> NonZeroU32 {
    let (wished, limit) = (
        u64::from(connections.get()) + OTHERS,
        getrlimit(Resource::Nofile),
    );
    if limit.current.is_some_and(|current| current < wished) {
        let current = limit.maximum.unwrap_or(wished).min(wished);
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(current),
                maximum: limit.maximum,
            },
        );
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = u32::try_from(files.saturating_sub(OTHERS).max(files / 4)).unwrap_or(u32::MAX);
    match NonZeroU32::new(room) {
        Some(room) if room < connections => {
            tracing::warn!(
                "listen.max_connections is {connections}, and the system allows {files} open files: {room} connections are taken (raise ulimit -n, or LimitNOFILE)"
            );
            room
        }
        _ => connections,
    }
}
