//! The built program: its words, exit codes, signals, files and logs.

mod check;
mod remarks;
mod store;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;
use tillgate::sandbox::DEFAULT_SECRET;
use tokio::process::Command;

use crate::harness::{
    NOBODY, ORDER, Program, Wire, call, calls, closed_port, get_at, has, metric_at, run, start_at,
    until,
};

const SECRET: &str = "a_secret_of_this_test_only";

/// A directory with this configuration in it, and the path of the file.
fn config(text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidecar.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

/// `check` of this configuration with these variables: exit code and everything that it says.
async fn check(text: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let (_directory, path) = config(text);
    let (code, out, err) = run(&["check", "--config", &path], variables).await;
    (code, out + &err)
}

/// `check` of a good configuration that these variables change.
async fn check_with(variables: &[(&str, &str)]) -> (i32, String) {
    let good = format!("[gateway]\nurl = \"{NOBODY}\"\n[merchant]\nsecret = \"{SECRET}\"\n");
    check(&good, variables).await
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[tokio::test]
async fn version_and_help_are_answers() {
    let (code, out, err) = run(&["--version"], &[]).await;
    assert_eq!(
        (code, out.trim(), err.as_str()),
        (0, concat!("tillgate ", env!("CARGO_PKG_VERSION")), "")
    );
    let (code, out, err) = run(&["--help"], &[]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    says(
        &out,
        &["run", "dev", "sandbox", "check", "health", "--version"],
    );
    for command in ["run", "dev", "sandbox", "check", "health"] {
        let (code, out, _) = run(&[command, "--help"], &[]).await;
        assert_eq!(code, 0);
        says(&out, &["Usage: tillgate"]);
    }
}

#[tokio::test]
async fn bad_usage_is_told_on_stderr_and_ends_with_2() {
    for arguments in [
        &["rnu"][..],
        &[],
        &["run", "--confg", "x"],
        &["run", "extra"],
        &["check", "--start"],
        &["health", "--wait", "soon"],
        &["sandbox", "--fault", "start:explode"],
        &["sandbox", "--fault", "nonsense"],
        &["sandbox", "--listen", "nowhere"],
        &["sandbox", "--auto-complete", "5"],
    ] {
        let (code, out, err) = run(arguments, &[]).await;
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(!err.is_empty(), "{arguments:?}");
    }
    let (_, _, err) = run(&["rnu"], &[]).await;
    says(&err, &["rnu"]);
    let (_, _, err) = run(&["sandbox", "--fault", "start:explode"], &[]).await;
    says(&err, &["explode", "reset"]);
}

#[tokio::test]
async fn a_secret_in_the_variable_is_taken_as_it_stands() {
    for secret in [
        "12345678",
        "007007007",
        "\"quoted\"",
        "'quoted-too'",
        "[12345678]",
        "true\\false",
        "1e10.0000",
        "#hash#hash",
    ] {
        let (_sandbox, gateway) = Program::sandbox(&["--secret", secret]).await;
        let (_sidecar, api, _) = Program::sidecar(&gateway, &[("merchant.secret", secret)]).await;
        let answer = start_at(api, ORDER).await;
        assert_eq!(answer.status, 200, "{secret}: {answer:?}");
    }
}

#[tokio::test]
async fn health_tells_that_its_configuration_file_is_missing_instead_of_asking_elsewhere() {
    let (code, _, err) = run(&["health", "--config", "/nowhere/sidecar.toml"], &[]).await;
    assert_eq!(code, 2, "{err}");
    says(&err, &["/nowhere/sidecar.toml"]);
}

#[tokio::test]
async fn the_file_of_the_working_directory_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[gateway]\nurl = \"{NOBODY}\"\n[merchant]\nsecret = \"{SECRET}\"\n[start]\nburst = 13\n"
    );
    fs::write(directory.path().join("tillgate.toml"), text).unwrap();
    let (code, out, err) = Program::start_in(directory.path(), &["check"], &[])
        .end()
        .await;
    assert_eq!(code, 0, "{err}");
    says(&out, &["burst = 13", "tillgate.toml:6"]);
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["listen.address", "admin.address"] {
        let mut variables = vec![
            ("gateway.url", NOBODY),
            ("merchant.secret", SECRET),
            ("listen.address", "127.0.0.1:0"),
            ("admin.address", "127.0.0.1:0"),
        ];
        variables.push((key, &address));
        let (code, out, err) = run(&["run"], &variables).await;
        assert_eq!(
            (code, out.as_str(), err.lines().count()),
            (1, "", 1),
            "{err}"
        );
        says(&err, &[key, &address]);
    }
    let (code, out, err) = run(&["sandbox", "--listen", &address], &[]).await;
    assert_eq!(
        (code, out.as_str(), err.lines().count()),
        (1, "", 1),
        "{err}"
    );
    says(&err, &[&address]);
}

#[tokio::test]
async fn health_tells_whether_the_sidecar_is_ready_and_can_wait_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let (_sidecar, _, admin) =
        Program::sidecar(NOBODY, &[("merchant.secret_file", file.to_str().unwrap())]).await;
    let address = admin.to_string();
    let variables = [("admin.address", address.as_str())];
    let (code, _, err) = run(&["health"], &variables).await;
    assert_eq!(code, 1);
    says(&err, &["secret"]);
    let (code, _, _) = run(&["health", "--wait", "200ms"], &variables).await;
    assert_eq!(code, 1);
    let waiting = tokio::spawn(Program::start(&["health", "--wait", "15s"], &variables).end());
    fs::write(&file, SECRET).unwrap();
    let (code, _, err) = waiting.await.unwrap();
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        run(&["health"], &variables).await,
        (0, String::new(), String::new())
    );
    let (_socket, nobody) = closed_port();
    let nobody = nobody.trim_start_matches("http://");
    let (code, _, err) = run(&["health"], &[("admin.address", nobody)]).await;
    assert_eq!(code, 1);
    says(&err, &[nobody]);
}

#[tokio::test]
async fn the_tour_walks_all_steps_of_the_guide() {
    let (code, out, err) = run(&["dev", "--tour"], &[]).await;
    assert_eq!(code, 0, "{out}{err}");
    for step in 0..=4 {
        says(&out, &[&format!("Step {step}")]);
    }
    says(
        &out,
        &[
            "POST http://localhost:",
            "/api/start_payment",
            "\"amount\": 1000",
            "pay_url",
            "\"status\":\"completed\"",
            "303",
        ],
    );
    let of_app: Vec<_> = out
        .lines()
        .filter(|line| line.contains("merchant_secret") || line.contains(DEFAULT_SECRET))
        .collect();
    assert_eq!(of_app, [""; 0], "the app's side of the tour has no secret");
}

#[tokio::test]
async fn dev_prints_lines_to_paste_that_work() {
    lines_to_paste_work(&[("merchant.secret_file", "/nowhere"), ("gateway.url", "")]).await;
}

#[tokio::test]
async fn dev_shows_the_token_that_it_is_told_to_want() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("the shop's tokens");
    fs::write(&file, "\na_token_of_this_test\nanother\n").unwrap();
    let variables = [("listen.token_file", file.to_str().unwrap())];
    let banner = lines_to_paste_work(&variables).await;
    assert!(!banner.contains("a_token_of_this_test"), "{banner}");
    let (code, out, err) = run(&["dev", "--tour"], &variables).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(!(out + &err).contains("a_token_of_this_test"));
}

/// Starts `dev` and does what its banner says, which is what it gives.
async fn lines_to_paste_work(variables: &[(&str, &str)]) -> String {
    let mut dev = Program::start(&["dev"], variables);
    let mut banner = String::new();
    while !banner.contains("Ctrl-C") {
        banner.push_str(&dev.stdout_line().await);
        banner.push('\n');
    }
    says(
        &banner,
        &["API", "Admin", "Gateway", "curl -s", " http://localhost:"],
    );
    if has("curl") && has("sh") {
        let lines: Vec<_> = banner
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        let first = lines
            .iter()
            .position(|line| line.starts_with("P="))
            .unwrap();
        let script = lines[first..]
            .iter()
            .take_while(|line| !line.starts_with("Ctrl-C"))
            .copied()
            .collect::<Vec<_>>()
            .join("\n");
        let done = Command::new("sh")
            .args(["-c", &script])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{script}\n{said}");
        says(&said, &["pay_url", "/pay/", "\"status\":\"created\""]);
    }
    dev.signal("INT");
    assert_eq!(dev.end().await.0, 0);
    banner
}

/// A sidecar in front of a sandbox whose starts take a while, and a start that has reached it.
async fn with_running_start(
    fault: &str,
    settings: &[(&str, &str)],
) -> (Program, Program, SocketAddr, SocketAddr, Wire, Wire) {
    let (sandbox, gateway) = Program::sandbox(&["--fault", fault]).await;
    let (sidecar, api, admin) = Program::sidecar(&gateway, settings).await;
    let mut idle = Wire::open(api).await;
    idle.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(idle.answer().await.status, 404);
    let mut running = Wire::open(api).await;
    let head =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    running
        .send(format!(
            "{head}Content-Length: {}\r\n\r\n{ORDER}",
            ORDER.len()
        ))
        .await;
    until("the start at the gateway", async || {
        (calls(&gateway).await.0 == 1).then_some(())
    })
    .await;
    (sandbox, sidecar, api, admin, idle, running)
}

#[tokio::test]
async fn a_terminated_sidecar_finishes_what_runs_and_refuses_what_comes() {
    for signal in ["TERM", "INT"] {
        let (_sandbox, sidecar, api, admin, mut idle, mut running) =
            with_running_start("start:delay=4s", &[]).await;
        assert_eq!(get_at(admin, "/readyz").await.status, 200);
        sidecar.signal(signal);
        until("unready", async || {
            (get_at(admin, "/readyz").await.status == 503).then_some(())
        })
        .await;
        assert_eq!(get_at(admin, "/livez").await.status, 200);
        idle.send("GET /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let refused = idle.answer().await;
        assert_eq!((refused.status, refused.text("error")), (503, "draining"));
        assert!(!refused.header("retry-after").is_empty());
        idle.closed().await;
        until("no new connection", async || {
            tokio::net::TcpStream::connect(api).await.err()
        })
        .await;
        let finished = running.answer().await;
        assert_eq!(finished.status, 200, "{finished:?}");
        running.closed().await;
        let (code, out, err) = sidecar.end().await;
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
    }
}

#[tokio::test]
async fn the_drain_timeout_cuts_off_a_start_that_hangs() {
    let (_sandbox, sidecar, _, _, _idle, _running) = with_running_start(
        "start:hang",
        &[
            ("listen.drain_timeout", "300ms"),
            ("gateway.timeout", "60s"),
        ],
    )
    .await;
    sidecar.signal("TERM");
    let (code, _, err) = sidecar.end().await;
    assert_eq!(code, 0, "{err}");
    says(&err, &["drain_timeout"]);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_with_1() {
    let (_sandbox, sidecar, _, admin, _idle, _running) = with_running_start(
        "start:hang",
        &[("listen.drain_timeout", "10m"), ("gateway.timeout", "10m")],
    )
    .await;
    sidecar.signal("TERM");
    until("unready", async || {
        (get_at(admin, "/readyz").await.status == 503).then_some(())
    })
    .await;
    sidecar.signal("INT");
    assert_eq!(sidecar.end().await.0, 1);
}

#[tokio::test]
async fn an_idle_sidecar_and_a_sandbox_end_at_once_when_asked_to() {
    let (sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, api, _) = Program::sidecar(&gateway, &[("listen.drain_timeout", "10m")]).await;
    let mut idle = Wire::open(api).await;
    idle.send("GET /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(idle.answer().await.status, 404);
    let silent = Wire::open(api).await;
    sidecar.signal("TERM");
    idle.closed().await;
    silent.closed().await;
    assert_eq!(sidecar.end().await.0, 0);
    sandbox.signal("TERM");
    assert_eq!(sandbox.end().await.0, 0);
}

/// A sandbox that takes this secret, and a sidecar that reads its own from a file.
async fn with_secret_file(
    taken: &str,
    file: &Path,
) -> (Program, Program, String, SocketAddr, SocketAddr) {
    let (sandbox, gateway) = Program::sandbox(&["--secret", taken]).await;
    let (sidecar, api, admin) = Program::sidecar(
        &gateway,
        &[("merchant.secret_file", file.to_str().unwrap())],
    )
    .await;
    (sandbox, sidecar, gateway, api, admin)
}

#[tokio::test]
async fn a_secret_file_may_come_late() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let (_sandbox, sidecar, gateway, api, admin) = with_secret_file(SECRET, &file).await;
    assert_eq!(get_at(admin, "/readyz").await.status, 503);
    assert_eq!(get_at(admin, "/livez").await.status, 200);
    says(&get_at(admin, "/readyz?verbose").await.body, &["[-]secret"]);
    let refused = start_at(api, ORDER).await;
    assert_eq!(
        (
            refused.status,
            refused.text("error"),
            refused.text("outcome")
        ),
        (503, "secret_unavailable", "not_sent")
    );
    assert!(
        refused
            .header("retry-after")
            .parse::<u64>()
            .is_ok_and(|seconds| seconds >= 1),
        "{refused:?}"
    );
    // It would not be known what to take out of the answer.
    let refused = get_at(api, "/watch/x").await;
    assert_eq!(
        (refused.status, refused.text("error")),
        (503, "secret_unavailable")
    );
    assert_eq!(calls(&gateway).await, (0, 0));
    let told = |log: &[String]| {
        log.iter()
            .any(|line| line.contains("merchant.secret_file is missing"))
    };
    assert!(told(&sidecar.log), "{:#?}", sidecar.log);
    // CRLF, as some editors end a line.
    fs::write(&file, format!("{SECRET}\r\n")).unwrap();
    until("ready", async || {
        (get_at(admin, "/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
}

#[tokio::test]
async fn a_changed_secret_file_is_noticed_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "the_secret_of_yesterday\n").unwrap();
    let (_sandbox, mut sidecar, gateway, api, _) = with_secret_file(SECRET, &file).await;
    assert_eq!(
        start_at(api, ORDER).await.text("error"),
        "gateway_refused_secret"
    );
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let noticed = tokio::time::timeout(
        std::time::Duration::from_secs(5),
        sidecar.log_line("file loaded"),
    )
    .await;
    noticed.expect("within 5 s");
    let before = calls(&gateway).await.0;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    assert_eq!(
        calls(&gateway).await.0,
        before + 1,
        "with the new secret from the first try on"
    );
}

#[tokio::test]
async fn what_is_bad_later_is_counted_and_the_last_good_secret_stays() {
    const FAILURES: &str = "tillgate_secret_reload_failures_total";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let (_sandbox, sidecar, _, api, admin) = with_secret_file(SECRET, &file).await;
    assert_eq!(metric_at(admin, FAILURES).await, 0);
    assert!(metric_at(admin, "tillgate_secret_loaded_timestamp_seconds").await > 1_000_000_000);
    let bad: [&dyn Fn(); 4] = [
        &|| fs::write(&file, "").unwrap(),
        &|| fs::write(&file, "two words here").unwrap(),
        &|| fs::write(&file, "your_token_here").unwrap(),
        &|| fs::remove_file(&file).unwrap(),
    ];
    for (i, spoil) in bad.iter().enumerate() {
        spoil();
        sidecar.signal("HUP");
        until("a failure", async || {
            (metric_at(admin, FAILURES).await > i as u64).then_some(())
        })
        .await;
        assert_eq!(start_at(api, ORDER).await.status, 200);
        assert_eq!(get_at(admin, "/readyz").await.status, 200);
    }
    sidecar.signal("TERM");
    let (_, _, err) = sidecar.end().await;
    says(&err, &["last good"]);
    assert!(
        !err.contains(SECRET) && !err.contains("two words here"),
        "{err}"
    );
}

#[tokio::test]
async fn a_hangup_reads_the_files_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "the_secret_of_yesterday").unwrap();
    let (_sandbox, mut sidecar, _, api, _) = with_secret_file(SECRET, &file).await;
    fs::write(&file, SECRET).unwrap();
    sidecar.signal("HUP");
    sidecar.log_line("reading the files again").await;
    sidecar.log_line("file loaded").await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
}

#[tokio::test]
async fn a_swapped_symlink_is_noticed_as_kubernetes_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (version, secret) in [("..v1", "the_secret_of_yesterday"), ("..v2", SECRET)] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("secret"), secret).unwrap();
    }
    symlink("..v1", path("..data")).unwrap();
    symlink("..data/secret", path("secret")).unwrap();
    let (_sandbox, mut sidecar, _, api, _) = with_secret_file(SECRET, &path("secret")).await;
    symlink("..v2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    fs::remove_dir_all(path("..v1")).unwrap();
    sidecar.log_line("file loaded").await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
}

#[tokio::test]
async fn a_bad_secret_file_at_the_start_is_a_fault_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    for (i, content) in ["", "\n", "t1ny", "two words here", "your_token_here\n"]
        .iter()
        .enumerate()
    {
        let file = directory.path().join(format!("secret-{i}"));
        fs::write(&file, content).unwrap();
        let variables = [
            ("gateway.url", NOBODY),
            ("merchant.secret_file", file.to_str().unwrap()),
        ];
        let (code, _, err) = run(&["run"], &variables).await;
        assert_eq!(code, 2, "{content:?}: {err}");
        says(&err, &["merchant.secret_file", file.to_str().unwrap()]);
        assert!(
            content.trim().is_empty() || content.contains("your") || !err.contains(content.trim()),
            "{err}"
        );
    }
}

#[tokio::test]
async fn a_changed_token_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    fs::write(&file, "first-token\nsecond-token\r\n").unwrap();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (mut sidecar, api, _) =
        Program::sidecar(&gateway, &[("listen.token_file", file.to_str().unwrap())]).await;
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        call(
            api,
            Method::GET,
            "/watch/x",
            &[("authorization", &bearer)],
            "",
        )
        .await
        .status
    };
    assert_eq!(
        (
            status("first-token").await,
            status("second-token").await,
            status("third-token").await
        ),
        (404, 404, 401)
    );
    assert_eq!(
        get_at(api, "/watch/x").await.header("www-authenticate"),
        "Bearer"
    );
    fs::write(&file, "third-token\n").unwrap();
    sidecar.signal("HUP");
    sidecar.log_line("file loaded").await;
    assert_eq!(
        (
            status("first-token").await,
            status("second-token").await,
            status("third-token").await
        ),
        (401, 401, 404)
    );
}

#[tokio::test]
async fn a_token_is_changed_without_refusing_a_caller() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    fs::write(&file, "old-token\n").unwrap();
    let (mut sidecar, api, _) =
        Program::sidecar(NOBODY, &[("listen.token_file", file.to_str().unwrap())]).await;
    let gets_in = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let status = call(
            api,
            Method::GET,
            "/payments",
            &[("authorization", &bearer)],
            "",
        )
        .await
        .status;
        assert!(status == 200 || status == 401, "{status}");
        status == 200
    };
    // Nobody says that the file has changed: first the new one too, then each caller takes it, then the old one goes.
    fs::write(&file, "old-token\r\n\r\nnew-token\r\n").unwrap();
    until("the new token gets in", async || {
        assert!(gets_in("old-token").await);
        gets_in("new-token").await.then_some(())
    })
    .await;
    fs::write(&file, "new-token").unwrap();
    until("the old token gets in no more", async || {
        assert!(gets_in("new-token").await);
        (!gets_in("old-token").await).then_some(())
    })
    .await;
    // What is bad shuts nobody out, lets nobody in, and is not quoted.
    for bad in ["", "\n\n", "new-token\nevil token\n"] {
        fs::write(&file, bad).unwrap();
        sidecar.signal("HUP");
        let line = sidecar.log_line("file not reloaded").await;
        assert!(!line.contains("evil"), "{line}");
        assert!(
            gets_in("new-token").await && !gets_in("evil").await && !gets_in("").await,
            "{bad:?}"
        );
    }
}
#[tokio::test]
async fn each_line_of_the_log_is_one_json_object_and_tells_what_a_request_was() {
    let (_sandbox, gateway) = Program::sandbox(&["--fault", "start:status=500,count=1"]).await;
    let (sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let asked = async |id: &str, method: Method, path: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("x-request-id", id)];
        let answer = call(api, method, path, &headers, body).await;
        assert_eq!(answer.header("x-request-id"), id);
        answer
    };
    asked("failed", Method::POST, "/api/start_payment", ORDER).await;
    let started = asked("good", Method::POST, "/api/start_payment", ORDER).await;
    let (code, watch_code) = (
        started.text("code").to_owned(),
        started.text("watch_code").to_owned(),
    );
    asked("watch", Method::GET, &format!("/watch/{watch_code}"), "").await;
    asked("nowhere", Method::GET, "/nowhere/with-a-code", "").await;
    let forged = call(
        api,
        Method::GET,
        "/nowhere",
        &[("x-request-id", "a\tb")],
        "",
    )
    .await;
    assert!(
        !forged.header("x-request-id").contains('\t') && !forged.header("x-request-id").is_empty()
    );
    sidecar.signal("TERM");
    let first = sidecar.log.clone();
    let (_, _, err) = sidecar.end().await;
    let lines: Vec<Value> = first
        .iter()
        .map(String::as_str)
        .chain(err.lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.iter().all(|line| line.is_object()
        && line["level"].is_string()
        && line["timestamp"].is_string()));
    let request = |id: &str| {
        let of_id: Vec<_> = lines
            .iter()
            .filter(|line| line["request_id"] == id && line["message"] == "request")
            .collect();
        assert_eq!(of_id.len(), 1, "{id}: {of_id:?}");
        assert!(of_id[0]["duration_ms"].is_number(), "{:?}", of_id[0]);
        of_id[0]
    };
    for (id, method, route, status) in [
        ("failed", "POST", "/api/start_payment", 502),
        ("good", "POST", "/api/start_payment", 200),
        ("watch", "GET", "/watch/{watch_code}", 200),
        ("nowhere", "GET", "unknown", 404),
    ] {
        let line = request(id);
        assert_eq!(
            (&line["method"], &line["route"], &line["status"]),
            (&method.into(), &route.into(), &status.into()),
            "{line}"
        );
    }
    assert_eq!(
        (&request("failed")["error"], &request("failed")["outcome"]),
        (&"gateway_bad_answer".into(), &"unknown".into())
    );
    assert_eq!(request("nowhere")["error"], "not_found");
    assert!(request("good").get("error").is_none_or(Value::is_null));
    assert!(
        lines
            .iter()
            .any(|line| line["code"] == format!("{}…", &code[..8])),
        "a start is told with the beginning of its code"
    );
    assert!(
        !err.contains(&watch_code) && !err.contains("with-a-code"),
        "{err}"
    );
}

#[tokio::test]
async fn a_text_log_that_goes_to_no_terminal_has_no_colours() {
    let variables = [
        ("gateway.url", NOBODY),
        ("merchant.secret", SECRET),
        ("listen.address", "127.0.0.1:0"),
        ("admin.address", "127.0.0.1:0"),
        ("log.format", "text"),
    ];
    let mut sidecar = Program::start(&["run"], &variables);
    let line = sidecar.log_line("tillgate is running").await;
    assert!(
        serde_json::from_str::<Value>(&line).is_err() && !line.contains('\x1b'),
        "{line}"
    );
    sidecar.signal("TERM");
    let (code, out, err) = sidecar.end().await;
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(!err.contains('\x1b'), "{err}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, api, admin) = Program::sidecar(&gateway, &[]).await;
    // Each answer has a line of about 200 bytes, and a pipe takes 64 KiB.
    for _ in 0..1000 {
        assert_eq!(get_at(api, "/nowhere").await.status, 404);
    }
    assert_eq!(get_at(admin, "/livez").await.status, 200);
    sidecar.signal("TERM");
    let (code, _, log) = sidecar.end().await;
    assert_eq!(code, 0);
    assert!(log.lines().count() > 100, "what was read late is there");
}

#[tokio::test]
async fn a_secret_file_that_is_a_pipe_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "the_secret_of_yesterday").unwrap();
    let (_sandbox, mut sidecar, _, api, admin) = with_secret_file(SECRET, &file).await;
    fs::remove_file(&file).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    sidecar.log_line("it is not a regular file").await;
    // Refused by the gateway, so the file is looked at again for this start.
    assert_eq!(
        start_at(api, ORDER).await.text("error"),
        "gateway_refused_secret"
    );
    assert_eq!(
        get_at(admin, "/readyz").await.status,
        200,
        "the last good one is still there"
    );
    let (code, _, told) = run(&["check", "--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(code, 2);
    says(&told, &["it is not a regular file"]);
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
}
