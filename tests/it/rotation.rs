//! The secret changes under load, in every way that files change in.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::canary::numbered;
use crate::harness::{ORDER, Program, get_at, metric_at, start_at, until};
use crate::server::{Server, answer, body, next_request};

const ROTATIONS: usize = 1000;

/// A gateway that takes some of the secrets by their numbers, and remembers what it was sent.
struct Gateway {
    server: Server,
    state: Arc<State>,
}

struct State {
    /// The first and the last of those that it takes.
    takes: Mutex<(usize, usize)>,
    /// Every text that came as a secret.
    sent: Mutex<BTreeSet<String>>,
    /// The last one that was taken.
    taken: watch::Sender<usize>,
    started: AtomicUsize,
}

impl Gateway {
    async fn new() -> Self {
        let state = Arc::new(State {
            takes: Mutex::new((0, 0)),
            sent: Mutex::default(),
            taken: watch::Sender::new(0),
            started: AtomicUsize::new(0),
        });
        let shared = state.clone();
        Self {
            server: Server::new(move |stream| serve(stream, shared.clone())).await,
            state,
        }
    }

    fn take(&self, first: usize, last: usize) {
        *self.state.takes.lock().unwrap() = (first, last);
    }

    /// A start with this secret, or a later one, has come through.
    async fn has_taken(&self, number: usize) {
        let mut taken = self.state.taken.subscribe();
        let taken = tokio::time::timeout(
            Duration::from_secs(20),
            taken.wait_for(|last| *last >= number),
        )
        .await;
        let sent = self.state.sent.lock().unwrap().len();
        assert!(
            taken.is_ok(),
            "number {number} is not sent; {sent} others were"
        );
    }
}

impl State {
    fn answer(&self, body: &str) -> Vec<u8> {
        let body: Value = serde_json::from_str(body).unwrap();
        let secret = body["merchant_secret"].as_str().unwrap();
        self.sent.lock().unwrap().insert(secret.to_owned());
        let (first, last) = *self.takes.lock().unwrap();
        match (first..=last).find(|number| numbered(*number as u64) == secret) {
            Some(number) => {
                self.taken.send_modify(|taken| *taken = number.max(*taken));
                let code = self.started.fetch_add(1, Ordering::SeqCst);
                answer(
                    200,
                    &format!(
                        r#"{{"code":"code-{code}","watch_code":"watch-{code}","message":"ok"}}"#
                    ),
                )
            }
            None => answer(401, r#"{"message":"no"}"#),
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let request = next_request(&mut stream, &mut read).await?;
        let answer = state.answer(body(&request));
        stream.write_all(&answer).await.ok()?;
    }
}

/// Where the secret's file is, and the ways to change it.
struct Mount(TempDir);

impl Mount {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn rename(&self, content: &str) {
        fs::write(self.path("new"), content).unwrap();
        fs::rename(self.path("new"), self.path("secret")).unwrap();
    }

    /// What an editor or a shell does: for a moment it is empty.
    fn write_over(&self, content: &str) {
        fs::write(self.path("secret"), content).unwrap();
    }

    /// As Kubernetes does it.
    fn swap_links(&self, number: usize, content: &str) {
        let version = format!("..version-{number}");
        fs::create_dir(self.path(&version)).unwrap();
        fs::write(self.path(&version).join("secret"), content).unwrap();
        symlink(&version, self.path("..data_tmp")).unwrap();
        let before = fs::read_link(self.path("..data"));
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(self.path(before.to_str().unwrap())).unwrap();
        }
        if fs::read_link(self.path("secret")).is_err() {
            symlink("..data/secret", self.path("link")).unwrap();
            fs::rename(self.path("link"), self.path("secret")).unwrap();
        }
    }

    /// Makes room for what is no good.
    fn clear(&self) {
        let path = self.path("secret");
        if path.is_dir() {
            fs::remove_dir(path).unwrap();
        } else if path.symlink_metadata().is_ok() {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Makes of the file what is no secret.
type Spoil = fn(&Mount);

const BAD: [(&str, Spoil); 9] = [
    ("gone", |_| ()),
    ("empty", |mount| mount.write_over("")),
    ("a directory", |mount| {
        fs::create_dir(mount.path("secret")).unwrap()
    }),
    ("a link to itself", |mount| {
        symlink("secret", mount.path("secret")).unwrap()
    }),
    ("a link to nothing", |mount| {
        symlink("nothing", mount.path("secret")).unwrap()
    }),
    ("too long", |mount| mount.write_over(&"s".repeat(1 << 20))),
    ("far too long", |mount| {
        mount.write_over(&"s".repeat((1 << 20) + 1))
    }),
    ("two lines", |mount| {
        mount.write_over("one-is-long-enough\nthe-other-too\n")
    }),
    ("closed to us", |mount| {
        mount.write_over("");
        // Root reads it all the same, and finds it empty.
        fs::set_permissions(mount.path("secret"), Permissions::from_mode(0o000)).unwrap();
    }),
];

async fn failures(admin: SocketAddr) -> u64 {
    metric_at(admin, "tillgate_secret_reload_failures_total").await
}

#[tokio::test]
async fn a_thousand_rotations_under_load_send_the_old_or_the_new_secret_and_never_a_mixture() {
    let gateway = Gateway::new().await;
    let mount = Mount(tempfile::tempdir().unwrap());
    let secret = |number: usize| numbered(number as u64);
    mount.rename(&secret(0));
    let file = mount.path("secret");
    let settings = [
        ("merchant.secret_file", file.to_str().unwrap()),
        ("start.rate", "100000"),
        ("start.burst", "100000"),
        ("log.level", "off,tillgate::app=info"),
    ];
    let (sidecar, api, admin) = Program::sidecar(&gateway.server.url(), &settings).await;

    let ended = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let ended = ended.clone();
            tokio::spawn(async move {
                let (mut good, mut refused) = (0, 0);
                while !ended.load(Ordering::SeqCst) {
                    let answer = start_at(api, ORDER).await;
                    match answer.status {
                        200 => good += 1,
                        // Two rotations came between, or the file was empty for that moment.
                        502 if answer.text("error") == "gateway_refused_secret" => refused += 1,
                        _ => panic!("{answer:?}"),
                    }
                }
                (good, refused)
            })
        })
        .collect();

    let mut written: BTreeSet<_> = [secret(0)].into();
    for number in 1..=ROTATIONS {
        if number % 100 == 50 {
            let (what, spoil) = BAD[number / 100 % BAD.len()];
            let before = failures(admin).await;
            mount.clear();
            spoil(&mount);
            sidecar.signal("HUP");
            until(what, async || {
                (failures(admin).await > before).then_some(())
            })
            .await;
            let answer = start_at(api, ORDER).await;
            assert_eq!(
                answer.status, 200,
                "{what}: the last good one stays: {answer:?}"
            );
            mount.clear();
        }
        let new = secret(number);
        written.insert(new.clone());
        let content = format!("{new}{}", ["", "\n", "\r\n"][number % 3]);
        gateway.take(number - 1, number);
        match number * 3 / (ROTATIONS + 1) {
            0 => mount.rename(&content),
            1 => mount.write_over(&content),
            _ => mount.swap_links(number, &content),
        }
        // The old one is refused from here on: nobody waits for the next look.
        gateway.take(number, number);
        gateway.has_taken(number).await;
    }
    ended.store(true, Ordering::SeqCst);
    let (mut good, mut refused) = (0, 0);
    for caller in callers {
        let (of_one, refused_of_one) = caller.await.unwrap();
        (good, refused) = (good + of_one, refused + refused_of_one);
    }
    let sent = gateway.state.sent.lock().unwrap().clone();
    let others: Vec<_> = sent.difference(&written).collect();
    assert!(others.is_empty(), "neither the old nor the new: {others:?}");
    assert_eq!(sent.len(), written.len(), "each of them was sent");
    assert!(good >= ROTATIONS, "{good} good starts, {refused} refused");
    assert_eq!(start_at(api, ORDER).await.status, 200);
}

#[tokio::test]
async fn each_kind_of_bad_file_is_told_and_the_last_good_secret_stays() {
    let gateway = Gateway::new().await;
    let mount = Mount(tempfile::tempdir().unwrap());
    mount.rename(&numbered(0));
    let file = mount.path("secret");
    let settings = [("merchant.secret_file", file.to_str().unwrap())];
    let (mut sidecar, api, admin) = Program::sidecar(&gateway.server.url(), &settings).await;
    for (what, spoil) in BAD {
        mount.clear();
        spoil(&mount);
        sidecar.signal("HUP");
        let line = sidecar.log_line("the last good content stays").await;
        assert!(line.contains(file.to_str().unwrap()), "{what}: {line}");
        assert!(
            !line.contains(&numbered(0)) && !line.contains("long-enough") && !line.contains("sss"),
            "{what}: {line}"
        );
        assert_eq!(start_at(api, ORDER).await.status, 200, "{what}");
        assert_eq!(get_at(admin, "/readyz").await.status, 200, "{what}");
        // The next one is told again, though it may look like this one.
        mount.clear();
        mount.rename(&numbered(0));
        sidecar.signal("HUP");
        sidecar.log_line("file good again").await;
    }
    let sent = gateway.state.sent.lock().unwrap().clone();
    assert_eq!(sent.into_iter().collect::<Vec<_>>(), [numbered(0)]);
}
