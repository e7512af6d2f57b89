//! The image: built from the Dockerfile as it stands, by a container engine, and run as `deploy/README.md` says.

use std::path::Path;

use serde_json::Value;

use crate::deploy::{checker, commands, file, in_namespaces};
use crate::harness::has;

/// The whole of the page, then the shop of its compose.yaml as a payer sees it.
const SCRIPT: &str = r#"
. "$SOURCE/tests/deploy/engine.sh"
mkdir checkout
(cd "$SOURCE" && cp -r .dockerignore Cargo.lock Cargo.toml Dockerfile config deploy src "$WORK/checkout")
cd checkout
CONTAINER
. "$SOURCE/tests/deploy/checks.sh"
COMPOSE
shop=http://localhost:8080
curl -s --retry 20 --retry-delay 1 --retry-all-errors "$shop/"
pay_url=$(curl -s -o /dev/null -w '%{redirect_url}' -X POST $shop/buy)
echo "the payer goes to $pay_url"
code=${pay_url#*/pay/} order=${pay_url##*thanks%2F}
order=${order##*/}
curl -s "$shop/thanks/$order"
curl -s "$pay_url" | grep -q '<button'
curl -s -X POST "http://localhost:8081/_sandbox/payments/${code%%\?*}/complete"
sleep_until_paid() { for _ in 1 2 3 4 5 6 7 8 9 10; do curl -s "$shop/thanks/$order" | grep completed && return; sleep 1; done; return 1; }
sleep_until_paid
docker compose restart tillgate
docker compose exec tillgate /tillgate health --wait 20s
curl -s "$shop/thanks/$order"
docker compose stop tillgate
curl -s -D - -o /dev/null -X POST $shop/buy
if curl -s --max-time 5 http://localhost:8700/watch/x; then echo "tillgate can be reached from the host" >&2; exit 1; fi
docker compose down --volumes
"#;

#[test]
fn the_image_is_small_and_does_what_the_page_says() {
    if checker("podman-compose").is_none() || !has("podman") || !has("crun") || !has("curl") {
        return;
    }
    // Kept, so that only what has changed is built again.
    let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join("containers");
    let work = tempfile::tempdir().unwrap();
    let variables = [
        ("SOURCE", env!("CARGO_MANIFEST_DIR")),
        ("STORE", store.to_str().unwrap()),
        ("WORK", work.path().to_str().unwrap()),
        (
            "CHECKERS",
            &file("target/checkers/bin").display().to_string(),
        ),
    ];
    let script = SCRIPT
        .replace("CONTAINER", &commands("A container"))
        .replace("COMPOSE", &commands("Compose"));
    let Some(said) = in_namespaces(&script, work.path(), &variables) else {
        return;
    };
    for part in [
        "start: the gateway takes the secret",
        "\"message\":\"tillgate is running\"",
        "there are none",
        "ended with 0",
        "the payer goes to http://localhost:8081/pay/pay_",
        "Your order is created",
        "Your order is completed",
        "503 Service Unavailable",
        "Retry-After: 2",
    ] {
        assert!(said.contains(part), "no {part:?}: {said}");
    }

    let image: Value =
        serde_json::from_str(&std::fs::read_to_string(store.join("image.json")).unwrap()).unwrap();
    let (image, config) = (&image[0], &image[0]["Config"]);
    assert!(
        image["Size"].as_u64().unwrap() <= 11_000_000,
        "{}",
        image["Size"]
    );
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/tillgate"]));
    assert_eq!(
        image["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/tillgate", "health"])
    );
    assert_eq!(
        config["Labels"]["org.opencontainers.image.licenses"],
        "MIT OR Apache-2.0"
    );
}
