//! What `deploy/` says and ships: its README's commands, manifests, alerts and dashboard, each checked by the program it
//! is for. Containers have a file of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hyper::Method;
use serde_json::Value;

use crate::harness::{Program, call, free_port, get_at, has, pay_at, skip, start_at, until};
use crate::scripted::tls;

/// What `kubectl apply -k` is given.
const KUSTOMIZATIONS: [&str; 5] = [
    "overlays/memory",
    "overlays/persistent",
    "overlays/fleet",
    "job",
    "podmonitor",
];

/// The metrics that are only there where replicas share a store (`postgres:`).
pub const FLEET_METRICS: [&str; 10] = [
    "tillgate_store_up",
    "tillgate_store_request_duration_seconds",
    "tillgate_store_errors_total",
    "tillgate_fleet_members",
    "tillgate_news_delay_seconds",
    "tillgate_polls_elsewhere_total",
    "tillgate_starts_joined_elsewhere_total",
    "tillgate_payments_adopted_total",
    "tillgate_unrevealed_total",
    "tillgate_store_went_back_total",
];

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program of `tests/deploy/requirements.txt`, if they are installed.
pub fn checker(name: &str) -> Option<PathBuf> {
    let path = file("target/checkers/bin").join(name);
    let how = "python3 -m venv target/checkers && target/checkers/bin/pip install -r tests/deploy/requirements.txt";
    (path.is_file() || skip(&format!("{name} is not there: {how}"))).then_some(path)
}

/// Runs it to its end, which must be a good one, and gives what it printed.
pub fn output(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        output.status
    );
    out
}

/// Runs a script where it has network, mounts and processes to itself: fixed ports are free, and nothing of it stays.
/// `None` where that is not allowed.
pub fn in_namespaces(script: &str, directory: &Path, variables: &[(&str, &str)]) -> Option<String> {
    let unshare = [
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let allowed = has("unshare") && has("ip") && {
        let probe = Command::new("unshare").args(unshare).arg("true").output();
        probe.is_ok_and(|output| output.status.success())
            || skip("namespaces cannot be made: not root?")
    };
    allowed.then(|| {
        let mut shell = Command::new("unshare");
        // What a container says stands on stderr.
        shell
            .args(unshare)
            .args(["sh", "-euc", &format!("exec 2>&1\n{script}")])
            .current_dir(directory)
            .envs(variables.iter().copied());
        output(shell.env("no_proxy", "*"))
    })
}

/// The commands of a section of `deploy/README.md`.
pub fn commands(section: &str) -> String {
    let text = std::fs::read_to_string(file("deploy/README.md")).unwrap();
    let start = text
        .find(&format!("\n## {section}\n"))
        .unwrap_or_else(|| panic!("no section {section}"));
    let section = text[start + 1..].split("\n## ").next().unwrap();
    let blocks = section
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```\n").expect("an end").0);
    let commands: String = blocks.map(|block| format!("{block}\n")).collect();
    assert!(!commands.is_empty(), "no commands");
    commands
}

/// The path of the programs, with ours in front.
pub fn path_with(directory: &Path) -> String {
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_commands_that_run_a_process_do() {
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_tillgate")).parent().unwrap();
    let script = format!(
        "ip link set lo up\n{}\nwait $tillgate\necho ended",
        commands("A process")
    );
    if let Some(said) = in_namespaces(&script, directory.path(), &[("PATH", &path_with(program))]) {
        for part in [
            "\"watch_code\"",
            "start: the gateway takes the secret",
            "{\"payments\":[]",
            "\nended\n",
        ] {
            assert!(said.contains(part), "no {part}: {said}");
        }
    }
}

/// What `kubectl` makes of a directory of `deploy/kubernetes`, or of a copy.
fn rendered(directory: &Path) -> String {
    output(Command::new("kubectl").arg("kustomize").arg(directory))
}

/// Documents of YAML as JSON.
fn documents(yaml: &str, python: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.argv[1]))))";
    serde_json::from_str(&output(Command::new(python).args(["-c", script, yaml]))).unwrap()
}

/// That of them of this kind and name.
fn named<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents
        .iter()
        .find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The Pod of a workload.
fn pod(workload: &Value) -> &Value {
    let spec = &workload["spec"];
    let spec = spec.get("jobTemplate").map_or(spec, |job| &job["spec"]);
    &spec["template"]["spec"]
}

#[test]
fn every_manifest_is_valid_and_nothing_is_held_against_it() {
    let (Some(validate), Some(checkov)) = (checker("kubernetes-validate"), checker("checkov"))
    else {
        return;
    };
    if !has("kubectl") {
        return;
    }
    // checkov leaves hidden folders out, and the usual name of such a one begins with a dot.
    let directory = tempfile::Builder::new()
        .prefix("manifests")
        .tempdir()
        .unwrap();
    for kustomization in KUSTOMIZATIONS {
        let text = rendered(&file("deploy/kubernetes").join(kustomization));
        let path = directory
            .path()
            .join(format!("{}.yaml", kustomization.replace('/', "-")));
        std::fs::write(&path, &text).unwrap();
        if kustomization == "podmonitor" {
            continue; // a kind of the Prometheus operator's
        }
        // It only warns of a kind that it does not know.
        let said = Command::new(&validate)
            .arg("--strict")
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        let (passed, all) = (
            said.matches(" passed for resource ").count(),
            text.matches("\nkind: ").count(),
        );
        assert!(
            passed == all && said.lines().count() == all,
            "{passed} of {all}: {said}"
        );
    }
    let said = output(
        Command::new(&checkov)
            .args([
                "--framework",
                "kubernetes",
                "--skip-download",
                "--compact",
                "--output",
                "json",
                "--directory",
            ])
            .arg(directory.path())
            .arg("--config-file")
            .arg(file("deploy/kubernetes/.checkov.yaml")),
    );
    let summary = &serde_json::from_str::<Value>(&said).unwrap()["summary"];
    assert!(summary["passed"].as_u64().unwrap() > 200, "{summary}");
    assert_eq!(
        (&summary["failed"], &summary["parsing_errors"]),
        (&0.into(), &0.into()),
        "{said}"
    );
}

/// Puts into a directory what a Pod has in `/run/secrets`.
fn mount_secrets(directory: &Path) {
    for (path, content) in [
        (
            "tillgate/merchant_secret",
            tillgate::sandbox::DEFAULT_SECRET,
        ),
        ("tillgate-store/password", "password"),
        ("tillgate-store/ca.crt", &tls("db.internal").0),
    ] {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// What `tillgate check` says of a configuration and of variables, with that directory for `/run/secrets` and
/// `/run/tillgate`.
fn checked(config: &str, variables: &Value, secrets: &Path) -> String {
    let here = |text: &str| {
        let text = text.replace("/run/secrets", secrets.to_str().unwrap());
        text.replace("/run/tillgate", secrets.to_str().unwrap())
    };
    let path = secrets.join("tillgate.toml");
    std::fs::write(&path, here(config)).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_tillgate"));
    check.args(["check", "--config"]).arg(&path).env_clear();
    for variable in variables.as_array().unwrap() {
        let [name, value] = ["name", "value"].map(|part| variable[part].as_str().unwrap());
        check.env(name, here(value));
    }
    output(&mut check)
}

#[test]
fn the_settings_in_the_manifests_are_those_that_the_program_takes() {
    let Some(python) = checker("python3") else {
        return;
    };
    if !has("kubectl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    mount_secrets(directory.path());
    for (kustomization, kind, name, store) in [
        ("overlays/memory", "Deployment", "shop", "memory:"),
        (
            "overlays/persistent",
            "Deployment",
            "shop",
            "file:/var/lib/tillgate",
        ),
        (
            "overlays/fleet",
            "Deployment",
            "shop",
            "postgres://tillgate@db.internal/tillgate",
        ),
        ("job", "Job", "reconcile", "file:/var/lib/tillgate"),
        ("job", "CronJob", "nightly", "file:/var/lib/tillgate"),
    ] {
        let documents = documents(
            &rendered(&file("deploy/kubernetes").join(kustomization)),
            &python,
        );
        let sidecar = &pod(named(&documents, kind, name))["initContainers"][0];
        let mounts = sidecar["volumeMounts"].as_array().unwrap();
        let mounted = |path: &str| {
            mounts
                .iter()
                .any(|mount| mount["mountPath"] == path && mount["subPath"].is_null())
        };
        assert!(
            mounted("/etc/tillgate")
                && mounted("/run/secrets/tillgate")
                && mounted("/run/tillgate"),
            "{sidecar}"
        );
        for (path, scheme) in [
            ("/var/lib/tillgate", "file:"),
            ("/run/secrets/tillgate-store", "postgres:"),
        ] {
            assert_eq!(mounted(path), store.starts_with(scheme), "{sidecar}");
        }

        let config = documents
            .iter()
            .find(|one| one["kind"] == "ConfigMap")
            .expect("a ConfigMap");
        let config = config["data"]["tillgate.toml"].as_str().unwrap();
        let said = checked(config, &sidecar["env"], directory.path());
        assert!(
            said.contains(&format!("url = \"{store}\"")) && said.contains("address = \":8701\""),
            "{said}"
        );
        // The app's and the operator's.
        let listen = format!(
            r#"address = ["localhost:8700","unix:{}/api.sock"]"#,
            directory.path().display()
        );
        assert!(said.contains(&listen), "{said}");
    }
}

#[test]
fn the_memory_limits_of_the_manifests_have_room_for_all_that_tillgate_may_keep() {
    let Some(python) = checker("python3") else {
        return;
    };
    if !has("kubectl") {
        return;
    }
    let secrets = tempfile::tempdir().unwrap();
    mount_secrets(secrets.path());
    for (kustomization, kind, name) in [
        ("overlays/memory", "Deployment", "shop"),
        ("overlays/persistent", "Deployment", "shop"),
        ("overlays/fleet", "Deployment", "shop"),
        ("job", "Job", "reconcile"),
        ("job", "CronJob", "nightly"),
    ] {
        let directory = file("deploy/kubernetes").join(kustomization);
        let documents = documents(&rendered(&directory), &python);
        let sidecar = &pod(named(&documents, kind, name))["initContainers"][0];
        let limit = sidecar["resources"]["limits"]["memory"].as_str().unwrap();
        let limit = limit.strip_suffix("Mi").expect("a number of MiB");
        let config = std::fs::read_to_string(directory.join("tillgate.toml")).unwrap();
        let said = checked(&config, &sidecar["env"], secrets.path());
        let (_, bound) = said.split_once("note: memory: ").expect("the bound");
        let (bound, _) = bound.split_once(" MiB at most").expect("a number of MiB");
        let [bound, limit]: [u64; 2] = [bound, limit].map(|text| text.parse().unwrap());
        assert!(bound <= limit, "{kustomization}: {bound} of {limit} MiB");
    }
}

#[test]
fn a_fleet_of_the_manifests_loses_no_replica_to_a_rollout() {
    let Some(python) = checker("python3") else {
        return;
    };
    if !has("kubectl") {
        return;
    }
    let directory = file("deploy/kubernetes/overlays/fleet");
    let documents = documents(&rendered(&directory), &python);
    let deployment = &named(&documents, "Deployment", "shop")["spec"];
    let sidecar = &deployment["template"]["spec"]["initContainers"][0];

    assert_eq!(deployment["replicas"], 3);
    let rollout = &deployment["strategy"]["rollingUpdate"];
    assert_eq!(rollout["maxUnavailable"], 0, "{rollout}");
    let path = |probe: &str| sidecar[probe]["httpGet"]["path"].as_str();
    assert_eq!(path("readinessProbe"), Some("/readyz"));
    // What waits for the database at the start is not restarted for it.
    assert_eq!(path("startupProbe"), Some("/livez"));
    assert_eq!(path("livenessProbe"), Some("/livez"));
    let budget = named(&documents, "PodDisruptionBudget", "shop");
    assert_eq!(budget["spec"]["selector"], deployment["selector"]);
}

#[test]
fn the_component_puts_the_sidecar_beside_any_app_but_one_that_refuses_it() {
    let Some(python) = checker("python3") else {
        return;
    };
    if !has("kubectl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    output(
        Command::new("cp")
            .arg("-r")
            .arg(file("deploy/kubernetes"))
            .arg(directory.path()),
    );
    let workload = |group: &str, kind: &str, name: &str, labels: &str, init: &str| {
        format!(
            "apiVersion: {group}/v1\nkind: {kind}\nmetadata:\n  name: {name}\n  labels: {labels}\nspec:\n  template:\n    \
             spec:\n      securityContext: {{fsGroup: 7}}\n      {init}\n      volumes:\n        - {{name: own, emptyDir: {{}}}}\n      \
             containers:\n        - {{name: main, image: own}}\n"
        )
    };
    let own = "initContainers:\n        - {name: before, image: own}";
    // As a Job, one step further in.
    let scheduled = |job: &str| {
        let (head, spec) = job.split_once("\nspec:\n").unwrap();
        let spec: String = spec.lines().map(|line| format!("    {line}\n")).collect();
        let head = head.replace("kind: Job", "kind: CronJob");
        format!("{head}\nspec:\n  schedule: '@daily'\n  jobTemplate:\n    spec:\n{spec}")
    };
    let workloads = [
        workload("apps", "Deployment", "web", "{}", own),
        workload("apps", "StatefulSet", "table", "{tillgate: some}", ""),
        workload("batch", "Job", "once", "{}", ""),
        scheduled(&workload("batch", "Job", "nightly", "{}", own)),
        workload("apps", "Deployment", "mail", "{tillgate: none}", own),
    ];
    std::fs::write(directory.path().join("apps.yaml"), workloads.join("---\n")).unwrap();
    std::fs::write(
        directory.path().join("tillgate.toml"),
        "[gateway]\nurl = \"https://pay.example\"\n",
    )
    .unwrap();
    // As deploy/README.md has it.
    let readme = std::fs::read_to_string(file("deploy/README.md")).unwrap();
    let block = readme
        .split("```yaml\napiVersion: kustomize")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let kustomization = format!(
        "apiVersion: kustomize{}",
        block.replace("[deployment.yaml]", "[apps.yaml]")
    );
    std::fs::write(directory.path().join("kustomization.yaml"), kustomization).unwrap();

    let documents = documents(&rendered(directory.path()), &python);
    for (kind, name, others) in [
        ("Deployment", "web", 1),
        ("StatefulSet", "table", 0),
        ("Job", "once", 0),
        ("CronJob", "nightly", 1),
    ] {
        let pod = pod(named(&documents, kind, name));
        let init = pod["initContainers"].as_array().unwrap();
        let sidecar = &init[0];
        assert_eq!(
            (init.len(), &sidecar["name"]),
            (1 + others, &"tillgate".into()),
            "{pod}"
        );
        assert_eq!(sidecar["restartPolicy"], "Always", "{sidecar}");
        assert_eq!(
            sidecar["image"], "registry.example/tillgate:0.1.0",
            "{sidecar}"
        );
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(sidecar[probe]["httpGet"]["port"], 8701, "{sidecar}");
        }
        assert_eq!(
            pod["volumes"].as_array().unwrap().len(),
            5,
            "its own and ours: {pod}"
        );
        assert_eq!(pod["securityContext"]["fsGroup"], 7, "the app's own: {pod}");
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1, "{pod}");
    }
    // Two files, since Kustomize knows no path that fits both.
    assert_eq!(
        pod(named(&documents, "Job", "once"))["initContainers"],
        pod(named(&documents, "CronJob", "nightly"))["initContainers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|container| container["name"] == "tillgate")
            .cloned()
            .collect::<Value>()
    );
    let refusing = named(&documents, "Deployment", "mail").to_string();
    assert!(!refusing.contains("tillgate-secret"), "{refusing}");
}

#[test]
fn the_commands_for_kubernetes_are_ones_that_kubectl_takes() {
    if !has("kubectl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    output(
        Command::new("cp")
            .arg("-r")
            .arg(file("deploy"))
            .arg(directory.path()),
    );
    for name in [
        "merchant.secret",
        "webhook.key",
        "api.token",
        "store.password",
        "database-ca.pem",
    ] {
        std::fs::write(directory.path().join(name), "sandbox").unwrap();
    }
    let mut made = 0;
    for line in commands("Kubernetes").lines() {
        // There is no cluster: what would be sent to one is printed.
        let line = match line.strip_prefix("kubectl apply -k ") {
            Some(directory) => format!("kubectl kustomize {directory}"),
            None if line.contains(" create ") => format!("{line} --dry-run=client --output=yaml"),
            None => continue,
        };
        let said = output(
            Command::new("sh")
                .args(["-euc", &line])
                .current_dir(directory.path()),
        );
        assert!(said.contains("kind: "), "{line}: {said}");
        made += 1;
    }
    assert_eq!(made, 8);
}

#[test]
fn compose_yaml_is_one_by_the_specification() {
    let Some(python) = checker("python3") else {
        return;
    };
    let script = "import sys, compose_spec; compose_spec.PyCompose.from_yaml(open(sys.argv[1]).read()).validate()";
    output(
        Command::new(python)
            .args(["-c", script])
            .arg(file("deploy/compose.yaml")),
    );
}

#[test]
fn nothing_is_held_against_the_dockerfile() {
    let Some(hadolint) = checker("hadolint") else {
        return;
    };
    assert_eq!(
        output(
            Command::new(hadolint)
                .arg("--no-fail")
                .arg(file("Dockerfile"))
        ),
        ""
    );
}

/// Every expression in the dashboard, with what Grafana puts into it.
fn dashboard_expressions() -> Vec<String> {
    let text = std::fs::read_to_string(file("deploy/monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let targets = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row")
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    expressions
        .map(|text| {
            text.replace("$instance", ".*")
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1h")
        })
        .collect()
}

#[test]
fn alerts_and_dashboard_are_what_prometheus_takes_and_the_alerts_fire() {
    if !has("promtool") {
        return;
    }
    output(
        Command::new("promtool")
            .args(["check", "rules"])
            .arg(file("deploy/monitoring/alerts.yaml")),
    );
    output(
        Command::new("promtool")
            .args(["test", "rules"])
            .arg(file("deploy/monitoring/alerts_test.yaml")),
    );
    let expressions = dashboard_expressions();
    assert!(expressions.len() > 15, "{expressions:?}");
    let rule = |(n, expr)| serde_json::json!({"record": format!("panel:{n}"), "expr": expr});
    let rules: Vec<_> = expressions.iter().enumerate().map(rule).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dashboard.yaml");
    std::fs::write(
        &path,
        serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string(),
    )
    .unwrap();
    output(Command::new("promtool").args(["check", "rules"]).arg(&path));
}

#[test]
fn every_alert_says_what_to_do() {
    let alerts = std::fs::read_to_string(file("deploy/monitoring/alerts.yaml")).unwrap();
    for alert in alerts.split("- alert: ").skip(1) {
        assert!(alert.contains("\n          runbook: "), "{alert}");
    }
}

#[tokio::test]
async fn every_metric_that_alerts_and_dashboard_name_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("webhook.key");
    std::fs::write(&key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let (_gateway, url) = Program::sandbox(&[]).await;
    // Nobody takes the webhooks.
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    let settings = [
        ("webhook.url", nobody.as_str()),
        ("webhook.secret_file", key.to_str().unwrap()),
    ];
    let (_sidecar, api, admin) = Program::sidecar(&url, &settings).await;
    // One of each: a start, a refused one, a wait, a webhook.
    let payment = start_at(api, r#"{"amount": 1000}"#).await;
    assert_eq!(start_at(api, "{}").await.status, 422);
    assert_eq!(
        call(
            api,
            Method::GET,
            &format!("/watch/{}?wait=1", payment.text("watch_code")),
            &[],
            ""
        )
        .await
        .status,
        200
    );
    pay_at(&url, payment.text("code")).await;
    let metrics = until("a webhook was tried", async || {
        let metrics = get_at(admin, "/metrics").await.body;
        metrics
            .contains("tillgate_webhook_deliveries_total{")
            .then_some(metrics)
    })
    .await;

    let alerts = std::fs::read_to_string(file("deploy/monitoring/alerts.yaml")).unwrap();
    let mut looked_at = 0;
    for text in dashboard_expressions()
        .iter()
        .map(String::as_str)
        .chain([alerts.as_str()])
    {
        for (start, _) in text.match_indices("tillgate_") {
            let name = text[start..]
                .split(|c: char| !c.is_ascii_lowercase() && c != '_')
                .next()
                .unwrap();
            let is_there = metrics.lines().any(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            });
            let is_of_fleets = FLEET_METRICS.contains(&name.trim_end_matches("_bucket"));
            assert!(
                is_there != is_of_fleets,
                "{name} in /metrics: {is_there}, though it is of fleets alone: {is_of_fleets}\n{metrics}"
            );
            looked_at += 1;
        }
    }
    assert!(looked_at > 40, "{looked_at}");
}
