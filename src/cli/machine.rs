//! Whether the system gives this process the threads and the memory that it needs, asked before anything depends on them:
//! without a thread the runtime panics or waits for ever, and without memory the process is aborted.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

/// The threads beside those of the tasks: of the log, of the store, and one for files and names.
const OTHERS: usize = 3;
/// The memory that a start takes beside the stacks.
const MEMORY: usize = 4 << 20;
/// The stack of a thread, and what the system takes for it.
const STACK: usize = (2 << 20) + (64 << 10);

/// Takes the threads that a start needs, and gives them back; looks whether there is the memory for it.
///
/// # Errors
/// Says which limit is in the way.
pub(super) fn suffices(workers: usize) -> Result<(), String> {
    let wanted = workers + OTHERS;
    has_room(MEMORY + wanted * STACK)?;
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // All of them wait until all are there.
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        for had in 0..wanted {
            // The first allocation of a thread takes room for all later ones.
            let work = || {
                black_box(vec![0_u8; 64]);
                drop(gate.lock());
            };
            let thread = thread::Builder::new().spawn_scoped(scope, work);
            thread.map_err(|error| no_thread(had, wanted, &error))?;
        }
        has_room(MEMORY)
    })
}

/// Fails if a limit of this process leaves less than that. Nothing is taken to find out: what was taken and given back
/// would stay with the process.
fn has_room(bytes: usize) -> Result<(), String> {
    let mebibytes = bytes.div_ceil(1 << 20);
    let taken = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let taken = |field| {
        let pages: Option<usize> = taken
            .split(' ')
            .nth(field)
            .and_then(|pages| pages.parse().ok());
        pages.map_or(0, |pages| pages.saturating_mul(page_size()))
    };
    // The fields are those of proc_pid_statm(5).
    for (resource, field, what) in [
        (
            Resource::As,
            0,
            "the address space of a process (ulimit -v, RLIMIT_AS)",
        ),
        (
            Resource::Data,
            5,
            "the memory of a process (ulimit -d, RLIMIT_DATA)",
        ),
    ] {
        let Some(limit) = getrlimit(resource).current else {
            continue;
        };
        if limit < taken(field).saturating_add(bytes) as u64 {
            return Err(format!(
                "the system gives no {mebibytes} MiB of memory, which a start needs: the limit of {what} is {limit}"
            ));
        }
    }
    Ok(())
}

fn no_thread(had: usize, wanted: usize, error: &io::Error) -> String {
    // The system says the same where there is no memory for a stack.
    if let Err(no_memory) = has_room(STACK) {
        return no_memory;
    }
    let processes = getrlimit(Resource::Nproc).current.map(|limit| {
        format!("the limit of the processes and threads of this user (ulimit -u, RLIMIT_NPROC) is {limit}")
    });
    let tasks = tasks_of_group().map(|limit| {
        format!("the limit of the threads of its control group is {limit} (pids.max: TasksMax= of systemd, --pids-limit of a container)")
    });
    let known: Vec<_> = processes.into_iter().chain(tasks).collect();
    let known = match known.is_empty() {
        true => error.to_string(),
        false => known.join("; "),
    };
    format!("the system gives {had} of {wanted} threads, which a start needs: {known}")
}

/// Returns the least limit of the control groups that this process is in (cgroups(7), version 2).
fn tasks_of_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |group: &Path| {
        let path = Path::new("/sys/fs/cgroup").join(group).join("pids.max");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Path::new(group).ancestors().filter_map(limit).min()
}
