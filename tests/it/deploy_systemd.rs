//! `deploy/systemd`: what systemd itself says of the units, and that the program knows what they set.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{has, run};

const SERVICE: &str = "deploy/systemd/tillgate.service";
const SOCKET: &str = "deploy/systemd/tillgate.socket";

fn read(unit: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(unit)).unwrap()
}

fn analyze(arguments: &[&str]) -> (Output, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = output.unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8(said).unwrap())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has("systemd-analyze") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [service, socket] = [SERVICE, SOCKET].map(|unit| {
        let text = read(unit).replace("/usr/local/bin/tillgate", env!("CARGO_BIN_EXE_tillgate"));
        let path = directory.path().join(Path::new(unit).file_name().unwrap());
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let (output, said) = analyze(&[
        "verify",
        "--man=no",
        "--recursive-errors=one",
        &service,
        &socket,
    ]);
    assert!(output.status.success() && said.is_empty(), "{said}");
    // It would have been told.
    fs::write(
        &service,
        read(SERVICE).replace("Type=notify", "Type=whatever\nWhatever=yes"),
    )
    .unwrap();
    let (_, said) = analyze(&["verify", "--man=no", "--recursive-errors=one", &service]);
    assert!(said.contains("Whatever"), "{said}");
}

#[test]
fn the_service_has_little_that_it_could_do_harm_with() {
    if !has("systemd-analyze") {
        return;
    }
    let (output, said) = analyze(&[
        "security",
        "--offline=true",
        "--threshold=15",
        "--no-pager",
        SERVICE,
    ]);
    assert!(output.status.success(), "{said}");
    let line = said
        .lines()
        .find(|line| line.contains("Overall exposure level"))
        .unwrap();
    let level: f64 = line
        .split(": ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(level <= 1.5, "{line}");
}

#[tokio::test]
async fn the_program_knows_every_setting_of_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let config = directory.path().join("tillgate.toml");
    fs::write(
        &config,
        "[gateway]\nurl = \"https://pay.example\"\n[webhook]\nurl = \"http://127.0.0.1:3000/x\"\n",
    )
    .unwrap();
    let unit = read(SERVICE).replace("\n#", "\n");
    // The specifiers of systemd.unit(5): the directories of credentials and of the state.
    let settings = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
    let settings: Vec<_> = settings
        .map(|(name, value)| (name, value.replace("%d", path).replace("%S", "/var/lib")))
        .collect();
    assert_eq!(settings.len(), 4, "{settings:?}");
    let credentials: Vec<_> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("LoadCredential=")?.split_once(':'))
        .collect();
    for (name, content) in [
        ("merchant", "a_secret_of_this_test_only"),
        (
            "webhook",
            "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        ),
    ] {
        assert!(
            credentials.contains(&(name, &format!("/etc/tillgate/{name}"))),
            "{credentials:?}"
        );
        fs::write(directory.path().join(name), content).unwrap();
    }
    let variables: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let (code, out, err) = run(&["check", "--config", config.to_str().unwrap()], &variables).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for (name, value) in &settings {
        let line = out
            .lines()
            .find(|line| line.ends_with(&format!("# {name}")))
            .unwrap_or_else(|| panic!("no {name}: {out}"));
        assert!(line.contains(value.as_str()), "{line}");
    }
    let missing = run(&["run", "--config", config.to_str().unwrap()], &variables).await;
    assert!(
        missing.0 == 1 && missing.2.contains("socket unit"),
        "{missing:?}"
    );
}
