//! The pages for people: what they list is complete, what they link to exists, and what the README shows is what comes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::clients::{API_PAGE, SH, blocks, file};
use crate::deploy::FLEET_METRICS;
use crate::described::DOCUMENT;
use crate::harness::{Program, Sidecar};

/// The architecture's page.
const ARCHITECTURE: &str = "docs/architecture.md";
/// The operator's page.
const OPERATIONS: &str = "docs/operations.md";

fn text(page: &str) -> String {
    fs::read_to_string(file(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The part of a page under that heading.
fn section(page: &str, heading: &str) -> String {
    let text = text(page);
    let (_, rest) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("{page} has no `## {heading}`"));
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The cells of the table's rows.
fn rows(section: &str) -> Vec<Vec<&str>> {
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.split(" | ").collect()).collect()
}

/// Every page there is, below the root.
fn pages() -> Vec<String> {
    let mut pages: Vec<_> = ["README.md", "CHANGELOG.md", "deploy/README.md"]
        .map(ToOwned::to_owned)
        .into();
    for directory in ["docs", ".github"] {
        for entry in fs::read_dir(file(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{directory}/{name}"));
            }
        }
    }
    assert!(pages.len() >= 11, "{pages:?}");
    pages
}

/// The names by which the headings of a page are linked to.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let (mut seen, mut broken) = (0, Vec::new());
    for page in pages() {
        let whole = text(&page);
        for link in whole.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.starts_with("http") {
                continue;
            }
            seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target: PathBuf = match path {
                "" => file(&page),
                path => file(&page).parent().unwrap().join(path),
            };
            let has_anchor = || {
                let there = fs::read_to_string(&target).unwrap_or_default();
                anchor.is_empty() || anchors(&there).contains(anchor)
            };
            if !target.exists() || !has_anchor() {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(seen > 50, "the links are found");
    assert_eq!(broken, [""; 0]);
}

#[test]
fn the_configuration_table_has_every_key_with_its_default() {
    let table = section(OPERATIONS, "Configuration");
    let example = text("config/tillgate.toml");
    let (mut row, mut seen, mut missing) = (None, 0, Vec::new());
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[') {
            let start = format!("| `{}` |", name.split(']').next().unwrap());
            row = table.lines().find(|row| row.starts_with(&start));
            assert!(row.is_some(), "no row {start}");
        } else if let Some((key, rest)) = line.split_once(" = ") {
            seen += 1;
            let default = rest.split(" #").next().unwrap().trim();
            let row = row.unwrap();
            // What has to be set has no default.
            if !row.contains(&format!("`{key} = {default}`")) && !row.contains(&format!("`{key}`"))
            {
                missing.push(format!("{key} = {default}"));
            }
        }
    }
    assert!(seen > 40, "the keys are found");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_errors_table_has_every_code() {
    let table = section(API_PAGE, "Errors");
    let problem = &DOCUMENT.value["components"]["schemas"]["Problem"]["properties"];
    let codes = &problem["error"]["x-extensible-enum"];
    let codes: BTreeSet<_> = codes
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let mut listed = BTreeSet::new();
    for row in rows(&table).into_iter().filter(|row| row.len() == 4) {
        let names = row[0].trim_start_matches("| ").split(", ");
        let names: Vec<_> = names.map(|name| name.replace('`', "\"")).collect();
        let statuses = row[1].split(", ").count();
        assert!(statuses == 1 || statuses == names.len(), "{row:?}");
        listed.extend(names);
    }
    listed.remove("error");
    assert_eq!(listed, codes);
}

#[test]
fn the_endpoints_table_has_every_path() {
    let page = text(API_PAGE);
    for (path, methods) in DOCUMENT.value["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let row = format!("| `{} {path}` |", method.to_uppercase());
            assert!(page.contains(&row), "no {row}");
        }
    }
}

/// The names of all metrics, as they stand in `/metrics`.
#[tokio::test]
async fn the_metrics_table_has_every_metric() {
    let sidecar = Sidecar::new();
    let table = section(OPERATIONS, "Metrics");
    let metrics = sidecar.admin("/metrics").await.body;
    let names: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP tillgate_")?.split(' ').next())
        .collect();
    assert!(names.len() > 15, "{metrics}");
    let of_fleets = FLEET_METRICS.map(|name| name.trim_start_matches("tillgate_"));
    for name in names.into_iter().chain(of_fleets) {
        let found = [format!("`{name}`"), format!("`{name}{{")];
        assert!(found.iter().any(|name| table.contains(name)), "no {name}");
    }
}

#[test]
fn the_walks_name_files_that_exist_and_none_twice() {
    for walk in ["The walk of a start", "The walk of a watch"] {
        let section = section(ARCHITECTURE, walk);
        let files: Vec<_> = rows(&section)
            .into_iter()
            .filter_map(|row| row.get(1)?.strip_prefix('`')?.strip_suffix('`'))
            .collect();
        assert!(files.len() > 20, "{files:?}");
        for name in &files {
            assert!(file("src").join(name).exists(), "{walk}: {name}");
        }
        let different: BTreeSet<_> = files.iter().collect();
        assert_eq!(different.len(), files.len(), "{walk}: {files:?}");
    }
}

/// The README's start and watch, pasted, answer with the fields that it shows.
#[tokio::test]
async fn the_readme_shows_the_answers_that_come() {
    if !SH.is_here() {
        return;
    }
    let [snippet] = &blocks("README.md", "From your app", SH)[..] else {
        panic!("not one start and watch in README.md")
    };
    let section = section("README.md", "From your app");
    let shown = section.split("```json\n").nth(1).expect("the answers");
    let shown = shown.split("```").next().unwrap();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let script = snippet.replace("http://localhost:8700", &format!("http://{api}"));
    let pasted = Command::new("sh").args(["-c", &script]).output();
    let came = String::from_utf8(pasted.unwrap().stdout).unwrap();
    let fields = |text: &str| -> Vec<Vec<String>> {
        let objects = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let names = |object: Value| object.as_object().unwrap().keys().cloned().collect();
        objects.map(|object| names(object.unwrap())).collect()
    };
    assert_eq!(fields(&came), fields(shown), "{came}");
    assert_eq!(fields(shown).len(), 2);
}
