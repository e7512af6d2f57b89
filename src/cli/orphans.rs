//! Processes that a program of ours has started and left behind: they become children of ours instead of init's, so that
//! they can be ended.

use rustix::process::{Pid, WaitOptions, waitpid};

/// From here on orphans of our descendants are ours.
pub(super) fn adopt() {
    // Without it there is only less to find.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Forgets those that have ended: nobody else would. `own` is the one that is waited for elsewhere.
pub(super) fn reap(own: Option<u32>) {
    for orphan in all(own) {
        let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
    }
}

/// Our children, but for `own`.
pub(super) fn all(own: Option<u32>) -> Vec<Pid> {
    // A thread that ends meanwhile hands its children to another one.
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
