//! `cargo bench`: what tillgate costs; `cargo bench -- store`: what its store does; `cargo bench -- attack`: what it
//! costs when somebody means harm; `cargo bench -- fleet`: what a store costs that replicas share (`fleet polls`: only that
//! part). It prints, and asserts nothing about speed: a number is for the machine that it was measured on.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program beside the crate"
)]

mod attack;
mod fleet;
mod load;
mod process;
mod store;
mod table;
mod tracked;
mod waiting;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use self::load::{CONNECTIONS, Load};
use self::process::Process;
use self::table::mebibytes;

const STARTS: usize = 10;
const SETTLE: Duration = Duration::from_secs(1);
const MEASURE: Duration = Duration::from_secs(4);

fn main() {
    // `cargo test --all-targets` runs this too, with a program that nothing was optimised in.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("machine: {}", process::machine());
    let only = |what: &str| std::env::args().any(|argument| argument == what);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if only("fleet") {
        runtime.block_on(fleet::measure(only));
        return;
    }
    let (only_store, only_attack) = (only("store"), only("attack"));
    if !only_store && !only_attack {
        at_rest();
    }
    let pinned = process::pin_the_rest();
    let cores = if pinned {
        "the sidecar on one core, load and gateway on another"
    } else {
        "nothing pinned to a core"
    };
    if only_store {
        println!("{cores}; the store is in {}", env!("CARGO_TARGET_TMPDIR"));
        runtime.block_on(store::measure(pinned));
        return;
    }
    if only_attack {
        println!("{cores}");
        runtime.block_on(attack::siege(pinned));
        runtime.block_on(attack::memory(pinned));
        return;
    }
    under_load(&runtime, pinned);
    println!(
        "\n{CONNECTIONS} connections, {} s each; {cores}; the log goes to /dev/null",
        MEASURE.as_secs()
    );
    runtime.block_on(store::measure(pinned));
    runtime.block_on(tracked::measure(pinned));
    runtime.block_on(waiting::measure(pinned));
    runtime.block_on(waiting::latency(pinned));
    runtime.block_on(attack::siege(pinned));
    runtime.block_on(attack::memory(pinned));
}

fn at_rest() {
    let (_sandbox, gateway) = process::sandbox();
    let ready = median(
        (0..STARTS)
            .map(|_| process::sidecar(gateway, &[], false).ready_after)
            .collect(),
    );
    let size = std::fs::metadata(process::PROGRAM)
        .expect("the program")
        .len();
    let idle = process::sidecar(gateway, &[], false);
    std::thread::sleep(SETTLE);
    table::head("at rest");
    let what = format!("ready after (median of {STARTS} starts)");
    table::row(
        &what,
        &format!("{:.1} ms", ready.as_secs_f64() * 1e3),
        "<= 50 ms",
    );
    table::row(
        "memory, idle (VmRSS)",
        &mebibytes(idle.process.memory()),
        "<= 8 MiB",
    );
    table::row("the program's file", &mebibytes(size), "<= 8 MiB");
}

fn under_load(runtime: &Runtime, pinned: bool) {
    println!(
        "\n{:<28}{:>12}{:>18}{:>14}",
        "under load", "requests/s", "CPU per request", "memory after"
    );
    for (what, log_level) in [
        ("cached watch", "warn"),
        ("cached watch", "info"),
        ("start", "warn"),
        ("start", "info"),
    ] {
        // A new pair each: what the last one kept costs this one nothing.
        let (_sandbox, gateway) = process::sandbox();
        let sidecar = process::sidecar(gateway, &[("LOG__LEVEL", log_level)], pinned);
        let measured = runtime.block_on(measure(&sidecar.process, sidecar.api, what));
        print_load(&format!("{what}, log {log_level}"), measured);
    }
    let (_sandbox, gateway) = process::sandbox();
    match process::nginx(gateway, pinned) {
        Some((nginx, address)) => {
            let measured = runtime.block_on(measure(&nginx, address, "start, passed through"));
            print_load("start, nginx, passed through", measured);
        }
        None => println!("(nginx is not installed: nothing to compare a start with)"),
    }
}

fn print_load(what: &str, (rate, cpu, memory): (f64, Duration, u64)) {
    let cpu = format!("{:.1} us", cpu.as_secs_f64() * 1e6);
    println!("{what:<28}{rate:>12.0}{cpu:>18}{:>14}", mebibytes(memory));
}

/// Requests per second, that process's time on a core for each, and its memory when the load is over.
async fn measure(process: &Process, api: SocketAddr, what: &str) -> (f64, Duration, u64) {
    let request = match what {
        // Over a connection to the gateway of its own, each.
        "start" => load::start(),
        "start, passed through" => load::start_with_secret(),
        _ => load::get(&format!("/watch/{}", load::started(api).await.watch_code)),
    };
    let load = Load::begin(api, request).await;
    tokio::time::sleep(SETTLE).await;
    let (began, cpu_before, answers_before) = (Instant::now(), process.cpu_time(), load.answers());
    tokio::time::sleep(MEASURE).await;
    let (took, cpu, answers) = (
        began.elapsed(),
        process.cpu_time().saturating_sub(cpu_before),
        load.answers() - answers_before,
    );
    load.end();
    tokio::time::sleep(SETTLE).await;
    let answers = u32::try_from(answers).expect("seconds are few").max(1);
    let rate = f64::from(answers) / took.as_secs_f64();
    (rate, cpu / answers, process.memory())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
