//! The walls of the house: a file names only files of lower floors, and some words stand in few rooms.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up; rooms of one floor do not see each other.
const FLOORS: [&[&str]; 8] = [
    &["payment", "clock", "file", "json", "random", "text"],
    &[
        "client",
        "limit",
        "tasks",
        "secret",
        "server",
        "readiness",
        "signals",
        "sd_notify",
        "telemetry",
        "hardening",
        "html",
    ],
    &["gateway", "store"],
    &["start", "watch", "webhook"],
    &["api", "admin", "sandbox"],
    &["config"],
    &["app"],
    &["cli", "main", "lib"],
];

/// On the ground floor stand the words, and what everybody needs: these may name each other in this order only.
const GROUND: [&str; 6] = ["payment", "json", "random", "text", "clock", "file"];

/// What the program does for a caller or for the app. No HTTP word stands in them, so that what they decide can be read
/// and tested without a connection.
const STORIES: [&str; 3] = ["start", "watch", "webhook"];

const HTTP: [&str; 5] = ["hyper", "http_body", "Header", "StatusCode", "Bytes"];

/// The one file of a story that has HTTP words. A start and a watch are sent by `gateway`, which both use; a webhook is
/// sent by nobody but `webhook`, and a room below it for this alone would take the keys and the target out of the room
/// that has everything else of them. What came of a try leaves this file as a value without a status code or a header.
const SEND: &str = "webhook/send.rs";

/// A word, and the only files that may have it in their code.
const WORDS: [(&str, &[&str]); 11] = [
    (
        "expose_secret",
        &["gateway/inject.rs", "gateway/scrub.rs", "secret.rs"],
    ),
    (
        "crate::secret",
        &[
            "gateway.rs",
            "gateway/metrics.rs",
            "config.rs",
            "config/check.rs",
            "config/explain.rs",
        ],
    ),
    (
        "crate::sandbox",
        &["app.rs", "app/in_process.rs", "cli.rs", "cli/dev.rs"],
    ),
    (
        "StatusCode",
        &[
            "api/problem.rs",
            "api/watch.rs",
            SEND,
            "admin.rs",
            "sandbox.rs",
            "sandbox/*",
            "cli/client.rs",
            "cli/tour.rs",
        ],
    ),
    // The child is a process.
    (".spawn(", &["server.rs", "tasks.rs", "cli/child.rs"]),
    // The writer of the store blocks.
    ("thread::spawn", &["store/log/file.rs"]),
    (
        "tokio::spawn",
        &["server.rs", "watch.rs", "webhook/dispatch.rs"],
    ),
    (
        "spawn_blocking",
        &["secret.rs", "app/files.rs", "client/resolve.rs"],
    ),
    ("env::var", &["config/environment.rs"]),
    // It reads variables too.
    ("ListenFd", &["config/environment.rs"]),
    ("Instant::now", &["clock.rs"]),
];

struct Source {
    /// Below `src`.
    path: String,
    /// Its code, without comments and tests: number and text of each line.
    lines: Vec<(usize, String)>,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }
}

fn sources() -> Vec<Source> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("fuzz.rs")
                && !path.ends_with("tests.rs")
            {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "the sources are found");
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        // Doors for fuzzing are no part of the program.
        let code = code.replace("#[cfg(fuzzing)]\npub mod fuzz;\n", "");
        let lines = code
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line.split("//").next().unwrap().to_owned()));
        Source {
            path: path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            lines: lines.collect(),
        }
    };
    files.into_iter().map(source).collect()
}

fn floor_of(room: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&room))
        .unwrap_or_else(|| panic!("{room} stands on no floor"))
}

/// The rooms that a line names: those behind `crate::`, also in braces.
fn named(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let word = |text: &str| {
            text.trim()
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
                .to_owned()
        };
        match rest.strip_prefix('{') {
            Some(list) => rooms.extend(list.split(',').map(word)),
            None => rooms.push(word(rest)),
        }
    }
    rooms.retain(|room| FLOORS.iter().any(|floor| floor.contains(&room.as_str())));
    rooms
}

#[test]
fn a_file_names_only_files_of_lower_floors() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for source in sources() {
        let (room, floor) = (source.room(), floor_of(source.room()));
        for (number, line) in &source.lines {
            for other in named(line).into_iter().filter(|other| other != room) {
                seen += 1;
                let on_ground = |room: &str| GROUND.iter().position(|name| *name == room);
                let lower = match (floor, on_ground(room), on_ground(&other)) {
                    (0, Some(this), Some(other)) => other < this,
                    _ => floor_of(&other) < floor,
                };
                if !lower {
                    faults.push(format!(
                        "src/{}:{number}: {room} names {other}",
                        source.path
                    ));
                }
            }
        }
    }
    assert!(seen > 100, "the names are found");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn some_words_stand_in_few_rooms() {
    let mut faults = Vec::new();
    for source in sources() {
        for (word, allowed) in WORDS {
            let may = allowed.iter().any(|path| match path.strip_suffix('*') {
                Some(folder) => source.path.starts_with(folder),
                None => source.path == *path,
            });
            for (number, _) in source
                .lines
                .iter()
                .filter(|(_, line)| !may && line.contains(word))
            {
                faults.push(format!("src/{}:{number}: has {word:?}", source.path));
            }
        }
        if source.room() == "payment" {
            for (number, line) in source
                .lines
                .iter()
                .filter(|(_, line)| line.contains("tokio") || line.contains("hyper"))
            {
                faults.push(format!(
                    "src/{}:{number}: payment waits for nothing: {line}",
                    source.path
                ));
            }
        }
        if STORIES.contains(&source.room()) && source.path != SEND {
            let is_http = |line: &str| HTTP.iter().any(|word| line.contains(word));
            for (number, line) in source.lines.iter().filter(|(_, line)| is_http(line)) {
                faults.push(format!(
                    "src/{}:{number}: no HTTP word in a story: {line}",
                    source.path
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_file_is_longer_than_400_lines_of_code() {
    for source in sources() {
        let length = source.lines.len();
        assert!(
            length <= 400,
            "src/{} has {length} lines: which second idea is in it?",
            source.path
        );
    }
}
