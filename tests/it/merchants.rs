//! The shops in `tests/clients`, run as they stand: an order is paid once, however the news of it comes, and no forged
//! news counts.

mod day;
mod kind;
mod shell;
mod town;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use hyper::Method;
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use self::day::orders_go_through_all_that_may_happen_to_them;
use self::kind::{FASTAPI, GO, JAVA, JS, Kind, PHP, PYTHON, RUBY, SHELL, SHOPS, SYMFONY};
use self::town::{Do, Message, Relay, Town, fresh_key};
use crate::clients::{API_PAGE, SH, START, blocks, file, for_go};
use crate::harness::{
    Answer, Client, Program, call, calls, free_port, get_at, has, pay_at, run, set_faults, skip,
    until,
};
use crate::server::{Server, answer, next_request};

const TOKEN: &str = "a-token-of-the-shop-51d0";
/// Where a payer comes back to.
const SHOP_URL: &str = "https://shop.example";

/// Each promise is kept in each language.
macro_rules! in_each_language {
    ($($promise:ident)*) => {
        in_each_language!(@ php PHP: $($promise)*);
        in_each_language!(@ python PYTHON: $($promise)*);
        in_each_language!(@ js JS: $($promise)*);
        in_each_language!(@ java JAVA: $($promise)*);
        in_each_language!(@ go GO: $($promise)*);
        in_each_language!(@ ruby RUBY: $($promise)*);
        in_each_language!(@ symfony SYMFONY: $($promise)*);
        in_each_language!(@ fastapi FASTAPI: $($promise)*);
    };
    (@ $module:ident $kind:ident: $($promise:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $promise() {
                    if super::$kind.is_here() {
                        super::$promise(super::$kind).await;
                    }
                }
            )*
        }
    };
}

in_each_language! {
    orders_go_through_all_that_may_happen_to_them
    without_a_webhook_polling_the_open_orders_finds_it
    a_wrong_amount_does_not_pay_an_order
    forged_webhooks_are_refused
    either_of_two_keys_will_do
    an_order_has_one_payment_however_often_it_is_started
}

/// Keeps a promise in all languages at once: those who mostly wait do so together.
async fn in_all_languages<F: Future<Output = ()>>(promise: impl Fn(Kind) -> F) {
    let kinds: Vec<_> = SHOPS.into_iter().filter(|kind| kind.is_here()).collect();
    for kind in &kinds {
        kind.build();
    }
    let broken = kinds.into_iter().map(async |kind| {
        let kept = AssertUnwindSafe(promise(kind)).catch_unwind().await;
        kept.is_err().then_some(kind.script)
    });
    let broken: Vec<_> = join_all(broken).await.into_iter().flatten().collect();
    assert_eq!(broken, [""; 0]);
}

#[tokio::test]
async fn an_order_is_paid_once_by_webhook() {
    in_all_languages(is_paid_once_by_webhook).await;
}

#[tokio::test]
async fn a_webhook_outlives_outages_of_the_shop_and_of_the_sidecar() {
    in_all_languages(a_webhook_outlives_outages).await;
}

#[tokio::test]
async fn a_shop_without_tillgate_asks_the_payer_to_try_again() {
    in_all_languages(asks_the_payer_to_try_again).await;
}

async fn is_paid_once_by_webhook(kind: Kind) {
    let town = Town::new(kind).await;
    // It fails with the first message, which comes again.
    let relay = Relay::to(town.shop, &[Do::Say(500)]).await;
    let _sidecar = town.sidecar(relay.address()).await;
    let _shop = town.shop().await;

    let order = town.order(1000).await;
    assert!(!town.is_paid(&order).await);
    town.pay(&order).await;
    let [first, second] = &relay.saw(2).await[..] else {
        panic!("{:?}", relay.seen())
    };
    assert!(town.is_paid(&order).await);
    assert_eq!((first.status, second.status), (500, 204));
    assert_eq!(
        (first.get("webhook-id"), &first.body),
        (second.get("webhook-id"), &second.body)
    );
    town.has_paid(1).await;
    let id = second.get("webhook-id");
    let by_webhook = format!(" by {id}");
    assert!(
        town.said().iter().any(|line| line.ends_with(&by_webhook)),
        "{:#?}",
        town.said()
    );

    // The same once more.
    let line = format!("{id}  payment.completed  delivered  ");
    let is_listed = |list: &String| list.lines().any(|listed| listed.starts_with(&line));
    let listed = async || Some(town.deliveries(&["list"]).await).filter(is_listed);
    let list = until("it is delivered", listed).await;
    assert_eq!(list.lines().count(), 2, "with the header: {list}");
    town.deliveries(&["redeliver", id]).await;
    let third = relay.saw(3).await.remove(2);
    assert_eq!((third.get("webhook-id"), third.status), (id, 204));
    // And another one about the same payment.
    assert_eq!(
        town.tell(&third.with("webhook-id", "another").signed_in(&town.key, 0))
            .await,
        204
    );
    town.has_paid(1).await;

    // The same many times at once, when none has come before.
    relay.next.lock().unwrap().push_back(Do::Say(503));
    let (order, open) = (town.order(500).await, town.order(500).await);
    town.pay(&order).await;
    let message = relay.saw(4).await.remove(3);
    let told = join_all((0..16).map(|_| town.tell(&message))).await;
    assert_eq!(told, [204; 16]);
    assert!(town.is_paid(&order).await && !town.is_paid(&open).await);
    // The sidecar comes again too.
    relay.saw(5).await;
    town.has_paid(2).await;
}

async fn a_webhook_outlives_outages(kind: Kind) {
    let town = Town::new(kind).await;
    let mut sidecar = town.sidecar(town.shop).await;
    let shop = town.shop().await;
    let (first, second) = (town.order(1000).await, town.order(2000).await);
    shop.close().await;

    // The shop is down when its first order is paid.
    town.pay(&first).await;
    sidecar.log_line("webhook not delivered").await;
    let shop = town.shop().await;
    // Nobody opens its page before that.
    town.has_paid(1).await;
    assert!(town.is_paid(&first).await);
    shop.close().await;

    // The second is paid, which the store knows and the shop does not, and the sidecar is gone in that moment.
    town.pay(&second).await;
    sidecar.log_line("webhook not delivered").await;
    sidecar.signal("KILL");
    until("it is gone", async || {
        TcpStream::connect(town.api).await.is_err().then_some(())
    })
    .await;
    drop(sidecar);
    let _shop = town.shop().await;
    let _sidecar = town.sidecar(town.shop).await;
    town.has_paid(2).await;
    assert!(town.is_paid(&second).await);
}

async fn without_a_webhook_polling_the_open_orders_finds_it(kind: Kind) {
    let town = Town::new(kind).await;
    // Nobody is there.
    let mut sidecar = town
        .sidecar(SocketAddr::from(([127, 0, 0, 1], free_port())))
        .await;
    let mut shop = town.shop().await;
    let order = town.order(1000).await;
    shop = town.check(shop).await;
    assert!(!town.is_paid(&order).await);
    town.pay(&order).await;
    sidecar.log_line("webhook not delivered").await;
    // One that passes by itself may be about to say that it is paid: it is not ended here.
    if !kind.passes_by_itself {
        assert_eq!(town.times_paid(), 0);
        shop = town.check(shop).await;
    }
    // Nobody opens its page before that.
    town.has_paid(1).await;
    assert!(town.is_paid(&order).await);
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    shop.close().await;

    // The shop has another key than the sidecar: it believes nothing.
    let mut sidecar = town.sidecar(town.shop).await;
    let shop = town.shop_with(&fresh_key().await, town.api, "300").await;
    let order = town.order(1000).await;
    town.pay(&order).await;
    // What the first order's message is answered comes before that.
    sidecar.log_line("\"to\":\"completed\"").await;
    sidecar.log_line("status 401").await;
    assert_eq!(town.times_paid(), 1);
    let _shop = town.check(shop).await;
    town.has_paid(2).await;
    assert!(town.is_paid(&order).await);
}

async fn a_wrong_amount_does_not_pay_an_order(kind: Kind) {
    let town = Town::new(kind).await;
    let relay = Relay::to(town.shop, &[]).await;
    let _sidecar = town.sidecar(relay.address()).await;
    let shop = town.shop().await;
    let order = town.order(1000).await;
    set_faults(&town.gateway, &["watch:wrong-amount"]).await;
    town.pay(&order).await;
    let message = relay.saw(1).await.remove(0);
    assert!(
        message.status == 204 && message.body.contains("\"amount\":1001"),
        "{message:?}"
    );
    let complaints = || {
        town.said()
            .iter()
            .filter(|line| line.contains("not the amount of an order"))
            .count()
    };
    until("it complains", async || (complaints() == 1).then_some(())).await;
    let _shop = town.check(shop).await;
    until("it complains again", async || {
        (complaints() >= 2).then_some(())
    })
    .await;
    assert!(!town.is_paid(&order).await);
    assert_eq!(town.times_paid(), 0);

    // No amount is none that fits, and the same value in other words is the same amount.
    let order = town.order(1000).await;
    town.pay(&order).await;
    let message = relay.saw(2).await.remove(1);
    for (amount, times) in [
        ("null", 0),
        ("999.99", 0),
        ("1000.00", 1),
        ("\"1000.00\"", 1),
    ] {
        let body = message.body.replace(":1001", &format!(":{amount}"));
        let written = message.with_body(body).signed_in(&town.key, 0);
        assert_eq!(town.tell(&written).await, 204, "{amount}");
        town.has_paid(times).await;
    }
    let order = town.order(1000).await;
    town.pay(&order).await;
    let message = relay.saw(3).await.remove(2);
    let body = message.body.replace(":1001", ":\"1000\"");
    let written = message.with_body(body).signed_in(&town.key, 0);
    assert_eq!(town.tell(&written).await, 204);
    town.has_paid(2).await;
}

async fn forged_webhooks_are_refused(kind: Kind) {
    let town = Town::new(kind).await;
    let relay = Relay::to(town.shop, &[Do::Say(503)]).await;
    let sidecar = town.sidecar(relay.address()).await;
    let _shop = town.shop().await;
    let order = town.order(1000).await;
    town.pay(&order).await;
    let good = relay.saw(1).await.remove(0);
    // It does not come again by itself.
    drop(sidecar);

    let signature = good.get("webhook-signature");
    let timestamp: u64 = good.get("webhook-timestamp").parse().unwrap();
    let with_signature = |value: &str| good.with("webhook-signature", value);
    let digest = signature.strip_prefix("v1,").unwrap();
    for (what, forged) in [
        (
            "changed body",
            good.with_body(good.body.replace("completed", "Completed")),
        ),
        ("longer body", good.with_body(format!("{} ", good.body))),
        ("no body", good.with_body(String::new())),
        ("changed id", good.with("webhook-id", "another")),
        ("no id", good.without("webhook-id")),
        (
            "changed timestamp",
            good.with("webhook-timestamp", &(timestamp + 1).to_string()),
        ),
        ("no timestamp", good.without("webhook-timestamp")),
        (
            "a timestamp that is none",
            good.with("webhook-timestamp", "soon").signed(&town.key),
        ),
        ("old timestamp", good.signed_in(&town.key, -310)),
        ("timestamp to come", good.signed_in(&town.key, 310)),
        (
            "cut by one",
            with_signature(&signature[..signature.len() - 1]),
        ),
        (
            "cut by ten",
            with_signature(&signature[..signature.len() - 10]),
        ),
        ("nothing but a version", with_signature("v1,")),
        ("not even a comma", with_signature("v1")),
        ("no version", with_signature(digest)),
        ("another version", with_signature(&format!("v1a,{digest}"))),
        ("not base64", with_signature("v1,!")),
        ("empty", with_signature("")),
        ("none", good.without("webhook-signature")),
        ("another key's", good.signed(&fresh_key().await)),
    ] {
        assert_eq!(town.tell(&forged).await, 401, "{what}");
        assert!(!town.is_paid(&order).await, "{what}");
    }
    assert_eq!(town.times_paid(), 0);

    // One that fits among others that do not, and one that took a while.
    let late = good.signed_in(&town.key, -290);
    let among = late.with(
        "webhook-signature",
        &format!("v1a,AAAA v1,AAAA {}", late.get("webhook-signature")),
    );
    assert_eq!(town.tell(&among).await, 204);
    assert!(town.is_paid(&order).await);
    assert_eq!(town.tell(&good).await, 204);
    town.has_paid(1).await;
}

async fn either_of_two_keys_will_do(kind: Kind) {
    let town = Town::new(kind).await;
    let next = fresh_key().await;
    town.set_keys(&[&town.key, &next]);
    let relay = Relay::to(town.shop, &[]).await;
    let _sidecar = town.sidecar(relay.address()).await;
    for (key, times) in [(&town.key, 1), (&next, 2)] {
        let shop = town.shop_with(key, town.api, "300").await;
        let order = town.order(1000).await;
        town.pay(&order).await;
        // Nobody opens its page before that.
        town.has_paid(times).await;
        assert!(town.is_paid(&order).await);
        let message = relay.saw(times).await.remove(times - 1);
        assert_eq!(
            message.get("webhook-signature").split(' ').count(),
            2,
            "{message:?}"
        );
        shop.close().await;
    }
}

async fn an_order_has_one_payment_however_often_it_is_started(kind: Kind) {
    let town = Town::new(kind).await;
    let _sidecar = town.sidecar(town.shop).await;
    // The way to the sidecar is bad, and so is the gateway.
    let relay = Relay::to(town.api, &[Do::Say(429), Do::Lose]).await;
    let shop = town.shop_with(&town.key, relay.address(), "300").await;
    let order = town.order(1000).await;
    let starts = relay.starts();
    let statuses =
        |starts: &[Message]| -> Vec<u16> { starts.iter().map(|start| start.status).collect() };
    assert_eq!(statuses(&starts), [429, 200, 200]);
    let reference = starts[0].field("reference");
    let names_the_order = |start: &Message| start.field("reference") == reference;
    assert!(
        !reference.is_null() && starts.iter().all(names_the_order),
        "{starts:?}"
    );
    assert_eq!(
        calls(&town.gateway).await.0,
        1,
        "the third was answered as the second"
    );
    town.pay(&order).await;
    town.becomes_paid(&order).await;
    town.has_paid(1).await;

    set_faults(&town.gateway, &["start:status=500,count=1"]).await;
    town.order(1000).await;
    let starts = &relay.starts()[3..];
    assert_eq!(statuses(starts), [502, 200]);
    assert_eq!(starts[0].field("reference"), starts[1].field("reference"));
    assert!(!names_the_order(&starts[0]), "another order");

    // What cannot do better is not tried again by itself; when the payer does, it is the same start.
    relay.next.lock().unwrap().push_back(Do::Say(422));
    let path = town.new_order(1000).await;
    assert_eq!(town.page(&path).await.status, 500);
    assert_eq!(relay.starts().len(), 6);
    assert!(town.page(&path).await.body.contains("Pay 1000"));
    let starts = &relay.starts()[5..];
    assert_eq!(statuses(starts), [422, 200]);
    assert_eq!(starts[0].field("reference"), starts[1].field("reference"));
    shop.close().await;
}

async fn asks_the_payer_to_try_again(kind: Kind) {
    let town = Town::new(kind).await;
    let shop = town.shop().await;
    let path = town.new_order(1000).await;
    let page = town.page(&path).await;
    assert_eq!((page.status, page.header("retry-after")), (503, "5"));
    let _sidecar = town.sidecar(town.shop).await;
    assert!(town.page(&path).await.body.contains("Pay 1000"));
    shop.close().await;
}

#[tokio::test]
async fn the_lines_with_a_reference_and_with_a_key_start_one_payment_each() {
    if !SH.is_here() {
        return;
    }
    let mut dev = Program::start(&["dev"], &[]);
    let api = loop {
        let line = dev.stdout_line().await;
        if let Some(url) = line.trim_start().strip_prefix("API ") {
            break url.split_whitespace().next().unwrap().to_owned();
        }
    };
    let [_, reference, key] = &blocks(API_PAGE, START, SH)[..] else {
        panic!("not three blocks")
    };
    assert!(reference.contains("\"reference\"") && key.contains("Idempotency-Key"));
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    for block in [reference, key] {
        assert_eq!(block.lines().count(), 1, "{block}");
        let line = block.trim_end().replace("http://localhost:8700", &api);
        let twice = format!("{line}; echo; {line}; echo");
        let mut sh = Client::start("sh", &["-c", &twice], unused, &[]);
        let (first, second) = (sh.line().await, sh.line().await);
        assert!(
            first.contains("\"pay_url\":\"") && first == second,
            "{first}{second}"
        );
    }
}

/// What the page says to write into the file is taken, and warned about where it has to be.
#[tokio::test]
async fn the_pages_configuration_of_webhooks_is_good() {
    let page = std::fs::read_to_string(file("docs/webhooks.md")).unwrap();
    let (_, section) = page.split_once("\n## Configuration\n").expect("a section");
    let toml = section
        .split_once("```toml\n")
        .expect("a block")
        .1
        .split("```")
        .next()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (secret, keys) = (tillgate::sandbox::DEFAULT_SECRET, fresh_key().await);
    for (name, text) in [("secret", secret), ("keys", keys.as_str())] {
        std::fs::write(path(name), text).unwrap();
    }
    let toml = toml
        .replace("/run/secrets/webhook", &path("keys"))
        .replace("/var/lib/tillgate", &path("store"));
    let rest = format!(
        "[gateway]\nurl = \"https://pay.example\"\n[merchant]\nsecret_file = {:?}\n",
        path("secret")
    );
    std::fs::write(path("tillgate.toml"), format!("{rest}{toml}")).unwrap();
    let (code, out, err) = run(&["check", "--config", &path("tillgate.toml")], &[]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        !format!("{out}{err}").contains("without a durable store"),
        "{out}{err}"
    );

    let toml = toml.replace(&format!("file:{}", path("store")), "memory:");
    std::fs::write(path("tillgate.toml"), format!("{rest}{toml}")).unwrap();
    let (code, out, err) = run(&["check", "--config", &path("tillgate.toml")], &[]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        format!("{out}{err}").contains("without a durable store"),
        "{out}{err}"
    );
}

#[test]
fn the_shops_are_short() {
    for Kind {
        script,
        most_lines: most,
        ..
    } in SHOPS.into_iter().chain([SHELL])
    {
        let text = std::fs::read_to_string(file("tests/clients").join(script)).unwrap();
        let (lines, widest) = (
            text.lines().count(),
            text.lines().map(|line| line.chars().count()).max(),
        );
        assert!(
            lines <= most && widest <= Some(120),
            "{script} has {lines} lines, the widest {widest:?}"
        );
    }
}
