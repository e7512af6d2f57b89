//! A day of a shop: what docs/orders.md says, from the first start to the last look.

use super::*;

pub(super) async fn orders_go_through_all_that_may_happen_to_them(kind: Kind) {
    let day = Day::begin(kind).await;
    let shop = day.town.shop_with(&day.town.key, day.api.address(), "300");
    let shop = shop.await;
    // In this order: the shop counts its orders.
    day.many_who_open_an_order_get_one_page().await;
    day.a_payer_who_returns_sees_paid_at_once().await;
    day.a_webhook_that_is_too_fast_comes_again().await;
    day.an_order_of_another_amount_is_not_started().await;
    day.a_message_that_tries_the_webhook_is_taken().await;
    day.without_tillgate_a_page_is_the_one_that_is_known().await;
    shop.close().await;
}

struct Day {
    town: Town,
    sidecar: Program,
    /// The way of the webhooks to the shop.
    webhooks: Relay,
    /// The way of the shop to the sidecar.
    api: Relay,
}

impl Day {
    async fn begin(kind: Kind) -> Self {
        let town = Town::new(kind).await;
        let webhooks = Relay::to(town.shop, &[]).await;
        // Only who asks with `no-cache` hears anything new from the gateway.
        let old_will_do = [("watch.fresh_for", "10m")];
        let sidecar = town.sidecar_with(webhooks.address(), &old_will_do).await;
        let api = Relay::to(town.api, &[]).await;
        Self {
            town,
            sidecar,
            webhooks,
            api,
        }
    }

    async fn gateway_starts(&self) -> u64 {
        calls(&self.town.gateway).await.0
    }

    /// The first order: it has one payment, started by its reference.
    async fn many_who_open_an_order_get_one_page(&self) {
        let path = self.town.new_order(700).await;
        let pages = join_all((0..6).map(|_| self.town.page(&path))).await;
        assert!(pages[0].body.ends_with(">Pay 700</a>"), "{pages:?}");
        assert!(
            pages.iter().all(|page| page.body == pages[0].body),
            "{pages:?}"
        );
        assert_eq!(self.gateway_starts().await, 1);
        for start in self.api.starts() {
            let reference = start.field("reference");
            assert!(reference == "1" || reference == 1, "{start:?}");
        }
    }

    /// The second order: its first page after the payment says so, and the webhook changes nothing then.
    async fn a_payer_who_returns_sees_paid_at_once(&self) {
        let Self { town, webhooks, .. } = self;
        let order = town.order(1000).await;
        assert!(!town.is_paid(&order).await);
        town.pay(&order).await;
        assert!(town.is_paid(&order).await, "{:#?}", town.said());
        town.has_paid(1).await;
        assert_eq!(webhooks.saw(1).await[0].status, 204);
        assert_eq!(town.times_paid(), 1);
    }

    /// The third order: it was paid by a start whose answer was lost, and the webhook is faster than the order table.
    async fn a_webhook_that_is_too_fast_comes_again(&self) {
        let Self { town, webhooks, .. } = self;
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
        assert_eq!((town.times_paid(), self.gateway_starts().await), (2, 3));
    }

    /// The fourth order has an open payment for another amount, the fifth a paid one: there is no page to pay at.
    async fn an_order_of_another_amount_is_not_started(&self) {
        let Self { town, webhooks, .. } = self;
        town.start_elsewhere(500, "4").await;
        let path = town.new_order(1000).await;
        let page = town.page(&path).await;
        assert_eq!((page.status, page.body.contains("/pay/")), (500, false));
        let starts = self.api.starts();
        let [.., refused] = &starts[..] else {
            panic!("{starts:?}")
        };
        assert_eq!(refused.status, 422);
        let of_this = |start: &&Message| start.field("reference") == refused.field("reference");
        assert_eq!(starts.iter().filter(of_this).count(), 1, "{starts:?}");
        until("it says why", async || {
            let why = "This reference has an open payment for another amount";
            let said = town.said();
            said.iter().any(|line| line.contains(why)).then_some(())
        })
        .await;

        let before = webhooks.seen().len();
        pay_at(&town.gateway, &town.start_elsewhere(500, "5").await).await;
        webhooks.saw(before + 1).await;
        let path = town.new_order(1000).await;
        let page = town.page(&path).await;
        assert!(
            !page.body.contains("Paid") && !page.body.contains("/pay/"),
            "{page:?}"
        );
        assert_eq!(town.times_paid(), 2);
    }

    /// That of `tillgate webhook test`.
    async fn a_message_that_tries_the_webhook_is_taken(&self) {
        let body = r#"{"type":"tillgate.test","timestamp":"2026-01-31T12:01:30Z","data":{}}"#;
        let message = self.webhooks.seen()[0].with_body(body.to_owned());
        let message = message.signed_in(&self.town.key, 0);
        assert_eq!(self.town.tell(&message).await, 204);
    }

    /// The sixth order.
    async fn without_tillgate_a_page_is_the_one_that_is_known(&self) {
        let order = self.town.order(1000).await;
        self.sidecar.signal("KILL");
        until("it is gone", async || {
            let gone = TcpStream::connect(self.town.api).await.is_err();
            gone.then_some(())
        })
        .await;
        assert!(!self.town.is_paid(&order).await);
        let page = self.town.page(&order.path).await;
        assert!(page.body.contains(&order.code), "{page:?}");
    }
}
