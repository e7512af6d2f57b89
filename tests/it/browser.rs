//! In a real browser: the pay page and the way back, the sandbox's pages on a phone, and the operator's page.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::clients::{API_PAGE, JS, blocks};
use crate::deploy::file;
use crate::harness::{
    Client, Program, call, free_port, get_at, has, metric_at, pay_at, set_faults, skip, start_at,
};
use crate::scripted::{Act, Gateway};

/// A headless chromium, driven over WebDriver.
struct Browser {
    _driver: Child,
    driver: SocketAddr,
    /// The path of its session.
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn open() -> Self {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("chromedriver tells its port");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // Read on, so that it never writes into a closed pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = tempfile::tempdir().unwrap();
        let profile_flag = format!("--user-data-dir={}", profile.path().display());
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // A page that is left is over at once.
            "--disable-features=BackForwardCache",
            // Nothing but this machine.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
            &profile_flag,
        ];
        let mut browser = Self {
            _driver: child,
            driver: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            _profile: profile,
        };
        let chrome = json!({ "goog:chromeOptions": { "args": flags }, "goog:loggingPrefs": { "browser": "ALL" } });
        let opened = browser
            .ask(
                Method::POST,
                "/session",
                json!({ "capabilities": { "alwaysMatch": chrome } }),
            )
            .await;
        browser.session = format!("/session/{}", opened["sessionId"].as_str().unwrap());
        browser
    }

    /// Ends it. A browser would outlive its driver's death.
    async fn close(self) {
        self.ask(Method::DELETE, "", Value::Null).await;
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let path = format!("{}{path}", self.session);
        let answer = call(
            self.driver,
            method,
            &path,
            &[("content-type", "application/json")],
            &body,
        )
        .await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()["value"].take()
    }

    async fn go(&self, url: &str) {
        self.ask(Method::POST, "/url", json!({ "url": url })).await;
    }

    /// Clicks the only element that this CSS selector finds.
    async fn click(&self, selector: &str) {
        let element = self.only(selector).await;
        self.ask(Method::POST, &format!("{element}/click"), json!({}))
            .await;
    }

    /// Types into it.
    async fn type_in(&self, selector: &str, text: &str) {
        let element = self.only(selector).await;
        self.ask(
            Method::POST,
            &format!("{element}/value"),
            json!({ "text": text }),
        )
        .await;
    }

    /// The path of the only element that this CSS selector finds.
    async fn only(&self, selector: &str) -> String {
        let found = self
            .ask(
                Method::POST,
                "/elements",
                json!({ "using": "css selector", "value": selector }),
            )
            .await;
        let [element] = &found.as_array().unwrap()[..] else {
            panic!("not one {selector}: {found}")
        };
        // The key is WebDriver's own constant; there is no other.
        let id = element
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .as_str()
            .unwrap();
        format!("/element/{id}")
    }

    /// The value of a JavaScript expression.
    async fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.ask(
            Method::POST,
            "/execute/sync",
            json!({ "script": script, "args": [] }),
        )
        .await
    }

    /// Waits until the browser is there.
    async fn arrives_at(&self, url: &str) {
        let arrived = async {
            while self.value("location.href").await != url {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), arrived)
            .await
            .is_err()
        {
            panic!(
                "the browser is at {}, not at {url}",
                self.value("location.href").await
            );
        }
    }

    /// Waits until the page has loaded itself once more.
    async fn refreshes(&self) {
        let loaded = self.value("performance.timeOrigin").await;
        let again = async {
            while self.value("performance.timeOrigin").await == loaded {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again)
            .await
            .expect("a refresh");
    }

    /// Waits until the page's heading is this.
    async fn shows(&self, heading: &str) {
        self.becomes("document.querySelector('h1')?.innerText", json!(heading))
            .await;
    }

    /// Waits until a JavaScript expression has this value.
    async fn becomes(&self, expression: &str, value: Value) {
        in_time(&format!("{expression} is {value}"), async {
            while self.value(expression).await != value {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// A screen of this width from here on; windows cannot be made so narrow.
    async fn set_width(&self, width: u32) {
        let screen =
            json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": false });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": screen });
        self.ask(Method::POST, "/goog/cdp/execute", command).await;
    }

    /// Of someone who prefers `light` or `dark`.
    async fn set_scheme(&self, scheme: &str) {
        let wish = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": wish });
        self.ask(Method::POST, "/goog/cdp/execute", command).await;
    }

    /// What it has complained of since it was asked the last time.
    async fn complaints(&self) -> Value {
        self.ask(Method::POST, "/se/log", json!({ "type": "browser" }))
            .await
    }
}

/// Runs the test with a browser, and ends that also when the test fails.
async fn with_browser<F>(test: impl FnOnce(Arc<Browser>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if !has("chromium") || !has("chromedriver") {
        return;
    }
    let browser = Arc::new(Browser::open().await);
    let result = tokio::spawn(test(browser.clone())).await;
    Arc::into_inner(browser)
        .expect("the test is over")
        .close()
        .await;
    if let Err(failed) = result {
        std::panic::resume_unwind(failed.into_panic());
    }
}

/// The shop's page that payers come back to, at any path.
async fn shop() -> Gateway {
    let page =
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<h1>Thank you</h1>";
    Gateway::new(|_, _| Act::SayAndEnd(page.into())).await
}

#[tokio::test]
async fn a_payer_pays_and_comes_back() {
    with_browser(async |browser| {
        let shop = shop().await;
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let allowed = format!(r#"["{}"]"#, shop.url());
        let (_sidecar, api, _) =
            Program::sidecar(&gateway, &[("redirect.allowed", &allowed)]).await;
        let thanks = format!("{}/thanks?order=7&from=shop", shop.url());
        let started = start_at(
            api,
            &json!({ "amount": 123_456, "redirect": thanks }).to_string(),
        )
        .await
        .json();
        let watch = format!("/watch/{}", started["watch_code"].as_str().unwrap());
        assert_eq!(get_at(api, &watch).await.text("status"), "created");

        browser.go(started["pay_url"].as_str().unwrap()).await;
        let page = browser.value("document.body.innerText").await;
        assert!(page.as_str().unwrap().contains("Sandbox Shop"), "{page}");
        assert_eq!(
            browser
                .value("document.querySelector('.amount data').value")
                .await,
            "123456"
        );
        browser.click("form button").await;
        browser.arrives_at(&thanks).await;
        assert_eq!(browser.value("document.body.innerText").await, "Thank you");

        // What was fresh a moment ago says `created` still; this asks anew.
        let no_cache = [("cache-control", "no-cache")];
        let watched = call(api, Method::GET, &watch, &no_cache, "").await;
        assert_eq!(watched.text("status"), "completed");

        // Back on the pay page, there is nothing left to pay.
        browser.go(started["pay_url"].as_str().unwrap()).await;
        assert_eq!(
            browser
                .value("document.querySelectorAll('form').length")
                .await,
            0
        );
        browser.click("a.button").await;
        browser.arrives_at(&thanks).await;
    })
    .await;
}

#[tokio::test]
async fn a_page_elsewhere_leads_to_the_pay_page_and_pays_nothing_by_itself() {
    with_browser(async |browser| {
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
        let started = start_at(api, r#"{"amount": 1000}"#).await.json();
        let code = started["code"].as_str().unwrap();
        let pay_url = format!("{gateway}/pay/{code}");
        let page = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<a href='{pay_url}'>Pay</a>\
             <form method=post action='{pay_url}'><button>Pay for me</button></form>\
             <form method=post action='{gateway}/_sandbox/faults'><input name=add value='start:status=500'></form>"
        );
        let shop = Gateway::new(move |_, _| Act::SayAndEnd(page.clone().into())).await;
        // Of the same site as the sandbox, and of another.
        for host in ["127.0.0.1", "localhost"] {
            let shop = shop.url().replace("127.0.0.1", host);
            browser.go(&shop).await;
            browser.click("button").await;
            browser.shows("Not from there").await;
            browser.go(&shop).await;
            browser.value("document.forms[1].submit()").await;
            browser.shows("Not from there").await;
        }
        let watch = format!("/watch/{}", started["watch_code"].as_str().unwrap());
        assert_eq!(get_at(api, &watch).await.text("status"), "created");
        assert_eq!(start_at(api, r#"{"amount": 1000}"#).await.status, 200);
        browser.go(&shop.url()).await;
        browser.click("a").await;
        browser.click("form button").await;
        browser.shows("Paid").await;
    })
    .await;
}

#[tokio::test]
async fn the_pages_relay_turns_a_page_to_paid_by_itself() {
    if !JS.is_here() {
        return;
    }
    with_browser(async |browser| {
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let port = free_port();
        let (sidecar, api, _) = Program::sidecar_on(port, &gateway).await;
        let started = start_at(api, r#"{"amount": 1000}"#).await;
        let (_relay, shop) = relay(api, started.text("watch_code")).await;

        browser.go(&format!("{shop}/thanks/7")).await;
        browser.shows("Not paid yet").await;
        browser.value("window.loaded = 'once'").await;
        sidecar.signal("TERM");
        assert_eq!(sidecar.end().await.0, 0);
        let (mut sidecar, _, admin) = Program::sidecar_on(port, &gateway).await;
        streams(admin, 1).await;
        pay_at(&gateway, started.text("code")).await;
        browser.shows("Paid").await;
        assert_eq!(
            browser.value("window.loaded").await,
            "once",
            "the page was loaded again"
        );
        // It comes back once more, and is told to leave it at that.
        sidecar.log_line("\"status\":204").await;
    })
    .await;
}

#[tokio::test]
async fn a_payer_who_leaves_the_pages_relay_is_waited_for_no_more() {
    if !JS.is_here() {
        return;
    }
    with_browser(async |browser| {
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let (_sidecar, api, admin) = Program::sidecar(&gateway, &[]).await;
        let started = start_at(api, r#"{"amount": 1000}"#).await;
        let (_relay, shop) = relay(api, started.text("watch_code")).await;
        browser.go(&format!("{shop}/thanks/7")).await;
        browser.shows("Not paid yet").await;
        streams(admin, 1).await;
        browser.go("about:blank").await;
        streams(admin, 0).await;
    })
    .await;
}

/// The relay of the API's page, run as it stands before a sidecar at this address, with this payment as its order 7; and its URL.
async fn relay(api: SocketAddr, watch_code: &str) -> (Client, String) {
    let [text] = &blocks(API_PAGE, "When it changes", JS)[..] else {
        panic!("not one relay in {API_PAGE}")
    };
    let port = free_port();
    let moved = text.replace("http://localhost:8700", &format!("http://{api}"));
    let moved = moved.replace("listen(3000)", &format!("listen({port})"));
    assert!(
        moved.contains(&api.to_string()) && moved.contains(&port.to_string()),
        "{text}"
    );
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("relay.mjs");
    std::fs::write(&script, moved).unwrap();
    let relay = Client::start(
        JS.program,
        &[script.to_str().unwrap(), watch_code],
        api,
        &[],
    );
    in_time("the relay listens", async {
        while TcpStream::connect(("localhost", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    (relay, format!("http://localhost:{port}"))
}

/// Waits until so many streams are open.
async fn streams(admin: SocketAddr, count: u64) {
    let open = "tillgate_waiters{kind=\"stream\"}";
    in_time(open, async {
        while metric_at(admin, open).await != count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn in_time(what: &str, comes: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(20), comes)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn the_sandboxs_pages_fit_a_phone() {
    with_browser(async |browser| {
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let (_sidecar, api, _) =
            Program::sidecar(&gateway, &[("redirect.allowed", r#"["https://a-rather-long-name.shop.example"]"#)])
                .await;
        browser.set_width(390).await;
        fits(&browser, &gateway).await;
        let largest = r#"{"amount": 9007199254740991, "redirect": "https://a-rather-long-name.shop.example/thanks"}"#;
        let started = start_at(api, largest).await.json();
        let code = started["code"].as_str().unwrap();
        fits(&browser, started["pay_url"].as_str().unwrap()).await;
        fits(&browser, &gateway).await;
        fits(&browser, &format!("{gateway}/dev/api")).await;
        pay_at(&gateway, code).await;
        fits(&browser, started["pay_url"].as_str().unwrap()).await;
        fits(&browser, &gateway).await;
        fits(&browser, &format!("{gateway}/nothing/here")).await;
        fits(&browser, &format!("{gateway}/_sandbox/faults")).await;
        set_faults(&gateway, &["start:status=503,retry-after=86400,delay=250ms,rate=0.123456789,count=1000000"]).await;
        fits(&browser, &format!("{gateway}/_sandbox/faults")).await;
        fits(&browser, &gateway).await;
    })
    .await;
}

/// What looks for barriers in a page, if it is installed.
fn axe() -> Option<String> {
    let path = file("tests/clients/node_modules/axe-core/axe.min.js");
    let found = std::fs::read_to_string(path).ok();
    if found.is_none() {
        skip("the package axe-core is missing: `npm ci --prefix tests/clients`");
    }
    found
}

/// Nothing of the page keeps anybody from reading it, as far as axe sees, on a phone and on a desk, by day and by night.
async fn has_no_barriers(browser: &Browser, axe: &str, url: &str) {
    for (width, scheme) in [
        (390, "light"),
        (390, "dark"),
        (1280, "light"),
        (1280, "dark"),
    ] {
        browser.set_width(width).await;
        browser.set_scheme(scheme).await;
        browser.go(url).await;
        let run = "axe.run().then((found) => found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html)}`))";
        let script = format!("{axe}; return {run}");
        let found = json!({ "script": script, "args": [] });
        let found = browser.ask(Method::POST, "/execute/sync", found).await;
        assert_eq!(found, json!([]), "{url} at {width}, {scheme}");
        let width_of_all = browser.value("document.documentElement.scrollWidth").await;
        assert!(
            width_of_all.as_u64().unwrap() <= width.into(),
            "{url} at {width}"
        );
    }
}

#[tokio::test]
async fn no_page_has_a_barrier() {
    let Some(axe) = axe() else { return };
    with_browser(async move |browser| {
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("webhook.key");
        std::fs::write(&key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        // Nobody takes the webhooks.
        let nobody = format!("http://127.0.0.1:{}/", free_port());
        let settings = [
            ("redirect.allowed", r#"["https://shop.example"]"#),
            ("webhook.url", nobody.as_str()),
            ("webhook.secret_file", key.to_str().unwrap()),
        ];
        let (_sidecar, api, admin) = Program::sidecar(&gateway, &settings).await;
        let status = format!("http://{admin}/");
        let look =
            async |path: &str| has_no_barriers(&browser, &axe, &format!("{gateway}{path}")).await;
        has_no_barriers(&browser, &axe, &status).await;
        for path in [
            "/",
            "/dev/api",
            "/_sandbox/faults",
            "/nothing/here",
            "/pay/pay_none",
        ] {
            look(path).await;
        }
        let start = r#"{"amount": 123456789, "redirect": "https://shop.example/thanks"}"#;
        let [open, paid] = [start_at(api, start).await, start_at(api, start).await];
        pay_at(&gateway, paid.text("code")).await;
        for payment in [&open, &paid] {
            has_no_barriers(&browser, &axe, payment.text("pay_url")).await;
        }
        let refused = format!("/pay/{}?redirect=javascript:alert(1)", open.text("code"));
        look(&refused).await;
        set_faults(
            &gateway,
            &["start:status=503,retry-after=86400,delay=250ms"],
        )
        .await;
        assert_eq!(start_at(api, start).await.status, 502);
        for path in ["/", "/?refresh=off", "/_sandbox/faults"] {
            look(path).await;
        }
        for path in ["", "?refresh=off"] {
            has_no_barriers(&browser, &axe, &format!("{status}{path}")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_person_makes_the_gateway_go_wrong_and_right_again() {
    with_browser(async |browser| {
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let (_sidecar, api, _) = Program::sidecar(&gateway, &[("gateway.retries", "0")]).await;
        let page = format!("{gateway}/_sandbox/faults");
        let shows = async |set: Value| {
            browser
                .becomes(
                    "[...document.querySelectorAll('.set code')].map((code) => code.innerText)",
                    set,
                )
                .await;
        };
        browser.go(&gateway).await;
        browser.click("nav a[href='/_sandbox/faults']").await;
        browser.arrives_at(&page).await;
        shows(json!([])).await;

        browser.click("button[value='start:status=500']").await;
        shows(json!(["start:status=500"])).await;
        browser.type_in("input", " watch:delay=10ms,rate=0.5").await;
        browser.click("input + button").await;
        let both = json!(["start:status=500", "watch:delay=10ms,rate=0.5"]);
        shows(both.clone()).await;
        // Loaded again, it adds nothing.
        browser
            .go(browser.value("location.href").await.as_str().unwrap())
            .await;
        shows(both.clone()).await;
        assert_eq!(
            start_at(api, r#"{"amount": 1000}"#).await.text("error"),
            "gateway_bad_answer"
        );
        browser.go(&gateway).await;
        let note = browser
            .value("document.querySelector('.note').innerText")
            .await;
        assert!(
            note.as_str().unwrap().starts_with("2 faults are set"),
            "{note}"
        );
        browser.click(".note a").await;
        browser.arrives_at(&page).await;
        assert_eq!(
            browser.complaints().await,
            json!([]),
            "nothing was against the policy"
        );

        // What is none is told why, stays to be mended, and changes nothing.
        browser.type_in("input", "start:\"><script>reset").await;
        browser.click("input + button").await;
        browser
            .becomes("document.querySelectorAll('[role=alert]').length", json!(1))
            .await;
        let why = browser
            .value("document.querySelector('[role=alert]').innerText")
            .await;
        let why = why.as_str().unwrap();
        assert!(
            why.contains("start knows no fault `\"><script>reset`") && why.contains("truncate"),
            "{why}"
        );
        assert_eq!(
            browser.value("document.querySelector('input').value").await,
            "start:\"><script>reset"
        );
        shows(both).await;

        browser
            .click("button[name='remove'][value='start:status=500']")
            .await;
        shows(json!(["watch:delay=10ms,rate=0.5"])).await;
        assert_eq!(start_at(api, r#"{"amount": 1000}"#).await.status, 200);
        browser.click("button[name='clear']").await;
        shows(json!([])).await;
        browser.go(&gateway).await;
        assert_eq!(
            browser
                .value("document.querySelectorAll('.note').length")
                .await,
            0
        );

        let mut grounds = Vec::new();
        for scheme in ["light", "dark"] {
            browser.set_scheme(scheme).await;
            browser.go(&page).await;
            grounds.push(
                browser
                    .value("getComputedStyle(document.querySelector('input')).backgroundColor")
                    .await,
            );
        }
        assert_eq!(grounds, ["rgb(245, 246, 248)", "rgb(14, 17, 22)"]);
    })
    .await;
}

/// The page has something to read, and nothing of it is beside the screen.
async fn fits(browser: &Browser, url: &str) {
    browser.go(url).await;
    assert_eq!(browser.value("innerWidth").await, 390, "{url}");
    let heading = browser
        .value("document.querySelector('h1').innerText")
        .await;
    assert!(!heading.as_str().unwrap().is_empty(), "{url}");
    let width = browser.value("document.documentElement.scrollWidth").await;
    assert!(width.as_u64().unwrap() <= 390, "{url} is {width} wide");
    // Who reads with a screen reader hears it too.
    assert_eq!(
        browser.value("document.documentElement.lang").await,
        "en",
        "{url}"
    );
}

#[tokio::test]
async fn the_operators_page_is_styled_fits_and_refreshes_itself() {
    with_browser(async |browser| {
        let (_sandbox, gateway) = Program::sandbox(&[]).await;
        let (_sidecar, api, admin) = Program::sidecar(&gateway, &[]).await;
        let url = format!("http://{admin}/");
        for busy in [false, true] {
            if busy {
                let watch_code = start_at(api, r#"{"amount": 1000}"#)
                    .await
                    .text("watch_code")
                    .to_owned();
                assert_eq!(
                    get_at(api, &format!("/watch/{watch_code}")).await.status,
                    200
                );
                assert_eq!(get_at(api, "/watch/unheard-of").await.status, 404);
            }
            for (width, columns) in [(375, 1), (1280, 3)] {
                browser.set_width(width).await;
                browser.go(&url).await;
                assert_eq!(browser.value("innerWidth").await, width);
                let scroll = browser.value("document.documentElement.scrollWidth").await;
                assert!(
                    scroll.as_u64().unwrap() <= width.into(),
                    "{scroll} of {width}"
                );
                // A grid of its own style: of so many columns.
                let grid = browser
                    .value("getComputedStyle(document.querySelector('.three')).gridTemplateColumns")
                    .await;
                assert_eq!(grid.as_str().unwrap().split(' ').count(), columns, "{grid}");
            }
        }
        let mut grounds = Vec::new();
        for scheme in ["light", "dark"] {
            browser.set_scheme(scheme).await;
            browser.go(&url).await;
            grounds.push(
                browser
                    .value("getComputedStyle(document.body).backgroundColor")
                    .await,
            );
        }
        assert_eq!(grounds, ["rgb(246, 247, 249)", "rgb(12, 14, 18)"]);
        browser.refreshes().await;
        assert_eq!(browser.value("document.title").await, "Ready · tillgate");
        assert_eq!(
            browser.complaints().await,
            json!([]),
            "nothing was against the policy"
        );
    })
    .await;
}
