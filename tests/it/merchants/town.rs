//! Everything around one shop: its sidecar, its gateway, and a relay on the way to it.

use super::*;

/// Everything around one shop.
pub(super) struct Town {
    pub(super) kind: Kind,
    /// Its orders, and the sidecar's files.
    pub(super) directory: TempDir,
    pub(super) _sandbox: Program,
    pub(super) gateway: String,
    pub(super) shop: SocketAddr,
    pub(super) api: SocketAddr,
    /// The key of the webhooks.
    pub(super) key: String,
    /// What the shop has printed, over all its runs.
    pub(super) said: Arc<Mutex<Vec<String>>>,
}

impl Town {
    pub(super) async fn new(kind: Kind) -> Self {
        let (sandbox, gateway) = Program::sandbox(&[]).await;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), TOKEN).unwrap();
        kind.lay_out(directory.path());
        let (shop, api) = (local(free_port()), local(free_port()));
        let town = Self {
            kind,
            directory,
            _sandbox: sandbox,
            gateway,
            shop,
            api,
            key: fresh_key().await,
            said: Arc::default(),
        };
        town.set_keys(&[&town.key]);
        town
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// What the sidecar signs with.
    pub(super) fn set_keys(&self, keys: &[&str]) {
        std::fs::write(self.path("keys"), keys.join("\n")).unwrap();
    }

    /// The sidecar, on the port that it always has here, with a store that lasts.
    pub(super) async fn sidecar(&self, webhooks: SocketAddr) -> Program {
        self.sidecar_with(webhooks, &[]).await
    }

    pub(super) async fn sidecar_with(
        &self,
        webhooks: SocketAddr,
        others: &[(&str, &str)],
    ) -> Program {
        let settings = [
            ("listen.address", self.api.to_string()),
            ("listen.token_file", self.path("token")),
            ("redirect.allowed", format!("[{SHOP_URL:?}]")),
            ("webhook.url", format!("http://{webhooks}/payment-events")),
            ("webhook.secret_file", self.path("keys")),
            ("store.url", format!("file:{}", self.path("store"))),
        ];
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(others.iter().copied())
            .collect();
        Program::sidecar(&self.gateway, &settings).await.0
    }

    /// The same command in the shop's environment.
    pub(super) fn in_town(&self, mut command: Command, key: &str, api: SocketAddr) -> Command {
        command
            .env("TILLGATE_URL", format!("http://{api}"))
            .env("TILLGATE_TOKEN", TOKEN)
            .env("WEBHOOK_SECRET", key)
            .env("SHOP_URL", SHOP_URL)
            .env("PORT", self.shop.port().to_string())
            .env("ORDERS", self.path("orders"))
            .env("PHP_CLI_SERVER_WORKERS", "4")
            .env("no_proxy", "127.0.0.1,localhost")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The shop, with the orders that it has.
    pub(super) async fn shop(&self) -> Shop {
        self.shop_with(&self.key, self.api, "300").await
    }

    pub(super) async fn shop_with(&self, key: &str, api: SocketAddr, check_every: &str) -> Shop {
        let served = self.kind.serve(self.shop, self.directory.path());
        let mut command = self.in_town(served, key, api);
        command.env("CHECK_EVERY", check_every);
        // Its workers end with it.
        let command = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the shop starts");
        listen(child.stdout.take().unwrap(), self.said.clone());
        listen(child.stderr.take().unwrap(), self.said.clone());
        until("the shop is open", async || {
            TcpStream::connect(self.shop).await.ok()
        })
        .await;
        Shop {
            child,
            address: self.shop,
        }
    }

    /// A poll of the open orders, as cron makes it; others have no other way than their own clock.
    pub(super) async fn check(&self, shop: Shop) -> Shop {
        if self.kind.passes_by_itself {
            shop.close().await;
            return self.shop_with(&self.key, self.api, "0.2").await;
        }
        let poll = self.kind.run(self.directory.path(), &["check"]);
        let mut command = self.in_town(poll, &self.key, self.api);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        self.said
            .lock()
            .unwrap()
            .extend(text.lines().map(str::to_owned));
        shop
    }

    /// A new order, whose page nobody has seen: where it is.
    pub(super) async fn new_order(&self, amount: u64) -> String {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let made = call(
            self.shop,
            Method::POST,
            "/orders",
            &form,
            &format!("amount={amount}"),
        )
        .await;
        assert_eq!(made.status, 303, "{made:?}");
        made.header("location").to_owned()
    }

    /// A new order, and its page: where it is, and the code of its payment.
    pub(super) async fn order(&self, amount: u64) -> Order {
        let path = self.new_order(amount).await;
        let page = self.page(&path).await;
        let link = page
            .body
            .strip_prefix(&format!("<a href=\"{}/pay/", self.gateway));
        let (code, rest) = link
            .unwrap_or_else(|| panic!("{page:?}"))
            .split_once('?')
            .unwrap();
        let back = path.replace('/', "%2F");
        assert_eq!(
            rest,
            format!("redirect=https%3A%2F%2Fshop.example{back}\">Pay {amount}</a>")
        );
        Order {
            path,
            code: code.to_owned(),
        }
    }

    pub(super) async fn page(&self, path: &str) -> Answer {
        get_at(self.shop, path).await
    }

    pub(super) async fn is_paid(&self, order: &Order) -> bool {
        let page = self.page(&order.path).await;
        assert_eq!(page.status, 200, "{page:?}, {:#?}", self.said);
        page.body == "<p>Paid</p>"
    }

    pub(super) async fn pay(&self, order: &Order) {
        pay_at(&self.gateway, &order.code).await;
    }

    pub(super) async fn becomes_paid(&self, order: &Order) {
        until("the order is paid", async || {
            self.is_paid(order).await.then_some(())
        })
        .await;
    }

    /// The shop has found so many orders paid, and no more; what it prints may come a little later than its page.
    pub(super) async fn has_paid(&self, times: usize) {
        until("the shop says so", async || {
            (self.times_paid() >= times).then_some(())
        })
        .await;
        assert_eq!(self.times_paid(), times, "{:#?}", self.said());
    }

    /// Starts a payment past the shop, as another program of the same merchant does; gives its code.
    pub(super) async fn start_elsewhere(&self, amount: u64, reference: &str) -> String {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
        ];
        let body = format!("{{\"amount\": {amount}, \"reference\": {reference:?}}}");
        let path = "/api/start_payment";
        let started = call(self.api, Method::POST, path, &headers, &body).await;
        started.text("code").to_owned()
    }

    pub(super) fn times_paid(&self) -> usize {
        self.said()
            .iter()
            .filter(|line| line.starts_with("paid:"))
            .count()
    }

    pub(super) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Posts a message to the shop: the status of the answer.
    pub(super) async fn tell(&self, message: &Message) -> u16 {
        let headers: Vec<_> = message
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        call(
            self.shop,
            Method::POST,
            "/payment-events",
            &headers,
            &message.body,
        )
        .await
        .status
    }

    /// `tillgate deliveries …`
    pub(super) async fn deliveries(&self, arguments: &[&str]) -> String {
        let variables = [
            ("listen.address", &*self.api.to_string()),
            ("listen.token_file", &*self.path("token")),
        ];
        let (code, out, err) = run(&[&["deliveries"], arguments].concat(), &variables).await;
        assert_eq!(code, 0, "{err}");
        out
    }
}

pub(super) struct Order {
    pub(super) path: String,
    pub(super) code: String,
}

/// A running shop, which ends with all its workers.
pub(super) struct Shop {
    pub(super) child: Child,
    pub(super) address: SocketAddr,
}

impl Shop {
    pub(super) async fn close(self) {
        let address = self.address;
        drop(self);
        until("it is closed", async || {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let Some(id) = self.child.id() else { return };
        // All of the group that it leads.
        let _ = std::process::Command::new("kill")
            .args(["-s", "KILL", "--", &format!("-{id}")])
            .status();
    }
}

/// Puts down what is printed, line by line.
pub(super) fn listen(
    output: impl AsyncRead + Unpin + Send + 'static,
    said: Arc<Mutex<Vec<String>>>,
) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            said.lock().unwrap().push(line);
        }
    });
}

pub(super) async fn fresh_key() -> String {
    let (code, key, err) = run(&["webhook", "secret"], &[]).await;
    assert_eq!((code, &*err), (0, ""));
    key.trim_end().to_owned()
}

/// A request that went through a relay, or is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    /// What it was answered.
    pub(super) status: u16,
}

impl Message {
    pub(super) fn get(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map_or("", |(_, value)| value)
    }

    /// A field of its body.
    pub(super) fn field(&self, name: &str) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body[name].clone()
    }

    /// The same with another value there.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.without(name);
        other.headers.push((name.to_owned(), value.to_owned()));
        other
    }

    pub(super) fn without(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.headers.retain(|(header, _)| header != name);
        other
    }

    pub(super) fn with_body(&self, body: String) -> Self {
        Self {
            body,
            ..self.clone()
        }
    }

    /// The same with a signature that goes with it, made by nothing of tillgate's.
    pub(super) fn signed(&self, key: &str) -> Self {
        let key = STANDARD
            .decode(key.strip_prefix("whsec_").unwrap())
            .unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(
            format!(
                "{}.{}.{}",
                self.get("webhook-id"),
                self.get("webhook-timestamp"),
                self.body
            )
            .as_bytes(),
        );
        self.with(
            "webhook-signature",
            &format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())),
        )
    }

    /// The same, signed so many seconds from now.
    pub(super) fn signed_in(&self, key: &str, seconds: i64) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let then = now.checked_add_signed(seconds).unwrap();
        self.with("webhook-timestamp", &then.to_string())
            .signed(key)
    }
}

/// What a relay does with one request.
#[derive(Clone, Copy)]
pub(super) enum Do {
    /// Answers this by itself.
    Say(u16),
    /// Passes it on, and cuts the connection in place of an answer.
    Lose,
}

/// Passes requests on, and keeps what it saw.
pub(super) struct Relay {
    pub(super) server: Server,
    /// For the next requests; after these all are passed on.
    pub(super) next: Arc<Mutex<VecDeque<Do>>>,
    pub(super) seen: Arc<Mutex<Vec<Message>>>,
}

impl Relay {
    pub(super) async fn to(target: SocketAddr, next: &[Do]) -> Self {
        let next = Arc::new(Mutex::new(VecDeque::from(next.to_vec())));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (of_server, kept) = (next.clone(), seen.clone());
        let server = Server::new(move |mut stream: TcpStream| {
            let (next, seen) = (of_server.clone(), kept.clone());
            async move {
                let mut read = Vec::new();
                while let Some(request) = next_request(&mut stream, &mut read).await {
                    let action = next.lock().unwrap().pop_front();
                    // Without an answer the connection is cut.
                    let answer = pass_on(&request, target, action, &seen).await?;
                    stream.write_all(&answer).await.ok()?;
                }
                Some(())
            }
        });
        Self {
            server: server.await,
            next,
            seen,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(super) fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }

    /// The starts that it has seen.
    pub(super) fn starts(&self) -> Vec<Message> {
        let mut seen = self.seen();
        seen.retain(|message| message.path == "/api/start_payment");
        seen
    }

    /// Waits until it has seen so many.
    pub(super) async fn saw(&self, count: usize) -> Vec<Message> {
        let enough = async || Some(self.seen()).filter(|seen| seen.len() >= count);
        until(&format!("{count} requests"), enough).await
    }
}

/// The answer to this request; `None` where it is lost.
pub(super) async fn pass_on(
    request: &str,
    target: SocketAddr,
    action: Option<Do>,
    seen: &Mutex<Vec<Message>>,
) -> Option<Vec<u8>> {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let mut line = lines.next().unwrap().split(' ');
    let (method, path) = (line.next().unwrap().parse().unwrap(), line.next().unwrap());
    let own = |name: &str| ["host", "connection", "content-length"].contains(&name);
    let headers: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .filter(|(name, _)| !own(name))
        .collect();
    let message = |status| Message {
        path: path.to_owned(),
        headers: headers.clone(),
        body: body.to_owned(),
        status,
    };
    if let Some(Do::Say(status)) = action {
        seen.lock().unwrap().push(message(status));
        return Some(answer(status, "{\"detail\": \"try again\"}"));
    }
    let borrowed: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let answered = call(target, method, path, &borrowed, body).await;
    seen.lock().unwrap().push(message(answered.status));
    if let Some(Do::Lose) = action {
        return None;
    }
    let mut passed = format!("HTTP/1.1 {} X\r\n", answered.status);
    for name in ["content-type", "retry-after", "idempotency-replayed"] {
        if let Some(value) = answered.headers.get(name) {
            passed.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
    }
    let length = answered.body.len();
    passed.push_str(&format!(
        "Content-Length: {length}\r\n\r\n{}",
        answered.body
    ));
    Some(passed.into())
}
