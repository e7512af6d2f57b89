//! Whether the system gives this process the threads and the memory that it needs, asked before anything depends on them:
//! without a thread the runtime panics or waits for ever, and without memory the process is aborted.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::{Resource, getrlimit};

/// The threads beside those of the tasks: of the log, of the store, and one for files and names.
const OTHERS: usize = 3;
/// The memory that is taken at the start.
const MEMORY: usize = 4 << 20;
/// The stack of a thread, and what the system takes for it.
const STACK: usize = (2 << 20) + (64 << 10);

/// Takes the threads and the memory that a start needs, and gives all of it back.
///
/// # Errors
/// Says which limit is in the way.
pub(super) fn suffices(workers: usize) -> Result<(), String> {
    let wanted = workers + OTHERS;
    reserve(MEMORY + wanted * STACK)?;
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
        reserve(MEMORY)
    })
}

fn reserve(bytes: usize) -> Result<(), String> {
    let mut room: Vec<u8> = Vec::new();
    let reserved = room.try_reserve_exact(bytes);
    black_box(&room);
    reserved.map_err(|_| {
        let mebibytes = bytes.div_ceil(1 << 20);
        format!(
            "the system gives no {mebibytes} MiB of memory, which a start needs: {}",
            limits(&[
                (
                    Resource::As,
                    "the address space of a process (ulimit -v, RLIMIT_AS)"
                ),
                (
                    Resource::Data,
                    "the memory of a process (ulimit -d, RLIMIT_DATA)"
                ),
            ])
            .unwrap_or_else(|| "the machine, or its container, has no more".to_owned())
        )
    })
}

fn no_thread(had: usize, wanted: usize, error: &io::Error) -> String {
    // The system says the same where there is no memory for a stack.
    if let Err(no_memory) = reserve(STACK) {
        return no_memory;
    }
    let processes = limits(&[(
        Resource::Nproc,
        "the processes and threads of this user (ulimit -u, RLIMIT_NPROC)",
    )]);
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

/// Says which of these limits there are.
fn limits(all: &[(Resource, &str)]) -> Option<String> {
    let set = all.iter().filter_map(|(resource, what)| {
        let limit = getrlimit(*resource).current?;
        Some(format!("the limit of {what} is {limit}"))
    });
    let set: Vec<_> = set.collect();
    (!set.is_empty()).then(|| set.join("; "))
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
