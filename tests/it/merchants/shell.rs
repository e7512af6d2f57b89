//! The shop in a shell, which has commands and no pages.

use super::*;

/// Exit code, stdout and stderr.
type Said = (i32, String, String);

/// The shop in its town; `None` where it cannot run.
struct Shell {
    town: Town,
    _sidecar: Program,
}

impl Shell {
    async fn open() -> Option<Self> {
        if !SHELL.is_here() {
            return None;
        }
        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let town = Town::new(SHELL).await;
        let _sidecar = town.sidecar(nobody).await;
        Some(Self { town, _sidecar })
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        self.run_at(self.town.api, arguments).await
    }

    async fn run_at(&self, api: SocketAddr, arguments: &[&str]) -> Said {
        let shop = SHELL.run(self.town.directory.path(), arguments);
        let mut command = self.town.in_town(shop, &self.town.key, api);
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
        let output = output.expect("an end in time").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Starts the payment of an order of 500: its code.
    async fn order(&self, number: &str) -> String {
        let (_, pay, err) = self.run(&["order", number, "500"]).await;
        pay.split(['/', '?'])
            .nth(4)
            .unwrap_or_else(|| panic!("{pay}{err}"))
            .to_owned()
    }
}

#[tokio::test]
async fn the_shop_in_a_shell_starts_and_waits() {
    let Some(shell) = Shell::open().await else {
        return;
    };
    let town = &shell.town;
    // Started again and again, also when the answer is lost on its way, it is one payment.
    let relay = Relay::to(town.api, &[Do::Say(503), Do::Lose]).await;
    let (code, pay, err) = shell.run_at(relay.address(), &["order", "7", "1000"]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        shell.run(&["order", "7", "1000"]).await,
        (0, pay.clone(), String::new())
    );
    assert_eq!(calls(&town.gateway).await.0, 1);
    let link = pay
        .trim_end()
        .strip_prefix(&format!("pay: {}/pay/", town.gateway))
        .unwrap_or_else(|| panic!("{pay}"));
    let (payment, back) = link.split_once('?').unwrap();
    assert_eq!(back, "redirect=https%3A%2F%2Fshop.example%2Forders%2F7");

    // Many wait for it, and one of them finds it paid.
    let nothing = (0, String::new(), String::new());
    assert_eq!(shell.run(&["check"]).await, nothing);
    let waiting = join_all((0..3).map(|_| shell.run(&["wait", "7"])));
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
    assert_eq!(shell.run(&["check"]).await, nothing);
}

#[tokio::test]
async fn the_shop_in_a_shell_finds_what_is_paid_and_no_wrong_sum_counts() {
    let Some(shell) = Shell::open().await else {
        return;
    };
    let gateway = &shell.town.gateway;
    // The pass finds one that nobody waits for.
    pay_at(gateway, &shell.order("8").await).await;
    let (code, out, err) = shell.run(&["check"]).await;
    assert!(code == 0 && out.ends_with(" by check\n"), "{out}{err}");
    assert_eq!(out.lines().count(), 1);

    // A payer who comes back sees at once that it is paid.
    pay_at(gateway, &shell.order("10").await).await;
    let (code, out, err) = shell.run(&["order", "10", "500"]).await;
    let is_paid = out.ends_with(" by order\norder 10 is paid\n");
    assert!(code == 0 && is_paid, "{out}{err}");

    set_faults(gateway, &["watch:wrong-amount"]).await;
    pay_at(gateway, &shell.order("9").await).await;
    let (code, out, err) = shell.run(&["check"]).await;
    assert_eq!((code, &*out), (0, ""), "{err}");
    assert!(err.contains("not the amount of the order"), "{err}");

    let (code, out, err) = shell.run(&["nonsense"]).await;
    assert!(
        (code, &*out) == (2, "") && err.contains("sh shop.sh check"),
        "{err}"
    );
}

#[tokio::test]
async fn the_shop_in_a_shell_starts_nothing_that_was_started_for_another_sum_or_paid() {
    let Some(shell) = Shell::open().await else {
        return;
    };
    let town = &shell.town;
    shell.order("5").await;
    town.start_elsewhere(1000, "6").await;
    for (number, why) in [
        ("5", "order 5 is for 500"),
        ("6", "This reference has an open payment for another amount"),
    ] {
        let (code, out, err) = shell.run(&["order", number, "2000"]).await;
        let is_refused = (code, &*out) == (1, "");
        assert!(is_refused && err.contains(why), "{out}{err}");
    }

    pay_at(&town.gateway, &town.start_elsewhere(500, "11").await).await;
    let bearer = format!("Bearer {TOKEN}");
    let token = [("authorization", bearer.as_str())];
    until("tillgate knows that it is paid", async || {
        let path = "/payments?status=completed";
        let listed = call(town.api, Method::GET, path, &token, "").await;
        listed.body.contains("\"reference\":\"11\"").then_some(())
    })
    .await;
    let (code, out, err) = shell.run(&["order", "11", "500"]).await;
    let is_paid = out.ends_with(" by order\norder 11 is paid\n");
    assert!(code == 0 && is_paid, "{out}{err}");
    assert_eq!(calls(&town.gateway).await.0, 3);
}
