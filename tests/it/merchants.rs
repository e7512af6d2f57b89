//! The shops in `tests/clients`, run as they stand: an order is paid once, however the news of it comes, and no forged
//! news counts.

mod kind;
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

/// What docs/orders.md says, from the first start to the last look.
async fn orders_go_through_all_that_may_happen_to_them(kind: Kind) {
    let town = Town::new(kind).await;
    let webhooks = Relay::to(town.shop, &[]).await;
    // Only who asks with `no-cache` hears anything new from the gateway.
    let old_will_do = [("watch.fresh_for", "10m")];
    let sidecar = town.sidecar_with(webhooks.address(), &old_will_do).await;
    let api = Relay::to(town.api, &[]).await;
    let shop = town.shop_with(&town.key, api.address(), "300").await;
    let gateway_starts = async || calls(&town.gateway).await.0;

    // One that is opened by many at once has one payment, started by its reference, and one page.
    let path = town.new_order(700).await;
    let pages = join_all((0..6).map(|_| town.page(&path))).await;
    assert!(pages[0].body.ends_with(">Pay 700</a>"), "{pages:?}");
    assert!(
        pages.iter().all(|page| page.body == pages[0].body),
        "{pages:?}"
    );
    assert_eq!(gateway_starts().await, 1);
    for start in api.starts() {
        let reference = start.field("reference");
        assert!(reference == "1" || reference == 1, "{start:?}");
    }

    // A payer who returns sees that it is paid, in the first answer; the webhook changes nothing then.
    let order = town.order(1000).await;
    assert!(!town.is_paid(&order).await);
    town.pay(&order).await;
    assert!(town.is_paid(&order).await, "{:#?}", town.said());
    town.has_paid(1).await;
    assert_eq!(webhooks.saw(1).await[0].status, 204);
    assert_eq!(town.times_paid(), 1);

    // A webhook that is faster than the order table is refused, and comes again. An order that was paid by a start
    // whose answer was lost is not started again.
    let code = town.start_elsewhere(1000, "3").await;
    pay_at(&town.gateway, &code).await;
    assert_eq!(webhooks.saw(2).await[1].status, 409);
    let path = town.new_order(1000).await;
    assert_eq!(town.page(&path).await.body, "<p>Paid</p>");
    town.has_paid(2).await;
    until("it is taken", async || {
        (webhooks.seen().last()?.status == 204).then_some(())
    })
    .await;
    assert_eq!((town.times_paid(), gateway_starts().await), (2, 3));

    // One whose reference has an open payment for another amount shows no page to pay at, and is not tried again.
    town.start_elsewhere(500, "4").await;
    let path = town.new_order(1000).await;
    let page = town.page(&path).await;
    assert_eq!((page.status, page.body.contains("/pay/")), (500, false));
    let starts = api.starts();
    let [.., refused] = &starts[..] else {
        panic!("{starts:?}")
    };
    assert_eq!(refused.status, 422);
    let of_this = |start: &&Message| start.field("reference") == refused.field("reference");
    assert_eq!(starts.iter().filter(of_this).count(), 1);
    until("it says why", async || {
        let why = "This reference has an open payment for another amount";
        let said = town.said();
        said.iter().any(|line| line.contains(why)).then_some(())
    })
    .await;
    // And a paid one of another amount does not pay it.
    let before = webhooks.seen().len();
    pay_at(&town.gateway, &town.start_elsewhere(500, "5").await).await;
    webhooks.saw(before + 1).await;
    let path = town.new_order(1000).await;
    let page = town.page(&path).await;
    assert!(!page.body.contains("Paid") && !page.body.contains("/pay/"));
    assert_eq!(town.times_paid(), 2);

    // `tillgate webhook test` is a message, too.
    let test = webhooks.seen()[0]
        .with_body(
            r#"{"type":"tillgate.test","timestamp":"2026-01-31T12:01:30Z","data":{}}"#.into(),
        )
        .signed_in(&town.key, 0);
    assert_eq!(town.tell(&test).await, 204);

    // Where nothing more is heard of an order, its page is the one that is known.
    let order = town.order(1000).await;
    sidecar.signal("KILL");
    until("it is gone", async || {
        TcpStream::connect(town.api).await.is_err().then_some(())
    })
    .await;
    assert!(!town.is_paid(&order).await);
    let page = town.page(&order.path).await;
    assert!(page.body.contains(&order.code), "{page:?}");
    shop.close().await;
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
    let listed =
        async || Some(town.deliveries(&["list"]).await).filter(|list| list.starts_with(&line));
    let list = until("it is delivered", listed).await;
    assert_eq!(list.lines().count(), 1, "{list}");
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
async fn the_shop_in_a_shell_starts_waits_and_polls_open_orders() {
    if !SHELL.is_here() {
        return;
    }
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let town = Town::new(SHELL).await;
    let _sidecar = town.sidecar(nobody).await;
    let run_at = async |api: SocketAddr, arguments: &[&str]| {
        let shop = SHELL.run(town.directory.path(), arguments);
        let mut command = town.in_town(shop, &town.key, api);
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
        let output = output.expect("an end in time").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let shop = async |arguments: &[&str]| run_at(town.api, arguments).await;

    // Started again and again, also when the answer is lost on its way, it is one payment.
    let relay = Relay::to(town.api, &[Do::Say(503), Do::Lose]).await;
    let (code, pay, err) = run_at(relay.address(), &["order", "7", "1000"]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        shop(&["order", "7", "1000"]).await,
        (0, pay.clone(), String::new())
    );
    assert_eq!(calls(&town.gateway).await.0, 1);
    let link = pay
        .trim_end()
        .strip_prefix(&format!("pay: {}/pay/", town.gateway))
        .unwrap_or_else(|| panic!("{pay}"));
    let (payment, back) = link.split_once('?').unwrap();
    assert_eq!(back, "redirect=https%3A%2F%2Fshop.example%2Forders%2F7");
    // The same order for another sum is a mistake, which is told, by the shop or by tillgate.
    let (code, out, err) = shop(&["order", "7", "2000"]).await;
    assert!(
        (code, &*out) == (1, "") && err.contains("order 7 is for 1000"),
        "{out}{err}"
    );
    town.start_elsewhere(500, "6").await;
    let (code, out, err) = shop(&["order", "6", "1000"]).await;
    assert!(
        (code, &*out) == (1, "") && err.contains("This reference has an open payment"),
        "{out}{err}"
    );

    // Many wait for it, and one of them finds it paid.
    assert_eq!(shop(&["check"]).await, (0, String::new(), String::new()));
    let waiting = join_all((0..3).map(|_| shop(&["wait", "7"])));
    let ((), said) = tokio::join!(pay_at(&town.gateway, payment), waiting);
    assert!(
        said.iter()
            .all(|(code, _, err)| (*code, err.as_str()) == (0, "")),
        "{said:?}"
    );
    let paid = said
        .iter()
        .filter(|(_, out, _)| out.starts_with("paid: ") && out.ends_with(" by wait\n"))
        .count();
    assert_eq!(paid, 1, "{said:?}");
    assert_eq!(shop(&["check"]).await, (0, String::new(), String::new()));

    // The pass finds one that nobody waits for, and no wrong sum counts.
    let order = async |number: &str| {
        let (_, pay, err) = shop(&["order", number, "500"]).await;
        pay.split(['/', '?'])
            .nth(4)
            .unwrap_or_else(|| panic!("{pay}{err}"))
            .to_owned()
    };
    pay_at(&town.gateway, &order("8").await).await;
    let passed = async || Some(shop(&["check"]).await.1).filter(|out| out.ends_with(" by check\n"));
    assert_eq!(until("the pass finds it", passed).await.lines().count(), 1);

    // A payer who comes back sees at once that it is paid, also one who has paid elsewhere.
    let back = order("10").await;
    pay_at(&town.gateway, &back).await;
    let (code, out, err) = shop(&["order", "10", "500"]).await;
    assert!(
        code == 0 && out.ends_with(" by order\norder 10 is paid\n"),
        "{out}{err}"
    );
    pay_at(&town.gateway, &town.start_elsewhere(500, "11").await).await;
    let paid_elsewhere = async || {
        let (code, out, err) = shop(&["order", "11", "500"]).await;
        assert_eq!(code, 0, "{out}{err}");
        out.ends_with("order 11 is paid\n").then_some(())
    };
    until("tillgate knows", paid_elsewhere).await;
    set_faults(&town.gateway, &["watch:wrong-amount"]).await;
    pay_at(&town.gateway, &order("9").await).await;
    let complaint = async || {
        let (code, out, err) = shop(&["check"]).await;
        assert_eq!((code, &*out), (0, ""), "{err}");
        err.contains("not the amount of the order").then_some(())
    };
    until("it complains", complaint).await;
    let (code, out, err) = shop(&["nonsense"]).await;
    assert!(
        (code, &*out) == (2, "") && err.contains("sh shop.sh check"),
        "{err}"
    );
}

#[tokio::test]
async fn the_line_with_a_key_starts_one_payment() {
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
    let block = blocks(API_PAGE, START, SH).swap_remove(1);
    assert_eq!(block.lines().count(), 1, "{block}");
    let line = block.trim_end().replace("http://localhost:8700", &api);
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut sh = Client::start(
        "sh",
        &["-c", &format!("{line}; echo; {line}; echo")],
        unused,
        &[],
    );
    let (first, second) = (sh.line().await, sh.line().await);
    assert!(
        first.contains("\"pay_url\":\"") && first == second,
        "{first}{second}"
    );
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
