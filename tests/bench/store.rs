//! What it costs that nothing is forgotten: the store in a directory against the one in memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::load::{self, Load};
use crate::process::{self, Sidecar};
use crate::{MEASURE, SETTLE, table};

const PAYMENTS: usize = 100_000;
const ROOM: &str = "150000";

/// Starts per second, fsyncs for each, the time to open, and the room on the disk.
pub(crate) async fn measure(pinned: bool) {
    println!(
        "\n{:<28}{:>12}{:>18}{:>18}{:>14}",
        "starts, by store", "starts/s", "CPU per start", "fsyncs per start", "aim"
    );
    for connections in [1, 64] {
        for kind in ["memory:", "file:"] {
            let (_sandbox, gateway) = process::sandbox();
            let (rate, cpu, _) = {
                let sidecar = open(gateway, &url_of(kind, true), pinned, &[]);
                starts(&sidecar, connections).await
            };
            // Counted apart: to be watched costs time.
            let fsyncs = if kind == "file:" {
                fsyncs(gateway, connections, pinned, None).await.0
            } else {
                "0".to_owned()
            };
            let what = format!("{kind} {connections} at once");
            let cpu = format!("{:.1} us", cpu.as_secs_f64() * 1e6);
            println!("{what:<28}{rate:>12.0}{cpu:>18}{fsyncs:>18}{:>14}", "");
        }
    }
    // Where it is quick, so many of them do no harm; what matters is how many there are where it is slow.
    for (delay, disk) in [("1000", "1 ms"), ("5000", "5 ms")] {
        let (_sandbox, gateway) = process::sandbox();
        let (fsyncs, rate) = fsyncs(gateway, 64, pinned, Some(delay)).await;
        let what = format!("file: 64, an fsync {disk}");
        println!(
            "{what:<28}{rate:>12.0}{:>18}{fsyncs:>18}{:>14}",
            "", "< 0.1 fsyncs"
        );
    }
    opening(pinned).await;
}

/// Where it is; a directory that holds nothing yet if `fresh`.
fn url_of(kind: &str, fresh: bool) -> String {
    if kind == "memory:" {
        return kind.to_owned();
    }
    if fresh {
        // There may be none.
        let _ = std::fs::remove_dir_all(directory());
    }
    format!("file:{}", directory().display())
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-store")
}

fn open(gateway: SocketAddr, store: &str, pinned: bool, under: &[&str]) -> Sidecar {
    let settings = [
        ("LOG__LEVEL", "error"),
        ("STORE__URL", store),
        ("WATCH__MAX_TRACKED", ROOM),
    ];
    process::sidecar_under(under, gateway, &settings, pinned)
}

/// Per second, the time of a core for each, and all that there were.
async fn starts(sidecar: &Sidecar, connections: usize) -> (f64, Duration, u64) {
    let load = Load::of(connections, sidecar.api, load::start()).await;
    tokio::time::sleep(SETTLE).await;
    let (began, cpu, before) = (Instant::now(), sidecar.process.cpu_time(), load.answers());
    tokio::time::sleep(MEASURE).await;
    let (took, cpu, answers) = (
        began.elapsed(),
        sidecar.process.cpu_time().saturating_sub(cpu),
        load.answers() - before,
    );
    let all = load.answers();
    load.end();
    let answers = u32::try_from(answers).expect("seconds are few").max(1);
    (f64::from(answers) / took.as_secs_f64(), cpu / answers, all)
}

/// How many for each start, as strace counts them, which stops at these calls only; and starts per second meanwhile.
/// With a delay, in microseconds, each takes so much longer.
async fn fsyncs(
    gateway: SocketAddr,
    connections: usize,
    pinned: bool,
    delay: Option<&str>,
) -> (String, f64) {
    if !Command::new("strace")
        .arg("-V")
        .output()
        .is_ok_and(|strace| strace.status.success())
    {
        return ("no strace".to_owned(), 0.0);
    }
    let counted = directory().with_extension("strace");
    let inject = delay.map(|delay| format!("inject=fdatasync:delay_exit={delay}"));
    let mut under = vec![
        "strace",
        "-D",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-e",
        "signal=none",
        "-e",
        "trace=fdatasync",
    ];
    under.extend(inject.iter().flat_map(|inject| ["-e", inject]));
    under.extend(["-o", counted.to_str().expect("a path")]);
    let sidecar = open(gateway, &url_of("file:", true), pinned, &under);
    let count = || {
        std::fs::read_to_string(&counted)
            .unwrap_or_default()
            .matches("sync(")
            .count()
    };
    let before = count();
    let (rate, _, answers) = starts(&sidecar, connections).await;
    drop(sidecar);
    let synced = u32::try_from(count() - before).expect("few");
    let answers = u32::try_from(answers).expect("seconds are few");
    (
        format!("{:.3}", f64::from(synced) / f64::from(answers)),
        rate,
    )
}

async fn opening(pinned: bool) {
    table::head(&format!("a store of {PAYMENTS} payments, none with a key"));
    let (_sandbox, gateway) = process::sandbox();
    let store = url_of("file:", true);
    let sidecar = open(gateway, &store, pinned, &[]);
    load::fill(sidecar.api, PAYMENTS).await;
    sidecar.process.terminate();
    let size = std::fs::metadata(directory().join("store.redb"))
        .expect("the store")
        .len();
    let row = |what: &str, sidecar: &Sidecar| {
        table::row(
            what,
            &format!("{:.0} ms", sidecar.ready_after.as_secs_f64() * 1e3),
            "< 1000 ms",
        );
    };
    let sidecar = open(gateway, &store, pinned, &[]);
    row("ready after a shutdown in peace", &sidecar);
    load::fill(sidecar.api, 100).await;
    drop(sidecar);
    let sidecar = open(gateway, &store, pinned, &[]);
    row("ready after SIGKILL", &sidecar);
    table::row(
        "on the disk, for each payment",
        &format!("{} bytes", table::each(0, size, PAYMENTS)),
        "",
    );
    drop(sidecar);
    let _ = std::fs::remove_dir_all(directory());
}
