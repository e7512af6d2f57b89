//! `tillgate dev -- CMD`: the app beside it, in a pipe and on a terminal.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::harness::{Program, Sidecar, free_port, has, run, until};

const ESCAPE: char = '\u{1b}';

fn app(script: &str) -> [&str; 5] {
    ["dev", "--", "sh", "-c", script]
}

/// What the app said, of these lines.
fn of_app(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("app | "))
        .collect()
}

/// Reads on to the app's next line.
async fn line_of_app(dev: &mut Program) -> String {
    loop {
        if let Some(line) = dev.stdout_line().await.strip_prefix("app | ") {
            return line.to_owned();
        }
    }
}

/// Whether a process of this id is there, and not only waits to be forgotten.
fn lives(id: &str) -> bool {
    let id: u32 = id.trim().parse().expect("a process id");
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}

#[tokio::test]
async fn the_app_is_told_line_by_line_and_dev_ends_with_its_exit_code() {
    let script = "echo one; echo two; echo wrong >&2; printf 'no end of line'; exit 7";
    let (code, out, err) = run(&app(script), &[]).await;
    assert_eq!(
        (code, of_app(&out)),
        (7, vec!["one", "two", "no end of line"]),
        "{out}{err}"
    );
    assert_eq!(of_app(&err), ["wrong"]);
    assert!(
        !out.contains(ESCAPE) && !err.contains(ESCAPE),
        "a pipe is no terminal: {out}{err}"
    );
    // The banner comes first, and the log has ended in order.
    assert!(
        out.find("Ctrl-C").unwrap() < out.find("app | one").unwrap(),
        "{out}"
    );
    assert!(err.contains("everything is finished"), "{err}");
    assert!(
        err.contains("tillgate: the app has ended with exit code 7\n"),
        "{err}"
    );

    for (script, code, how) in [
        ("true", 0, "the app has ended with exit code 0"),
        (
            "kill -s KILL $$",
            128 + 9,
            "the app was ended by signal 9 (SIGKILL)",
        ),
        (
            "kill -s TERM $$",
            128 + 15,
            "the app was ended by signal 15 (SIGTERM)",
        ),
    ] {
        let (ended, _, err) = run(&app(script), &[]).await;
        assert!(
            ended == code && err.contains(&format!("tillgate: {how}\n")),
            "{script}: {err}"
        );
    }
}

#[tokio::test]
async fn a_closed_terminal_ends_dev_and_the_sandbox_and_no_hup_does_under_nohup() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // The tests themselves may run under nohup.
    let terminal = ["env", "--default-signal=HUP"];
    let with_app = app("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done");
    let mut dev = Program::start_under(&terminal, directory, &with_app, &[]);
    assert_eq!(line_of_app(&mut dev).await, "up");
    dev.signal("HUP");
    assert_eq!(dev.end().await.0, 5);
    let mut dev = Program::start_under(&terminal, directory, &["dev"], &[]);
    dev.log_line("tillgate is running").await;
    dev.signal("HUP");
    assert_eq!(dev.end().await.0, 0);
    let listen = ["sandbox", "--listen", "127.0.0.1:0"];
    let mut sandbox = Program::start_under(&terminal, directory, &listen, &[]);
    sandbox.stdout_line().await;
    sandbox.signal("HUP");
    assert_eq!(sandbox.end().await.0, 0);

    let ignoring = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
    let mut dev = Program::start_under(&ignoring, directory, &["dev"], &[]);
    dev.log_line("tillgate is running").await;
    dev.signal("HUP");
    dev.signal("TERM");
    let (code, _, err) = dev.end().await;
    // A second wish to end would have ended it with 1.
    assert_eq!(code, 0, "{err}");
}

#[tokio::test]
async fn dev_says_which_ports_were_taken_and_what_they_are_now() {
    // Other tests run `dev` too: whoever is first has the usual ports.
    let _taken: Vec<_> = [8700, 8701, 8081]
        .into_iter()
        .flat_map(|port| {
            ["127.0.0.1", "::1"].map(|host| std::net::TcpListener::bind((host, port)).ok())
        })
        .collect();
    let (code, out, err) = run(&["dev", "--", "true"], &[]).await;
    assert_eq!(code, 0, "{err}");
    for (part, usual, what) in [
        ("API", 8700, "the API"),
        ("Admin", 8701, "the admin listener"),
        ("Gateway", 8081, "the sandbox gateway"),
    ] {
        let url = out
            .lines()
            .find_map(|line| line.trim().strip_prefix(part))
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or_else(|| panic!("no {part}: {out}"));
        let port = url.rsplit(':').next().unwrap();
        assert_ne!(port, usual.to_string());
        let said = format!("Port {usual} is taken by another program: {what} is on port {port}.");
        assert!(out.contains(&said), "no {said:?}: {out}");
    }
}

#[tokio::test]
async fn dev_tells_the_app_by_webhook_and_gives_it_the_key() {
    if !has("python3") {
        return;
    }
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/payment-events");
    // The app: waits for a message, and checks its signature with the key that it was given.
    let script = r#"
import base64, hashlib, hmac, http.server, json, os, sys, urllib.request

class Hooks(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        signed = ".".join([self.headers["webhook-id"], self.headers["webhook-timestamp"], body.decode()])
        key = base64.b64decode(os.environ["TILLGATE_WEBHOOK_KEY"].removeprefix("whsec_"))
        mac = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
        print("signed" if f"v1,{mac}" in self.headers["webhook-signature"].split() else "forged", json.loads(body)["type"])
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass

hooks = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Hooks)
start = urllib.request.Request(os.environ["TILLGATE_URL"] + "/api/start_payment", b'{"amount": 1000}', {"Content-Type": "application/json"})
pay = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(start))["pay_url"]
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(pay, b"")
hooks.handle_request()
"#;
    let port = port.to_string();
    let path = std::env::var("PATH").unwrap();
    let (code, out, err) = run(
        &[
            "dev",
            "--webhook",
            &url,
            "--",
            "python3",
            "-c",
            script,
            &port,
        ],
        &[
            ("PATH", &path),
            // What is given takes the place of these.
            ("webhook.url", "http://127.0.0.1:9/"),
            ("webhook.secret_file", "/nowhere/key"),
            ("TILLGATE_WEBHOOK_KEY", "whsec_old"),
        ],
    )
    .await;
    assert_eq!(
        (code, of_app(&out)),
        (0, vec!["signed payment.completed"]),
        "{out}{err}"
    );
    let banner = out.split("\napp |").next().unwrap();
    for part in [&*url, "whsec_", "TILLGATE_WEBHOOK_KEY"] {
        assert!(banner.contains(part), "no {part:?}: {banner}");
    }
    assert!(!err.contains("whsec_"), "{err}");

    for arguments in [
        &["--webhook", "nonsense"][..],
        &["--webhook", &url, "--tour"],
    ] {
        let (code, out, err) = run(&[&["dev"], arguments].concat(), &[]).await;
        assert_eq!((code, &*out), (2, ""), "{err}");
    }
}

#[tokio::test]
async fn an_error_in_dev_says_what_to_set_there() {
    let sidecar = Sidecar::dev(&[]);
    for (body, part) in [
        (
            r#"{"amount": 1000, "redirect": "https://gateway.timeout/start.rate"}"#,
            r#"In dev that is a variable: TILLGATE_REDIRECT__ALLOWED='["…"]' tillgate dev"#,
        ),
        (
            r#"{"amount": 0}"#,
            "TILLGATE_START__MIN_AMOUNT=… or TILLGATE_START__MAX_AMOUNT=… tillgate dev",
        ),
    ] {
        let answer = sidecar.start(body).await;
        let detail = &answer.json()["detail"];
        assert!(detail.as_str().unwrap().ends_with(part), "{detail}");
    }
    let answer = sidecar.start(r#"{"amount": 1}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Elsewhere there is a file.
    let sidecar = Sidecar::new();
    let answer = sidecar.start(r#"{"amount": 0}"#).await;
    assert!(!answer.text("detail").contains("TILLGATE_"), "{answer:?}");
}

#[tokio::test]
async fn the_app_starts_a_payment_at_the_url_it_is_given() {
    if !has("curl") {
        return;
    }
    let start = r#"curl -sS "$TILLGATE_URL/api/start_payment" -H 'Content-Type: application/json' -d '{"amount": 1000}'"#;
    let (code, out, err) = run(&app(start), &[]).await;
    assert_eq!(code, 0, "{out}{err}");
    let answer = of_app(&out).concat();
    assert!(
        answer.contains("\"watch_code\":\"") && answer.contains("\"pay_url\":\"http://localhost:"),
        "{out}{err}"
    );
}

#[tokio::test]
async fn the_app_has_no_setting_of_ours_in_its_environment() {
    let (code, out, err) = run(
        &app("env"),
        &[
            ("merchant.secret", "a_secret_of_this_test_only"),
            ("start.burst", "7"),
            ("TILLGATE_URL", "http://elsewhere.example"),
            ("ORDERS", "orders.json"),
        ],
    )
    .await;
    assert_eq!(code, 0, "{out}{err}");
    let variables = of_app(&out);
    let ours: Vec<_> = variables
        .iter()
        .filter(|line| line.starts_with("TILLGATE_"))
        .collect();
    let api = out
        .lines()
        .find_map(|line| line.trim().strip_prefix("API"))
        .unwrap();
    let api = api.split_whitespace().next().unwrap();
    assert_eq!(ours, [&format!("TILLGATE_URL={api}")], "{out}");
    assert!(variables.contains(&"ORDERS=orders.json"), "{out}");
    assert!(
        !out.contains("a_secret_of_this_test_only") && !err.contains("a_secret_of_this_test_only")
    );
}

#[tokio::test]
async fn what_cannot_be_run_is_bad_usage() {
    let directory = tempfile::tempdir().unwrap();
    let no_program = directory.path().join("app.py");
    std::fs::write(&no_program, "print('hello')").unwrap();
    for (program, why) in [
        ("no-such-program", "No such file"),
        (no_program.to_str().unwrap(), "Permission denied"),
    ] {
        let (code, out, err) = run(&["dev", "--", program, "--port", "3000"], &[]).await;
        assert_eq!((code, &*out), (2, ""), "{err}");
        let told = err
            .lines()
            .find(|line| line.starts_with("tillgate: cannot run"))
            .unwrap_or_else(|| panic!("{err}"));
        assert!(told.contains(program) && told.contains(why), "{told}");
    }
    let (code, out, err) = run(&["dev", "--tour", "--", "true"], &[]).await;
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("--tour"), "{err}");
    // Its options are its own.
    let (code, out, _) = run(
        &[
            "dev",
            "--",
            "sh",
            "-c",
            "echo \"$@\"",
            "app",
            "--tour",
            "--",
            "-x",
        ],
        &[],
    )
    .await;
    assert_eq!((code, of_app(&out)), (0, vec!["--tour -- -x"]));
}

#[tokio::test]
async fn a_signal_reaches_the_app_first_which_may_finish_what_it_does() {
    if !has("curl") {
        return;
    }
    for signal in ["TERM", "INT"] {
        let script = r#"trap 'curl -s "$TILLGATE_URL/watch/nobody"; echo; echo bye; exit 5' TERM
            echo up; while :; do sleep 0.05; done"#;
        let mut dev = Program::start(&app(script), &[]);
        assert_eq!(line_of_app(&mut dev).await, "up");
        dev.signal(signal);
        let (code, out, err) = dev.end().await;
        assert_eq!(code, 5, "{out}{err}");
        let said = of_app(&out);
        assert!(
            said[0].contains("unknown_watch_code"),
            "it was answered as ever, not with `draining`: {out}"
        );
        assert_eq!(said[1..], ["bye"]);
    }
}

#[tokio::test]
async fn a_second_signal_ends_both_at_once() {
    let script = "trap 'echo told' TERM; echo $$; while :; do sleep 0.05; done";
    let mut dev = Program::start(&app(script), &[]);
    let id = line_of_app(&mut dev).await;
    dev.signal("TERM");
    assert_eq!(line_of_app(&mut dev).await, "told");
    assert!(lives(&id));
    dev.signal("TERM");
    let (code, ..) = dev.end().await;
    assert_eq!(code, 1);
    assert!(!lives(&id));
}

#[tokio::test]
async fn nothing_that_the_app_has_started_outlives_dev() {
    if !has("setsid") {
        return;
    }
    // One in its group, one that will not end by itself, and one that has left the group and its parent.
    let script = "sleep 1000 & echo $!; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & \
        sh -c 'setsid sleep 1000 & echo $!'; sleep 0.5; exit 3";
    let (code, out, err) = run(&app(script), &[]).await;
    assert_eq!(code, 3, "{out}{err}");
    let ids = of_app(&out);
    assert_eq!(ids.len(), 3, "{out}");
    for id in ids {
        assert!(!lives(id), "{out}");
    }
    // The same when it is asked to end.
    let script = "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait";
    let mut dev = Program::start(&app(script), &[]);
    let ids = [line_of_app(&mut dev).await, line_of_app(&mut dev).await];
    assert!(ids.iter().all(|id| lives(id)));
    dev.signal("TERM");
    assert_eq!(dev.end().await.0, 128 + 15);
    assert!(!ids.iter().any(|id| lives(id)), "{ids:?}");
}

#[tokio::test]
async fn no_zombie_is_left_while_the_app_runs() {
    // A grandchild whose parent has ended, and which then ends.
    let mut dev = Program::start(
        &app("sh -c 'sleep 0.1 & echo $!'; echo $$; sleep 1000"),
        &[],
    );
    let (orphan, own) = (line_of_app(&mut dev).await, line_of_app(&mut dev).await);
    let forgotten = async || (!Path::new("/proc").join(orphan.trim()).exists()).then_some(());
    until("the orphan is forgotten", forgotten).await;
    assert!(lives(&own));
}

#[tokio::test]
async fn the_app_reads_what_dev_is_given() {
    let mut dev = Typed::start(
        env!("CARGO_BIN_EXE_tillgate"),
        &app("read line; echo \"got $line\""),
        &[],
    );
    dev.type_in("some words\n").await;
    dev.shows("app | got some words").await;
    assert_eq!(dev.end().await, 0);
}

#[tokio::test]
async fn on_a_terminal_the_app_reads_and_ctrl_c_is_for_it() {
    if !has("script") {
        return;
    }
    let script = "trap 'told=yes' INT; trap 'echo terminated' TERM; echo up; read line; echo \"got $line\"\n\
        while [ -z \"$told\" ]; do sleep 0.05; done; trap '' INT; echo interrupted; while :; do sleep 0.05; done";
    let mut dev = Typed::on_terminal(script, &[]).await;
    dev.shows("up").await;
    dev.type_in("some words\n").await;
    dev.shows("got some words").await;
    dev.type_in("\u{3}").await;
    let told = dev.shows("interrupted").await;
    assert!(
        !told.contains("terminated"),
        "one wish to end is enough: {told}"
    );
    // This app does not end by that: the next one is not only for it.
    dev.type_in("\u{3}").await;
    assert_eq!(dev.end().await, 1);

    let mut dev = Typed::on_terminal("echo up; sleep 1000", &[]).await;
    dev.shows("up").await;
    dev.type_in("\u{3}").await;
    assert_eq!(dev.end().await, 128 + 2);
}

#[tokio::test]
async fn on_a_terminal_there_is_colour_unless_it_is_not_wanted() {
    if !has("script") || !has("curl") {
        return;
    }
    let script = r#"curl -s "$TILLGATE_URL/watch/nobody" > /dev/null; echo wrong >&2; sleep 0.2"#;
    let [coloured, plain, again] =
        [&[][..], &[("NO_COLOR", "1")], &[("NO_COLOR", "")]].map(async |variables| {
            let mut dev = Typed::on_terminal(script, variables).await;
            let told = dev.shows("everything is finished").await;
            assert_eq!(dev.end().await, 0, "{told}");
            told
        });
    let (coloured, plain, again) = (coloured.await, plain.await, again.await);
    for told in [coloured, again] {
        for part in [
            "\u{1b}[1mtillgate\u{1b}[0m",
            "\u{1b}[32m INFO\u{1b}[0m",
            "\u{1b}[33mapp |\u{1b}[0m wrong",
        ] {
            assert!(told.contains(part), "no {part:?} in {told:?}");
        }
    }
    assert!(!plain.contains(ESCAPE), "{plain:?}");
    assert!(
        plain.contains("app | wrong") && plain.contains(" INFO tillgate is running"),
        "{plain}"
    );
}

/// A program that somebody types at.
struct Typed {
    child: Child,
    keys: ChildStdin,
    said: BufReader<tokio::process::ChildStdout>,
    /// Where the script of its app is.
    _directory: Option<tempfile::TempDir>,
}

impl Typed {
    fn start(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(variables.iter().copied())
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let (keys, said) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        Self {
            child,
            keys,
            said,
            _directory: None,
        }
    }

    /// `dev` with this app on a terminal of its own.
    async fn on_terminal(script: &str, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sh");
        std::fs::write(&path, script).unwrap();
        let line = format!(
            "exec {} dev -- sh {}",
            env!("CARGO_BIN_EXE_tillgate"),
            path.display()
        );
        let typed = Self::start("script", &["-qec", &line, "/dev/null"], variables);
        Self {
            _directory: Some(directory),
            ..typed
        }
    }

    async fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.unwrap();
    }

    /// Reads up to a line that has this in it: all of it.
    async fn shows(&mut self, part: &str) -> String {
        let mut told = String::new();
        until(part, async || {
            let mut line = String::new();
            assert_ne!(
                self.said.read_line(&mut line).await.unwrap(),
                0,
                "it ended before {part:?}: {told}"
            );
            told.push_str(&line);
            line.contains(part).then_some(())
        })
        .await;
        told
    }

    async fn end(mut self) -> i32 {
        let end = async {
            let _ = self.said.read_to_end(&mut Vec::new()).await;
            self.child
                .wait()
                .await
                .unwrap()
                .code()
                .expect("an exit code")
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), end)
            .await
            .expect("an end in time")
    }
}
