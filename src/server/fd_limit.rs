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
    match shortage(connections, files) {
        Some((room, why)) => {
            tracing::warn!("{why}");
            room
        }
        None => connections,
    }
}

/// Says so if there would be room for fewer connections, once [`room_for`] has raised the limit.
pub(crate) fn look(connections: NonZeroU32) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    shortage(connections, most).map(|(_, why)| why)
}

/// Returns how many connections there is room for with so many open files, and a sentence about it, if it is fewer.
fn shortage(connections: NonZeroU32, files: u64) -> Option<(NonZeroU32, String)> {
    let room = u32::try_from(files.saturating_sub(OTHERS).max(files / 4)).unwrap_or(u32::MAX);
    let room = NonZeroU32::new(room).filter(|room| *room < connections)?;
    let why = format!(
        "listen.max_connections is {connections}, and the system allows {files} open files: {room} connections are taken (raise ulimit -n, or LimitNOFILE)"
    );
    Some((room, why))
}
