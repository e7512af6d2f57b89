//! Processes that the app of `dev` has started and left behind. This process adopts them in place of init, so that it can
//! end them.

use rustix::process::{Pid, WaitOptions, waitpid};

/// Makes this process the parent of every orphan among its descendants from now on.
pub(super) fn adopt() {
    // If it fails, orphans are not found, and everything else works.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Reaps the children that have ended, except `own`, which is waited for elsewhere.
pub(super) fn reap(own: Option<u32>) {
    for orphan in all(own) {
        let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
    }
}

/// Returns the children of this process, except `own`.
pub(super) fn all(own: Option<u32>) -> Vec<Pid> {
    // When a thread ends, another one takes over its children.
    let threads = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let lists =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let ids: Vec<i32> = lists
        .flat_map(|list| {
            list.split(' ')
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    let own = own.map(u32::cast_signed);
    ids.into_iter()
        .filter(|id| Some(*id) != own)
        .filter_map(Pid::from_raw)
        .collect()
}
