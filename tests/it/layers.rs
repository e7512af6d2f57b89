//! The rules of docs/architecture.md: a file names only files below it, between rooms and inside them, some words occur in
//! few files only, and files and functions stay short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up. The rooms of one floor do not see each other.
const FLOORS: [&[&str]; 8] = [
    &["payment", "clock", "file", "json", "random", "size", "text"],
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
    ],
    &["gateway", "store"],
    &["start", "watch", "webhook"],
    &["api", "admin", "sandbox"],
    &["config"],
    &["app"],
    &["cli", "main", "lib"],
];

/// The rooms of the ground floor in their order: there a room may name those before it.
const GROUND: [&str; 7] = ["payment", "json", "random", "size", "text", "clock", "file"];

/// What the program does for a caller or for the app. No HTTP word stands in them, so that what they decide can be read
/// and tested without a connection.
const STORIES: [&str; 3] = ["start", "watch", "webhook"];

const HTTP: [&str; 5] = ["hyper", "http_body", "Header", "StatusCode", "Bytes"];

/// The one file of a story that has HTTP words. A start and a watch are sent by `gateway`, which both use; a webhook is
/// sent by nobody but `webhook`, and a room below it for this alone would take the keys and the target out of the room
/// that has everything else of them. What came of a try leaves this file as a value without a status code or a header.
const SEND: &str = "webhook/send.rs";

/// Imports inside a room that run upwards: the file, the module that it names, and why. This
/// list may only become shorter.
const UPWARDS: [(&str, &str, &str); 0] = [];

/// The longest file, tests included, and the longest function, in lines.
const MAX_FILE: usize = 400;
const MAX_FUNCTION: usize = 70;

/// A word, and the only files that may have it in their code.
const WORDS: [(&str, &[&str]); 12] = [
    (
        "expose_secret",
        &[
            "gateway/inject.rs",
            "gateway/scrub.rs",
            "secret.rs",
            // The password of a database.
            "store/fleet/link.rs",
        ],
    ),
    (
        "crate::secret",
        &[
            "gateway.rs",
            "gateway/metrics.rs",
            "config/check.rs",
            "config/check/secret.rs",
            "config/explain.rs",
        ],
    ),
    (
        "crate::sandbox",
        &[
            "app.rs",
            "app/behind.rs",
            "app/in_process.rs",
            "cli.rs",
            "cli/dev.rs",
            "cli/sandbox.rs",
        ],
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
    // The child is a process, and the log is written by a thread.
    (
        ".spawn(",
        &[
            "server.rs",
            "tasks.rs",
            "cli/child.rs",
            "store/file/writer.rs",
            "telemetry/lines.rs",
        ],
    ),
    // The writers of the store and of the log block; the other tries whether there are threads at all.
    (
        "thread::Builder",
        &[
            "store/file/writer.rs",
            "telemetry/lines.rs",
            "cli/machine.rs",
        ],
    ),
    ("tokio::spawn", &["server.rs", "tasks.rs"]),
    (
        "spawn_blocking",
        &[
            "secret.rs",
            "app/files.rs",
            "client/resolve.rs",
            "store/fleet/link.rs",
            // One of its threads is to be there early.
            "cli.rs",
        ],
    ),
    // No other room, and no other store, knows the database.
    ("tokio_postgres", &["store/fleet/*"]),
    ("env::var", &["config/environment.rs"]),
    // It reads variables too.
    ("ListenFd", &["config/environment.rs"]),
    ("Instant::now", &["clock.rs"]),
];

struct Source {
    /// Below `src`.
    path: String,
    /// The number of its lines, comments and tests included.
    length: usize,
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
                // Unit tests may name whatever they test.
                if !path.ends_with("tests") {
                    collect(&path, files);
                }
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
        // What follows the declaration of a file of tests is code of the program.
        let text = text.replace("#[cfg(test)]\nmod tests;\n", "\n\n");
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
            length: text.lines().count(),
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
fn no_file_and_no_function_is_longer_than_can_be_read_at_once() {
    let mut faults = Vec::new();
    for source in sources() {
        let length = source.length;
        if length > MAX_FILE {
            faults.push(format!(
                "src/{} has {length} lines: which second idea is in it?",
                source.path
            ));
        }
        let mut began: Option<(usize, usize, &str)> = None;
        for (number, line) in &source.lines {
            let text = line.trim_start();
            let indent = line.len() - text.len();
            match began {
                Some((start, at, head)) if indent == at && text.trim_end() == "}" => {
                    if number - start >= MAX_FUNCTION {
                        faults.push(format!(
                            "src/{}:{start}: {} lines: {head}",
                            source.path,
                            number - start + 1
                        ));
                    }
                    began = None;
                }
                None if text.split(' ').take(4).any(|word| word == "fn") => {
                    began = Some((*number, indent, text));
                }
                _ => {}
            }
            // A signature alone, as a trait has it.
            if text.ends_with(';') && began.is_some_and(|(_, at, _)| at == indent) {
                began = None;
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// An import, or a path in the code.
struct Import {
    /// Where it stands.
    line: usize,
    /// The segments from the room downwards, the item last; empty if it leads to another room or crate.
    path: Vec<String>,
    /// What it is called in the importing file. `None` for a path in the code.
    name: Option<String>,
}

impl Source {
    /// The modules from the room down to this file.
    fn module(&self) -> Vec<String> {
        let path = self.path.strip_suffix(".rs").unwrap();
        path.split('/').map(str::to_owned).collect()
    }

    /// The modules that this file declares.
    fn children(&self) -> Vec<String> {
        self.lines
            .iter()
            .filter_map(|(_, line)| {
                let (_, rest) = line.strip_suffix(';')?.split_once("mod ")?;
                Some(rest.to_owned())
            })
            .collect()
    }

    /// All that it names by `use`, `super::`, `self::` and `crate::`.
    fn imports(&self) -> Vec<Import> {
        let module = self.module();
        let mut imports = Vec::new();
        // How deep in modules that stand in this file itself.
        let mut inline = 0;
        let mut statement: Option<(usize, String)> = None;
        for (number, line) in &self.lines {
            let text = line.trim();
            if text.ends_with('{') && text.split(' ').any(|word| word == "mod") {
                inline = 1;
            }
            if line.starts_with('}') {
                inline = 0;
            }
            if statement.is_none()
                && let Some((before, tree)) = text.split_once("use ")
                && (["", "pub "].contains(&before)
                    || before.starts_with("pub(") && before.ends_with(") "))
            {
                statement = Some((*number, tree.to_owned()));
            } else if let Some((_, tree)) = &mut statement {
                tree.push_str(text);
            }
            let mut paths = Vec::new();
            match &statement {
                Some((start, tree)) if tree.ends_with(';') => {
                    expand("", tree.trim_end_matches(';'), &mut paths);
                    let paths = paths.iter().map(|path| (*start, path.as_str(), true));
                    imports.extend(paths.map(|path| resolve(&module, inline, path)));
                    statement = None;
                }
                Some(_) => {}
                None => {
                    paths_in(text, &mut paths);
                    let paths = paths.iter().map(|path| (*number, path.as_str(), false));
                    imports.extend(paths.map(|path| resolve(&module, inline, path)));
                }
            }
        }
        imports
    }
}

/// The paths of a tree of imports, one for each leaf.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        if !tree.is_empty() {
            paths.push(format!("{before}{tree}"));
        }
        return;
    };
    let (inner, before) = (rest.strip_suffix('}').unwrap(), format!("{before}{head}"));
    let (mut depth, mut from) = (0, 0);
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &inner[from..i], paths);
                from = i + 1;
            }
            _ => {}
        }
    }
    expand(&before, &inner[from..], paths);
}

/// The paths in a line of code that begin in this room or at the root.
fn paths_in(line: &str, paths: &mut Vec<String>) {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    // A visibility names no item.
    let line = line.split_once("pub(in ").map_or(line, |(_, rest)| {
        rest.split_once(')').map_or(rest, |(_, item)| item)
    });
    let words = line.split(|c| !is_part(c));
    let from_here = |word: &&str| {
        ["super::", "self::", "crate::"]
            .iter()
            .any(|start| word.starts_with(start))
    };
    paths.extend(words.filter(from_here).map(str::to_owned));
}

/// The path from the root, without `self` and `super`.
fn resolve(
    module: &[String],
    inline: usize,
    (line, path, is_import): (usize, &str, bool),
) -> Import {
    let (path, alias) = path.split_once(" as ").unwrap_or((path, ""));
    let mut segments = path.split("::").filter(|segment| !segment.is_empty());
    let mut at = module.to_vec();
    at.extend((0..inline).map(|_| INLINE.to_owned()));
    match segments.next() {
        Some("crate") => at.clear(),
        Some("super") => drop(at.pop()),
        Some("self") => {}
        _ => at = vec!["another crate".to_owned()],
    }
    let mut last = "";
    for segment in segments {
        last = segment;
        match segment {
            "super" => drop(at.pop()),
            "self" => {}
            other => at.push(other.to_owned()),
        }
    }
    let name = match (alias, last) {
        _ if !is_import => None,
        ("", "self") => at.last().cloned(),
        ("", last) => Some(last.to_owned()),
        (alias, _) => Some(alias.to_owned()),
    };
    if at.first() != module.first() || at.iter().any(|segment| segment == INLINE) {
        at.clear();
    }
    Import {
        line,
        path: at,
        name,
    }
}

/// A module that stands in the file of its parent.
const INLINE: &str = "<inline>";

/// The room's files by their modules.
struct Room<'a> {
    files: BTreeMap<Vec<String>, &'a Source>,
    imports: BTreeMap<Vec<String>, Vec<Import>>,
}

impl<'a> Room<'a> {
    fn new(name: &str, sources: &'a [Source]) -> Self {
        let files: BTreeMap<_, _> = sources
            .iter()
            .filter(|source| source.room() == name)
            .map(|source| (source.module(), source))
            .collect();
        let imports = files
            .iter()
            .map(|(module, source)| (module.clone(), source.imports()))
            .collect();
        Self { files, imports }
    }

    /// The file that has the item of this path: where a module only hands it on, the one from which it has it.
    fn home(&self, path: &[String]) -> Option<Vec<String>> {
        let length = (1..=path.len())
            .rev()
            .find(|length| self.files.contains_key(&path[..*length]))?;
        let module = path[..length].to_vec();
        let Some(item) = path.get(length) else {
            return Some(module);
        };
        let handed_on = self.imports[&module]
            .iter()
            .find(|import| import.name.as_ref() == Some(item));
        match handed_on {
            // What comes from another room has no file in this one.
            Some(import) => self.home(&import.path),
            None => Some(module),
        }
    }

    /// Which file names which others, with the line where it does.
    fn graph(&self) -> BTreeMap<Vec<String>, BTreeMap<Vec<String>, usize>> {
        let mut graph: BTreeMap<_, BTreeMap<Vec<String>, usize>> = BTreeMap::new();
        for (module, source) in &self.files {
            let edges = graph.entry(module.clone()).or_default();
            for child in source.children() {
                let child = [module.as_slice(), &[child]].concat();
                if self.files.contains_key(&child) {
                    edges.insert(child, 1);
                }
            }
            for import in &self.imports[module] {
                match self.home(&import.path) {
                    Some(home) if home != *module => {
                        edges.entry(home).or_insert(import.line);
                    }
                    _ => {}
                }
            }
        }
        graph
    }
}

/// The imports that close a circle, each as file, line and names: the way back is shown behind it.
fn circles(room: &Room<'_>) -> Vec<String> {
    let graph = room.graph();
    let mut found = Vec::new();
    for (from, edges) in &graph {
        for (to, line) in edges {
            let is_downwards = to.starts_with(from);
            let Some(back) = way(&graph, to, from).filter(|_| !is_downwards) else {
                continue;
            };
            let path = &room.files[from].path;
            let (from, to) = (from.join("::"), to.join("::"));
            if !is_excused(path, &to) {
                found.push(format!(
                    "src/{path}:{line}: {from} names {to}, which names {}",
                    back.join(", which names ")
                ));
            }
        }
    }
    found
}

fn is_excused(path: &str, module: &str) -> bool {
    UPWARDS
        .iter()
        .any(|(file, named, _)| *file == path && *named == module)
}

/// The shortest way from one file to another along what they name.
fn way(
    graph: &BTreeMap<Vec<String>, BTreeMap<Vec<String>, usize>>,
    from: &Vec<String>,
    to: &Vec<String>,
) -> Option<Vec<String>> {
    let mut ways = vec![(from, Vec::new())];
    let mut seen = BTreeSet::from([from]);
    while !ways.is_empty() {
        let mut further = Vec::new();
        for (at, way) in ways {
            for next in graph[at].keys() {
                let way = [way.as_slice(), &[next.join("::")]].concat();
                if next == to {
                    return Some(way);
                }
                if seen.insert(next) {
                    further.push((next, way));
                }
            }
        }
        ways = further;
    }
    None
}

#[test]
fn inside_a_room_a_file_names_only_files_below_it() {
    let sources = sources();
    let mut faults = Vec::new();
    let mut seen = 0;
    for room in FLOORS.iter().copied().flatten() {
        let files = Room::new(room, &sources);
        seen += files.graph().values().map(BTreeMap::len).sum::<usize>();
        faults.extend(circles(&files));
    }
    assert!(seen > 100, "the imports are found: {seen}");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn an_import_that_runs_up_is_found_with_its_file_and_line() {
    let source = |path: &str, code: &str| Source {
        path: path.to_owned(),
        length: 0,
        lines: code
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line.to_owned()))
            .collect(),
    };
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files
            .iter()
            .map(|(path, code)| source(path, code))
            .collect();
        circles(&Room::new("room", &sources))
    };
    // What the parent hands on belongs to the sibling, and `super` in a module of the same file is that file.
    let in_order = [
        (
            "room.rs",
            "mod a;\nmod b;\npub(crate) use self::a::One;\nuse crate::other::Two;",
        ),
        ("room/a.rs", "pub(crate) struct One;"),
        (
            "room/b.rs",
            "use super::{\n    One, Two,\n};\nmod inner {\n    use super::One;\n}",
        ),
    ];
    assert_eq!(found(&in_order), [""; 0]);
    let up = [
        ("room.rs", "mod a;\nstruct Own;"),
        ("room/a.rs", "use std::fmt;\nuse super::Own;"),
    ];
    assert_eq!(
        found(&up),
        ["src/room/a.rs:2: room::a names room, which names room::a"]
    );
    let around = [
        ("room.rs", "mod a;\nmod b;"),
        ("room/a.rs", "fn f() { crate::room::b::g() }"),
        ("room/b.rs", "use super::a::{self, f};"),
    ];
    assert_eq!(
        found(&around),
        [
            "src/room/a.rs:1: room::a names room::b, which names room::a",
            "src/room/b.rs:1: room::b names room::a, which names room::b"
        ]
    );
}
