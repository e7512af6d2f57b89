//! The memory of the program: who may read it, and what stands in it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::canary::Canary;
use crate::harness::{ORDER, Program, Wire, get_at, has, metric_at, start_at, until};
use crate::scripted::{Act, Gateway, answer, tls};

/// Not closed to us, as it is without this.
const DEBUGGABLE: [(&str, &str); 1] = [("TILLGATE_DEBUGGABLE", "1")];

/// Everything that a process can have written in its memory: a name and the bytes of each part. `None` if this user may
/// not read it.
pub fn memory_of(id: u32) -> Option<Vec<(String, Vec<u8>)>> {
    let memory = fs::File::open(format!("/proc/{id}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).ok()?;
    let parts = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(address(to) - address(from)).unwrap()];
        // A part may go while we read; the kernel's own cannot be read at all.
        let is_read =
            rest.starts_with("rw") && memory.read_exact_at(&mut bytes, address(from)).is_ok();
        // Most of it was never used.
        let used = bytes
            .chunks(4096)
            .filter(|page| **page != [0; 4096][..page.len()]);
        is_read.then(|| (line.to_owned(), used.collect::<Vec<_>>().concat()))
    });
    Some(parts.collect()).filter(|parts: &Vec<_>| !parts.is_empty())
}

/// Where it stands in the memory of that process, in which form, and how much of it.
pub fn seen_in(
    canary: &Canary,
    memory: &[(String, Vec<u8>)],
) -> Vec<(String, &'static str, usize)> {
    let mut all = Vec::new();
    for (part, bytes) in memory {
        for seen in canary.sightings(bytes) {
            all.push((part.clone(), seen.form, seen.length));
        }
    }
    all
}

/// That of one which is debuggable.
fn open_memory_of(program: &Program) -> Vec<(String, Vec<u8>)> {
    memory_of(program.id()).expect("it is open to us")
}

/// So often it stands in the memory, whole and as it is; anything else of it is a fault.
fn copies(canary: &Canary, memory: &[(String, Vec<u8>)]) -> usize {
    let seen = seen_in(canary, memory);
    assert!(
        seen.iter()
            .all(|(_, form, length)| *form == "raw" && *length == canary.secret.len()),
        "{seen:#?}"
    );
    seen.len()
}

#[tokio::test]
async fn after_ten_thousand_starts_its_memory_has_the_secret_once() {
    let canary = Canary::numbered(1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, format!("{}\n", canary.secret)).unwrap();
    let (_sandbox, gateway) = Program::sandbox(&["--secret", &canary.secret]).await;
    let settings = [
        ("merchant.secret_file", file.to_str().unwrap()),
        ("start.rate", "100000"),
        ("start.burst", "100000"),
        ("log.level", "warn,tillgate::app=info"),
    ];
    let (sidecar, api, _) =
        Program::sidecar(&gateway, &[&settings[..], &DEBUGGABLE].concat()).await;
    let starts = (0..8).map(|_| async move {
        let mut wire = Wire::open(api).await;
        let head = "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        for _ in 0..1250 {
            wire.send(format!("{head}Content-Length: {}\r\n\r\n{ORDER}", ORDER.len())).await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    });
    futures_util::future::join_all(starts).await;
    // What is on its way to the gateway or back is no longer there when the idle connections are gone.
    until("one copy", async || {
        let seen = seen_in(&canary, &open_memory_of(&sidecar));
        assert!(!seen.is_empty(), "the search finds nothing");
        (seen.len() == 1).then_some(())
    })
    .await;
    assert_eq!(copies(&canary, &open_memory_of(&sidecar)), 1);
}

/// A gateway behind TLS that says in each answer what it was sent, and its authority as PEM.
async fn echoing_gateway() -> (Gateway, String) {
    let (authority, tls) = tls("localhost");
    let gateway = Gateway::with_tls(Some(tls), |number, request| {
        let code = format!("c{number}");
        let body = serde_json::json!({"code": code, "watch_code": code, "message": request});
        Act::Say(answer(200, &body.to_string()))
    });
    (gateway.await, authority)
}

#[tokio::test]
async fn a_gateway_that_echoes_the_secret_over_tls_leaves_no_copy_in_its_memory() {
    let canary = Canary::numbered(4);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (gateway, pem) = echoing_gateway().await;
    fs::write(path("secret"), &canary.secret).unwrap();
    fs::write(path("pem"), pem).unwrap();
    let (secret, pem) = (path("secret"), path("pem"));
    let settings = [
        ("merchant.secret_file", &*secret),
        ("gateway.ca_file", &*pem),
        ("start.burst", "1000"),
        ("start.rate", "1000"),
        ("log.level", "off,tillgate::app=info"),
    ];
    let (sidecar, api, admin) =
        Program::sidecar(&gateway.https_url(), &[&settings[..], &DEBUGGABLE].concat()).await;
    for _ in 0..100 {
        let answer = start_at(api, ORDER).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("[redacted]"), "{answer:?}");
    }
    assert_eq!(metric_at(admin, "tillgate_secret_echo_total").await, 100);
    until("one copy", async || {
        (seen_in(&canary, &open_memory_of(&sidecar)).len() == 1).then_some(())
    })
    .await;
    assert_eq!(copies(&canary, &open_memory_of(&sidecar)), 1);
}

#[tokio::test]
async fn of_a_secret_that_changes_its_memory_has_the_last_nine_once_each() {
    let canaries: Vec<_> = (100..112).map(Canary::numbered).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, &canaries[0].secret).unwrap();
    let (_sandbox, gateway) = Program::sandbox(&["--secret", &canaries[0].secret]).await;
    let settings = [("merchant.secret_file", file.to_str().unwrap())];
    let (mut sidecar, api, _) =
        Program::sidecar(&gateway, &[&settings[..], &DEBUGGABLE].concat()).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    for canary in &canaries[1..] {
        fs::write(directory.path().join("new"), &canary.secret).unwrap();
        fs::rename(directory.path().join("new"), &file).unwrap();
        sidecar.signal("HUP");
        sidecar.log_line("file loaded").await;
    }
    assert_eq!(
        start_at(api, ORDER).await.text("error"),
        "gateway_refused_secret"
    );
    // Those of the answers that are still to come are looked for in them (the eight before this one).
    let expected = [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    until("nine of them", async || {
        let memory = open_memory_of(&sidecar);
        canaries
            .iter()
            .map(|canary| copies(canary, &memory))
            .eq(expected)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_inline_secret_stands_in_its_memory_once_and_once_more_in_its_environment() {
    let canary = Canary::numbered(2);
    let (_sandbox, gateway) = Program::sandbox(&["--secret", &canary.secret]).await;
    let variable = [("merchant.secret", canary.secret.as_str())];
    let (sidecar, api, _) =
        Program::sidecar(&gateway, &[&variable[..], &DEBUGGABLE].concat()).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    until("two copies", async || {
        (copies(&canary, &open_memory_of(&sidecar)) == 2).then_some(())
    })
    .await;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tillgate.toml");
    let toml = format!(
        "[gateway]\nurl = {gateway:?}\n[merchant]\nsecret = {:?}\n[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n",
        canary.secret
    );
    fs::write(&file, toml).unwrap();
    let mut sidecar = Program::start(&["run", "--config", file.to_str().unwrap()], &DEBUGGABLE);
    let (api, _) = sidecar.addresses().await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    until("one copy", async || {
        (copies(&canary, &open_memory_of(&sidecar)) == 1).then_some(())
    })
    .await;
}

/// What takes root's privileges away, so that it is a user like any other.
const AS_A_USER: [&str; 4] = [
    "setpriv",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--no-new-privs",
];

/// What another program of the same user is told when it reads this file.
async fn read_by_another(path: &str) -> Output {
    Command::new(AS_A_USER[0])
        .args(&AS_A_USER[1..])
        .args(["head", "-c", "1", path])
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn others_of_its_user_read_neither_its_environment_nor_its_memory() {
    if !has("setpriv") {
        return;
    }
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    for (variables, may_read) in [(&[][..], false), (&DEBUGGABLE[..], true)] {
        let mut sidecar = Program::launch(&AS_A_USER, &gateway, variables);
        let (_, admin) = sidecar.addresses().await;
        for file in ["environ", "maps", "mem"] {
            let read = read_by_another(&format!("/proc/{}/{file}", sidecar.id())).await;
            let told = String::from_utf8_lossy(&read.stderr);
            // Nothing is mapped at the first address, and some systems let only parents read there.
            if file != "mem" || !may_read {
                assert_eq!(read.status.success(), may_read, "{file}: {told}");
                assert_eq!(
                    told.contains("Permission denied"),
                    !may_read,
                    "{file}: {told}"
                );
            }
        }
        let status = get_at(admin, "/status").await.json();
        assert_eq!(status["hardening"]["not_dumpable"], !may_read, "{status:#}");
        let page = get_at(admin, "/").await.body;
        assert!(
            page.contains(if may_read {
                "memory open"
            } else {
                "memory closed"
            }),
            "{page}"
        );
    }
}

/// The value of a field in `/proc/…/status`.
fn status_field(process: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}: {status}"))
        .trim()
        .to_owned()
}

#[tokio::test]
async fn nothing_that_it_runs_gains_privileges_unless_it_is_debuggable() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let ours = status_field("self", "NoNewPrivs");
    for (variables, expected) in [
        (&[][..], "1"),
        (&DEBUGGABLE[..], &*ours),
        (&[("TILLGATE_DEBUGGABLE", "0")], "1"),
    ] {
        let (sidecar, _, admin) = Program::sidecar(&gateway, variables).await;
        let id = sidecar.id();
        assert_eq!(
            status_field(&id.to_string(), "NoNewPrivs"),
            expected,
            "{variables:?}"
        );
        for thread in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
            let thread = format!(
                "{id}/task/{}",
                thread.unwrap().file_name().to_str().unwrap()
            );
            assert_eq!(status_field(&thread, "NoNewPrivs"), expected, "{thread}");
        }
        let hardening = &get_at(admin, "/status").await.json()["hardening"];
        assert_eq!(hardening["no_new_privs"], expected == "1", "{hardening}");
        let warned = sidecar
            .log
            .iter()
            .any(|line| line.contains("may read the memory"));
        let is_whole = ["not_dumpable", "no_core", "no_new_privs"]
            .iter()
            .all(|name| hardening[name] == true);
        assert_eq!(warned, !is_whole, "{:#?}", sidecar.log);
        assert!(is_whole || variables == DEBUGGABLE, "{hardening}");
    }
}

/// A core file may be as large as it likes.
pub const WITH_CORES: [&str; 4] = [
    "/bin/sh",
    "-c",
    r#"ulimit -c unlimited 2>/dev/null; exec "$@""#,
    "sh",
];

#[tokio::test]
async fn it_leaves_no_core_file_unless_it_is_debuggable() {
    let canary = Canary::numbered(3);
    let core_of = async |debuggable: &str| {
        let directory = tempfile::tempdir().unwrap();
        let variables = [
            ("TILLGATE_DEBUGGABLE", debuggable),
            ("gateway.url", "http://127.0.0.1:9"),
            ("merchant.secret", &canary.secret),
            ("listen.address", "127.0.0.1:0"),
            ("admin.address", "127.0.0.1:0"),
        ];
        let mut sidecar = Program::start_under(&WITH_CORES, directory.path(), &["run"], &variables);
        sidecar.log_line("tillgate is running").await;
        let limit = limit_of_cores(sidecar.id());
        sidecar.signal("ABRT");
        let status = sidecar.died().await;
        assert_eq!(status.signal(), Some(6), "{status:?}");
        let files = fs::read_dir(directory.path())
            .unwrap()
            .map(|file| fs::read(file.unwrap().path()).unwrap());
        let told = files
            .map(|core| canary.sightings(&core).len())
            .sum::<usize>();
        (status.core_dumped(), told > 0, limit)
    };
    assert_eq!(core_of("").await, (false, false, "0".to_owned()));
    // What a core file would tell. Where the system puts them elsewhere, or allows none, there is nothing to compare.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let (is_dumped, told, limit) = core_of("1").await;
    if limit == "unlimited" && !pattern.trim().is_empty() && !pattern.contains(['|', '/']) {
        assert!(is_dumped && told, "{is_dumped} {told}");
    }
}

fn limit_of_cores(id: u32) -> String {
    let limits =
        fs::read_to_string(Path::new("/proc").join(id.to_string()).join("limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn dev_closes_its_memory_too() {
    let mut dev = Program::start(&["dev"], &[]);
    let admin = loop {
        if let Some((_, rest)) = dev.stdout_line().await.split_once("Admin    http://") {
            break rest
                .split_whitespace()
                .next()
                .unwrap()
                .replace("localhost", "127.0.0.1");
        }
    };
    let status: Value = get_at(admin.parse().unwrap(), "/status").await.json();
    assert_eq!(
        status["hardening"],
        serde_json::json!({"not_dumpable": true, "no_core": true, "no_new_privs": true})
    );
}
