//! A postmaster and its children: each of them is in a session of its own, so no signal reaches all at once.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

pub fn id_of(child: &Child) -> i32 {
    let id = child.id().expect("it was not waited for");
    id.try_into().expect("a process")
}

/// The postmaster, and its children.
pub fn family(postmaster: &Child) -> Vec<i32> {
    let id = id_of(postmaster);
    let mut family = vec![id];
    family.extend(children_of(id));
    family
}

fn children_of(parent: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("proc(5)").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name is in brackets, and may have some in it; then the state, and then the parent.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1) == Some(&*parent.to_string())
    })
    .collect()
}

/// Those that are gone already are left out.
pub fn signal(ids: &[i32], signal: Signal) {
    for id in ids {
        let _ = kill_process(Pid::from_raw(*id).expect("a process"), signal);
    }
}

/// Ends them all, whatever state they are in.
pub fn end(postmaster: &mut Child) {
    if postmaster.try_wait().ok().flatten().is_some() {
        return;
    }
    let id = id_of(postmaster);
    let family = family(postmaster);
    signal(&family, Signal::CONT);
    // By itself it leaves nothing behind in the memory that processes share.
    signal(&[id], Signal::QUIT);
    for _ in 0..200 {
        if postmaster.try_wait().ok().flatten().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&family, Signal::KILL);
}
