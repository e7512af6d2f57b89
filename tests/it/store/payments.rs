//! What is known of a payment, whichever answer it came in.

use super::*;

/// What it says of its one payment, and whether it answers at all.
type Says = Arc<Mutex<Option<&'static str>>>;

/// A gateway that gives the same payment to every start, as one does that has keys of its own.
async fn of_one_payment(status: &'static str) -> (Gateway, Says) {
    let says: Says = Arc::new(Mutex::new(Some(status)));
    let said = says.clone();
    let gateway = Gateway::new(move |_, request| {
        let status = *said.lock().unwrap();
        match status {
            Some(_) if request.starts_with("POST") => Act::Say(answer(200, STARTED)),
            Some(status) => Act::Say(answer(
                200,
                &WATCHED.replace("created\",", &format!("{status}\",")),
            )),
            None => Act::Reset,
        }
    })
    .await;
    (gateway, says)
}

/// A start without a key.
async fn unkeyed(api: SocketAddr) -> Answer {
    let body = r#"{"amount": 1000}"#;
    call(
        api,
        Method::POST,
        "/api/start_payment",
        &[TOKEN, JSON],
        body,
    )
    .await
}

#[tokio::test]
async fn a_payment_that_the_gateway_gives_twice_is_one_payment() {
    let (gateway, says) = of_one_payment("created").await;
    let (place, receiver) = (Place::new(), Receiver::new(|_| Mood::Take).await);
    let (sidecar, api) = place.sidecar_with_app(&gateway.url(), &receiver).await;
    // At the same moment, and one after the other.
    let (a, b, c) = tokio::join!(unkeyed(api), unkeyed(api), unkeyed(api));
    let d = unkeyed(api).await;
    for answer in [&a, &b, &c, &d] {
        assert_eq!((answer.status, &answer.body), (200, &a.body));
    }
    // A key does not get what others know.
    let keyed = start(api, "a").await.expect("an answer");
    assert_eq!(keyed.status, 200, "nobody else has a key: {keyed:?}");
    let other = start(api, "b").await.expect("an answer");
    assert_reused(&other);
    *says.lock().unwrap() = Some("completed");
    until("the message", async || {
        (!receiver.messages().is_empty()).then_some(())
    })
    .await;
    // When it was asked for last is known to the millisecond, and rounded.
    let pages = async |api| {
        let page = call(api, Method::GET, "/payments", &[TOKEN], "").await.body;
        page.split("\"last_polled_at\"").next().unwrap().to_owned()
    };
    let (page, told) = (pages(api).await, watch(api, "watch_1").await);
    assert_eq!(page.matches("watch_1").count(), 1, "{page}");
    // It is final, whatever the gateway says or does not.
    *says.lock().unwrap() = None;
    sidecar.kill().await;
    let (sidecar, api) = place.sidecar_with_app(&gateway.url(), &receiver).await;
    assert_eq!(
        (pages(api).await, watch(api, "watch_1").await.body),
        (page.clone(), told.body.clone())
    );
    *says.lock().unwrap() = Some("created");
    // And it is nobody's new payment.
    assert_reused(&unkeyed(api).await);
    assert_eq!(
        (pages(api).await, watch(api, "watch_1").await.body),
        (page, told.body)
    );
    // All that was owed is posted before another one of it could be.
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let ids: HashSet<_> = receiver
        .messages()
        .into_iter()
        .map(|message| message.id)
        .collect();
    assert_eq!(ids.len(), 1, "{:?}", receiver.messages());
}

/// The gateway gave the codes of another payment: nobody gets them, and nobody is told that starting again is safe.
#[track_caller]
fn assert_reused(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.text("error")),
        (502, "gateway_bad_answer"),
        "{answer:?}"
    );
    assert_eq!(answer.text("outcome"), "unknown");
    let detail = answer.text("detail");
    assert!(
        detail.contains("another order") && !detail.contains("is safe"),
        "{detail}"
    );
}

#[tokio::test]
async fn what_was_heard_of_a_code_before_its_start_keeps_no_message_from_the_app() {
    let (gateway, _) = of_one_payment("completed").await;
    let (place, receiver) = (Place::new(), Receiver::new(|_| Mood::Take).await);
    let (_sidecar, api) = place.sidecar_with_app(&gateway.url(), &receiver).await;
    assert_eq!(watch(api, "watch_1").await.text("status"), "completed");
    started(api, "a").await;
    until("the message", async || {
        receiver
            .taken("payment.completed")
            .contains("pay_1")
            .then_some(())
    })
    .await;
    assert_eq!(
        listed(api).await,
        BTreeMap::from([("pay_1".to_owned(), "completed".to_owned())])
    );
}

#[tokio::test]
async fn a_code_that_the_gateway_did_not_know_is_asked_for_at_once_when_it_was_started() {
    let is_started = AtomicBool::new(false);
    let gateway = Gateway::new(move |_, request| {
        if request.starts_with("POST") {
            is_started.store(true, Ordering::SeqCst);
            Act::Say(answer(200, STARTED))
        } else if is_started.load(Ordering::SeqCst) {
            Act::Say(answer(200, WATCHED))
        } else {
            Act::Say(answer(404, "{}"))
        }
    })
    .await;
    let place = Place::new();
    let (_sidecar, api) = place.sidecar(&gateway.url(), &[]).await;
    let plain = async || call(api, Method::GET, "/watch/watch_1", &[TOKEN], "").await;
    assert_eq!(plain().await.text("error"), "unknown_watch_code");
    started(api, "a").await;
    assert_eq!(plain().await.text("status"), "created");
}

#[tokio::test]
async fn a_watch_code_of_another_payment_is_given_to_nobody() {
    let starts = AtomicU64::new(0);
    let gateway = Gateway::new(move |_, request| {
        if request.starts_with("POST") {
            let number = starts.fetch_add(1, Ordering::SeqCst) + 1;
            Act::Say(answer(
                200,
                &STARTED.replace("pay_1", &format!("pay_{number}")),
            ))
        } else if starts.load(Ordering::SeqCst) == 1 {
            Act::Say(answer(200, &WATCHED.replace("created\",", "completed\",")))
        } else {
            Act::Say(answer(200, WATCHED))
        }
    })
    .await;
    let place = Place::new();
    let (sidecar, api) = place.sidecar(&gateway.url(), &[]).await;
    started(api, "a").await;
    assert_eq!(watch(api, "watch_1").await.text("status"), "completed");
    assert_reused(&start(api, "b").await.expect("an answer"));
    let now = BTreeMap::from([("pay_1".to_owned(), "completed".to_owned())]);
    assert_eq!(listed(api).await, now);
    assert_eq!(watch(api, "watch_1").await.text("status"), "completed");
    sidecar.kill().await;
    let (_sidecar, api) = place.sidecar(&gateway.url(), &[]).await;
    assert_eq!(listed(api).await, now);
    assert_eq!(watch(api, "watch_1").await.text("status"), "completed");
}

#[tokio::test]
async fn nothing_is_asked_for_while_the_secret_is_not_there_to_be_taken_out() {
    const SECRET: &str = "canary-that-the-gateway-tells";
    let says = Arc::new(AtomicBool::new(false));
    let completed = says.clone();
    let gateway = Gateway::new(move |_, request| {
        let status = if completed.load(Ordering::SeqCst) {
            "completed\","
        } else {
            "created\","
        };
        let watched = WATCHED
            .replace("\"M\"", &format!("\"{SECRET}\""))
            .replace("created\",", status);
        Act::Say(answer(
            200,
            if request.starts_with("POST") {
                STARTED
            } else {
                &watched
            },
        ))
    })
    .await;
    let (place, receiver) = (Place::new(), Receiver::new(|_| Mood::Take).await);
    let secret = place.directory.path().join("secret");
    let (url, keys) = (receiver.url(), place.directory.path().join("keys"));
    let settings = [
        ("merchant.secret_file", secret.to_str().unwrap()),
        ("webhook.url", &url),
        ("webhook.secret_file", keys.to_str().unwrap()),
    ];
    fs::write(&secret, SECRET).unwrap();
    let (sidecar, api) = place.sidecar(&gateway.url(), &settings).await;
    started(api, "a").await;
    // In peace: nothing that it asked for is on its way any more.
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    fs::remove_file(&secret).unwrap();
    says.store(true, Ordering::SeqCst);
    let before = gateway.requests().len();
    let (_sidecar, api) = place.sidecar(&gateway.url(), &settings).await;
    for code in ["watch_1", "unheard_of"] {
        let path = format!("/watch/{code}");
        let refused = call(
            api,
            Method::GET,
            &path,
            &[TOKEN, ("Cache-Control", "no-cache")],
            "",
        )
        .await;
        // What was known before is served.
        assert!(
            refused.status == 200 && refused.body.contains("[redacted]")
                || refused.text("error") == "secret_unavailable",
            "{refused:?}"
        );
    }
    assert_eq!(gateway.requests().len(), before);
    fs::write(&secret, SECRET).unwrap();
    let message = until("the message", async || {
        receiver.messages().into_iter().next()
    })
    .await;
    assert!(
        message.body.contains("[redacted]") && !message.body.contains(SECRET),
        "{message:?}"
    );
}

#[tokio::test]
async fn a_message_says_which_payment_it_is_about_however_deep_the_answer_is() {
    let deep = format!("{}1{}", "[".repeat(15), "]".repeat(15));
    let watched = WATCHED.replace("created\",", &format!("completed\",\"x\":{deep},"));
    let gateway = Gateway::new(move |_, request| {
        Act::Say(answer(
            200,
            if request.starts_with("POST") {
                STARTED
            } else {
                &watched
            },
        ))
    })
    .await;
    let (place, receiver) = (Place::new(), Receiver::new(|_| Mood::Take).await);
    let (_sidecar, api) = place.sidecar_with_app(&gateway.url(), &receiver).await;
    started(api, "a").await;
    until("the message", async || {
        receiver
            .taken("payment.completed")
            .contains("pay_1")
            .then_some(())
    })
    .await;
    let deliveries = call(api, Method::GET, "/deliveries", &[TOKEN], "")
        .await
        .json();
    let delivery = &deliveries["deliveries"][0];
    assert_eq!(
        (&delivery["code"], &delivery["watch_code"]),
        (&"pay_1".into(), &"watch_1".into()),
        "{delivery}"
    );
}
