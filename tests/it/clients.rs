//! What merchants copy: the programs in `tests/clients` and the snippets of the pages, run as they stand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::harness::{Program, closed_port, has, metric_at, skip, start_at};

/// Where the clients' payers, and the pages', come back to.
const ALLOWED: (&str, &str) = (
    "redirect.allowed",
    r#"["https://shop.example", "http://localhost:3000"]"#,
);
/// One start, and then none for a long time.
const ONE_START: [(&str, &str); 4] = [
    ALLOWED,
    ("start.rate", "0.001"),
    ("start.burst", "1"),
    ("start.queue_for", "1ms"),
];

/// A language that apps are written in.
#[derive(Clone, Copy)]
pub struct Language {
    /// How a file's name ends.
    extension: &'static str,
    /// How a page marks a block of it.
    mark: &'static str,
    /// What runs a file of it.
    pub program: &'static str,
    /// What stands between the two.
    verb: &'static [&'static str],
    /// Succeeds where everything is there that such a file needs.
    needs: &'static [&'static str],
}

pub const SH: Language = Language {
    extension: "sh",
    mark: "sh",
    program: "sh",
    verb: &[],
    needs: &["-c", "command -v curl"],
};
pub const PYTHON: Language = Language {
    extension: "py",
    mark: "python",
    program: "python3",
    verb: &[],
    needs: &["-c", "import requests"],
};
pub const JS: Language = Language {
    extension: "mjs",
    mark: "js",
    program: "node",
    verb: &[],
    needs: &["-e", "fetch"],
};
const PHP: Language = Language {
    extension: "php",
    mark: "php",
    program: "php",
    verb: &[],
    needs: &["-r", "curl_init();"],
};
const RUBY: Language = Language {
    extension: "rb",
    mark: "ruby",
    program: "ruby",
    verb: &[],
    needs: &["-e", "require 'net/http'"],
};
const GO: Language = Language {
    extension: "go",
    mark: "go",
    program: "go",
    verb: &["run"],
    needs: &["version"],
};
const JAVA: Language = Language {
    extension: "java",
    mark: "java",
    program: "java",
    verb: &[],
    needs: &["--list-modules"],
};

impl Language {
    /// Whether this machine can run it; if not, the test says so.
    pub fn is_here(self) -> bool {
        let works = || {
            let probe = std::process::Command::new(self.program)
                .args(self.needs)
                .output();
            probe.is_ok_and(|output| output.status.success())
        };
        has(self.program)
            && (works()
                || skip(&format!(
                    "`{} {}` fails",
                    self.program,
                    self.needs.join(" ")
                )))
    }

    fn client(self) -> PathBuf {
        file(&format!("tests/clients/start_and_watch.{}", self.extension))
    }

    /// Runs a file of it to its end: exit code, stdout and stderr.
    async fn run(self, script: &Path, order: &[&str], api: SocketAddr) -> (i32, String, String) {
        let run = Command::new(self.program)
            .args(self.verb)
            .arg(script)
            .args(order)
            .env("TILLGATE_URL", format!("http://{api}"))
            .env("no_proxy", "127.0.0.1")
            .envs(for_go())
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), run)
            .await
            .expect("an end in time")
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().expect("an exit code"),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

/// What Go needs where its user has no home and there is no C compiler.
pub fn for_go() -> [(&'static str, PathBuf); 2] {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
    [("GOCACHE", cache), ("CGO_ENABLED", "0".into())]
}

/// A file of this repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[tokio::test]
async fn the_sh_client() {
    a_client(SH).await;
}

#[tokio::test]
async fn the_python_client() {
    a_client(PYTHON).await;
}

#[tokio::test]
async fn the_js_client() {
    a_client(JS).await;
}

#[tokio::test]
async fn the_php_client() {
    a_client(PHP).await;
}

#[tokio::test]
async fn the_java_client() {
    a_client(JAVA).await;
}

#[tokio::test]
async fn the_ruby_client() {
    a_client(RUBY).await;
}

#[tokio::test]
async fn the_go_client() {
    a_client(GO).await;
}

async fn a_client(language: Language) {
    if !language.is_here() {
        return;
    }
    let client = language.client();
    let (_sandbox, gateway) = Program::sandbox(&["--auto-complete", "1s"]).await;
    let (sidecar, api, _) = Program::sidecar(&gateway, &ONE_START).await;

    let (code, out, err) = language.run(&client, &[], api).await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    let [pay, "paid"] = lines[..] else {
        panic!("{out}")
    };
    assert!(pay.starts_with(&format!("pay: {gateway}/pay/")), "{out}");
    assert!(
        pay.ends_with("?redirect=https%3A%2F%2Fshop.example%2Fthanks"),
        "{out}"
    );

    // The same order is not paid again, and that was the one start.
    let (code, out, err) = language.run(&client, &["7"], api).await;
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(
        err.contains("The payment of this reference is completed"),
        "{err}"
    );
    let refused = start_at(api, r#"{"amount": 1000}"#).await;
    assert_eq!(refused.text("error"), "rate_limited");
    fails_with_detail(language, api, "start.rate").await;
    drop(sidecar);

    // A port that nobody listens on.
    let (_socket, nobody) = closed_port();
    let (_sidecar, api, _) = Program::sidecar(&nobody, &[ALLOWED]).await;
    fails_with_detail(language, api, "gateway.url").await;
}

/// The client tells the problem's detail, which names this key.
async fn fails_with_detail(language: Language, api: SocketAddr, key: &str) {
    let detail = start_at(api, r#"{"amount": 1000}"#).await.json()["detail"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(detail.contains(key), "{detail}");
    let (code, out, err) = language.run(&language.client(), &["8"], api).await;
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(err.lines().any(|line| line == detail), "{err}");
}

#[test]
fn the_clients_are_short() {
    for language in [SH, PYTHON, JS, PHP, JAVA, RUBY, GO] {
        let client = language.client();
        let lines = std::fs::read_to_string(&client).unwrap().lines().count();
        let most = if language.mark == "go" { 54 } else { 34 };
        assert!(lines <= most, "{} has {lines} lines", client.display());
    }
}

/// The blocks of that language in a page, under that heading.
pub fn blocks(page: &str, heading: &str, language: Language) -> Vec<String> {
    let text = std::fs::read_to_string(file(page)).expect(page);
    let section = text.split_once(&format!("\n## {heading}\n"));
    let (_, section) = section.unwrap_or_else(|| panic!("{page} has no `## {heading}`"));
    let section = section.split("\n## ").next().unwrap();
    let start = format!("```{}\n", language.mark);
    let blocks = section
        .split(&start)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned());
    let blocks: Vec<_> = blocks.collect();
    assert!(
        !blocks.is_empty(),
        "{page} has no ```{} block under `## {heading}`",
        language.mark
    );
    blocks
}

/// The page of the API.
pub const API_PAGE: &str = "docs/api.md";
/// Where it starts a payment and watches it.
pub const START: &str = "Start a payment and watch it";

/// The blocks that start a payment and watch it, by language.
fn snippets() -> impl Iterator<Item = (Language, String)> {
    let of = |language| {
        blocks(API_PAGE, START, language)
            .into_iter()
            .map(move |block| (language, block))
    };
    [SH, PYTHON, JS, PHP].into_iter().flat_map(of)
}

#[tokio::test]
async fn the_snippets_of_the_api_page_run() {
    for (language, snippet) in snippets() {
        let client = std::fs::read_to_string(language.client()).unwrap();
        let (length, most) = (snippet.lines().count(), client.lines().count());
        assert!(
            length <= most,
            "{API_PAGE}'s {} block has {length} lines, its client {most}",
            language.mark
        );
        if language.mark == "sh" || !language.is_here() {
            continue;
        }
        let (_sandbox, gateway) = Program::sandbox(&["--auto-complete", "1s"]).await;
        let (_sidecar, api, admin) = Program::sidecar(&gateway, &[ALLOWED]).await;
        let mut text = snippet.replace("http://localhost:8700", &format!("http://{api}"));
        if language.mark == "php" && !text.contains("<?php") {
            text.insert_str(0, "<?php\n");
        }
        let directory = tempfile::tempdir().unwrap();
        let script = directory
            .path()
            .join(format!("snippet.{}", language.extension));
        std::fs::write(&script, text).unwrap();
        let (code, out, err) = language.run(&script, &[], api).await;
        assert_eq!(code, 0, "{API_PAGE}'s {} block: {out}{err}", language.mark);
        assert_eq!(
            metric_at(admin, r#"tillgate_starts_total{outcome="accepted"}"#).await,
            1,
            "{API_PAGE}'s {} block starts no payment",
            language.mark
        );
    }
}
