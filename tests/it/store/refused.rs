//! What cannot be written, and what cannot be opened.

use super::*;

#[track_caller]
fn store_unavailable(answer: &Answer, outcome: &str) {
    assert_eq!(
        (answer.status, answer.text("error"), answer.text("outcome")),
        (503, "store_unavailable", outcome)
    );
}

/// Makes the system call fail, as `when` says: `7` the seventh time, `7+` from then on. Each thread counts for itself:
/// the one that opens the store, and the one that writes.
fn failing(call: &str, error: &str, when: &str) -> Vec<String> {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:error={error}:when={when}");
    // -D: the sidecar itself is our child.
    let words = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    words.map(str::to_owned).to_vec()
}

/// Starts, a watch of a payment that was paid, and an end, on a store whose system calls fail; then what is left.
/// Says whether one of the calls failed to be noticed.
async fn with_failing(
    gateway: &str,
    template: &(Place, Revealed),
    call: &str,
    error: &str,
    n: u64,
) -> bool {
    let place = Place::copy_of(&template.0.store);
    let mut revealed = Revealed(template.1.0.clone());
    let under = failing(call, error, &n.to_string());
    let under: Vec<_> = under.iter().map(String::as_str).collect();
    let mut sidecar = place.launch(&under, gateway, &[]);
    let mut noticed = false;
    let is_sync = call == "fdatasync";
    if sidecar.log_line_or_end("tillgate is running").await {
        let api = sidecar.last_addresses().0;
        let mut ended = false;
        for i in 0..5 {
            let key = format!("key-{i}");
            match start(api, &key).await {
                Some(answer) if answer.status == 200 => revealed.add(&key, &answer),
                Some(answer) => {
                    noticed = true;
                    store_unavailable(&answer, "unknown");
                    if is_sync {
                        ended = true;
                        break;
                    }
                    let (_, watch_code) = codes(&revealed, "first");
                    assert_eq!(watch(api, &watch_code).await.status, 200);
                    // It may have been cured in this moment.
                    let refused = start(api, &format!("not-sent-{i}")).await.unwrap();
                    if refused.status != 200 {
                        store_unavailable(&refused, "not_sent");
                    }
                    let answer = until("starts work again by themselves", async || {
                        start(api, &key).await.filter(|answer| answer.status == 200)
                    });
                    revealed.add(&key, &answer.await);
                }
                None => {
                    assert!(is_sync, "it has ended");
                    (ended, noticed) = (true, true);
                    break;
                }
            }
        }
        if !ended {
            let (code, watch_code) = codes(&revealed, "key-0");
            pay_at(gateway, &code).await;
            let path = format!("/watch/{watch_code}");
            let headers = [TOKEN, ("Cache-Control", "no-cache")];
            let bytes = exchange(
                api,
                Method::GET,
                &path,
                &headers,
                "",
                Duration::from_secs(10),
            )
            .await;
            match Answer::all(&bytes)
                .ok()
                .and_then(|mut answers| answers.pop())
            {
                Some(answer) => {
                    assert_eq!((answer.status, answer.text("status")), (200, "completed"))
                }
                None => assert!(is_sync, "it has ended"),
            }
        }
        if is_sync {
            if !ended {
                // It may be ending already.
                sidecar.try_signal("TERM");
            }
            let (code, _, log) = sidecar.end().await;
            if ended {
                assert_eq!(code, 1, "{log}");
            }
            noticed |= log.contains("fsync");
        } else if n.is_multiple_of(2) {
            sidecar.kill().await;
        } else {
            sidecar.signal("TERM");
            assert_eq!(sidecar.end().await.0, 0);
        }
    } else {
        noticed = true;
        let log = sidecar.log.join("\n");
        let (code, ..) = sidecar.end().await;
        assert_eq!(code, 1, "{log}");
    }
    let (_sidecar, api) = place.sidecar(gateway, &[]).await;
    revealed.check(api).await;
    for i in 0..5 {
        let key = format!("key-{i}");
        revealed.add(&key, &started(api, &key).await);
    }
    noticed
}

/// Some at a time; says how many were noticed.
async fn all_failing(cases: impl Iterator<Item = (&'static str, &'static str, u64)>) -> u64 {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let template = template(&gateway).await;
    let noticed = AtomicU64::new(0);
    let (gateway, template, count) = (&gateway, &template, &noticed);
    futures_util::stream::iter(cases)
        .for_each_concurrent(6, async |(call, error, n)| {
            if with_failing(gateway, template, call, error, n).await {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
    noticed.into_inner()
}

#[tokio::test]
async fn a_write_that_fails_refuses_starts_until_the_next_that_does_not() {
    if !has("strace") {
        return;
    }
    let cases = (1..=45).map(|n| ("pwrite64", if n % 4 < 2 { "ENOSPC" } else { "EIO" }, n));
    let noticed = all_failing(cases).await;
    assert!(
        noticed > 30,
        "only {noticed} of the failures were noticed: are these the calls that are made?"
    );
}

#[tokio::test]
async fn an_fsync_that_fails_ends_the_process_which_recovers_from_disk() {
    if !has("strace") {
        return;
    }
    let noticed = all_failing((1..=10).map(|n| ("fdatasync", "EIO", n))).await;
    assert!(
        noticed >= 6,
        "only {noticed} of the failures were noticed: are these the calls that are made?"
    );
}

#[tokio::test]
async fn a_file_that_cannot_grow_refuses_starts() {
    if !has("strace") {
        return;
    }
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    for when in ["1", "2"] {
        let (place, mut revealed) = (Place::new(), Revealed::default());
        // Made before, so that it is the writer that has to make it larger.
        let (sidecar, _) = place.sidecar(&gateway, &[]).await;
        sidecar.signal("TERM");
        assert_eq!(sidecar.end().await.0, 0);
        let under = failing("ftruncate", "ENOSPC", when);
        let under: Vec<_> = under.iter().map(String::as_str).collect();
        let mut sidecar = place.launch(&under, &gateway, &[]);
        let (api, _) = sidecar.addresses().await;
        let mut refused = 0;
        for i in 0..300 {
            let key = format!("key-{i}");
            let mut answer = start(api, &key).await.unwrap();
            if answer.status != 200 {
                store_unavailable(&answer, "unknown");
                refused += 1;
                answer = until("a start", async || {
                    start(api, &key).await.filter(|answer| answer.status == 200)
                })
                .await;
            }
            revealed.add(&key, &answer);
        }
        assert_eq!(refused, 1);
        sidecar.kill().await;
        let (_sidecar, api) = place.sidecar(&gateway, &[]).await;
        revealed.check(api).await;
    }
}

#[tokio::test]
async fn while_nothing_can_be_written_watches_go_on_and_the_app_is_told_later() {
    if !has("strace") {
        return;
    }
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (place, mut revealed) = template(&gateway).await;
    let under = failing("pwrite64", "ENOSPC", "12+");
    let under: Vec<_> = under.iter().map(String::as_str).collect();
    let receiver = Receiver::new(|_| Mood::Take).await;
    let (url, keys) = (receiver.url(), place.directory.path().join("keys"));
    let webhook = [
        ("webhook.url", url.as_str()),
        ("webhook.secret_file", keys.to_str().unwrap()),
    ];
    let mut sidecar = place.launch(&under, &gateway, &webhook);
    let (api, admin) = sidecar.addresses().await;
    let mut refused = 0;
    for i in 0..20 {
        let answer = start(api, &format!("key-{i}")).await.unwrap();
        if answer.status == 200 {
            assert_eq!(refused, 0);
            revealed.add(&format!("key-{i}"), &answer);
        } else {
            // The first finds it out, unless what the gateway said of a payment was to be written just before.
            let finds_out = refused == 0 && answer.text("outcome") == "unknown";
            store_unavailable(&answer, if finds_out { "unknown" } else { "not_sent" });
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused}");
    let (code, watch_code) = codes(&revealed, "first");
    pay_at(&gateway, &code).await;
    assert_eq!(watch(api, &watch_code).await.text("status"), "completed");
    assert_eq!(watch(api, &watch_code).await.text("status"), "completed");
    assert_eq!(
        call(admin, Method::GET, "/livez", &[], "").await.status,
        200
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(listed(api).await[&code], "completed");
    assert!(
        receiver.messages().is_empty(),
        "told before it was in the store"
    );
    sidecar.kill().await;
    let (_sidecar, api) = place.sidecar_with_app(&gateway, &receiver).await;
    revealed.check(api).await;
    until("the app is told", async || {
        receiver
            .taken("payment.completed")
            .contains(&code)
            .then_some(())
    })
    .await;
    receiver.check_ids();
}

/// A tmpfs at this directory, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(directory: &Path) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(directory)
            .output();
        let is_there = mount.is_ok_and(|mount| mount.status.success());
        is_there.then(|| Self(directory.to_owned()))
    }

    /// Writes it full to the last byte; gives the file that takes the room.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A place whose store has 2 MiB to itself.
fn small_place() -> Option<(Place, Mount)> {
    let place = Place::new();
    fs::create_dir(&place.store).unwrap();
    match Mount::new(&place.store) {
        Some(mount) => Some((place, mount)),
        None => {
            skip("a tmpfs cannot be mounted here");
            None
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_starts_until_there_is_room() {
    let Some((place, mount)) = small_place() else {
        return;
    };
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let mut revealed = Revealed::default();
    let (sidecar, api) = place.sidecar(&gateway, &[]).await;
    revealed.add("first", &started(api, "first").await);
    let mut number = 0;
    for round in 0..2 {
        let filler = mount.fill();
        // What the file has already may be used up first.
        let refused = until("no room", async || {
            for _ in 0..100 {
                let key = format!("key-{number}");
                let answer = start(api, &key).await.expect("it lives");
                if answer.status != 200 {
                    return Some(answer);
                }
                number += 1;
                revealed.add(&key, &answer);
            }
            None
        })
        .await;
        store_unavailable(&refused, "unknown");
        assert!(refused.text("detail").contains("store"), "{refused:?}");
        let (asked, _) = calls(&gateway).await;
        for _ in 0..3 {
            store_unavailable(
                &start(api, &format!("key-{number}")).await.unwrap(),
                "not_sent",
            );
        }
        assert_eq!(calls(&gateway).await.0, asked);
        let (code, watch_code) = codes(&revealed, "first");
        pay_at(&gateway, &code).await;
        assert_eq!(watch(api, &watch_code).await.text("status"), "completed");
        started(api, "first").await;
        if round == 0 {
            fs::remove_file(filler).unwrap();
            let began = Instant::now();
            until("a start", async || {
                start(api, "room")
                    .await
                    .filter(|answer| answer.status == 200)
            })
            .await;
            assert!(began.elapsed() < Duration::from_secs(5));
        }
    }
    sidecar.kill().await;
    // Without room it says so, or runs.
    let mut full = place.launch(&[], &gateway, &[]);
    if full.log_line_or_end("tillgate is running").await {
        let api = full.last_addresses().0;
        revealed.check(api).await;
        full.kill().await;
    } else {
        let log = full.log.join("\n");
        let (code, ..) = full.end().await;
        assert_eq!(code, 1, "{log}");
        assert!(log.contains("store.url") && log.contains("space"), "{log}");
    }
    fs::remove_file(place.store.join("filler")).unwrap();
    let (sidecar, api) = place.sidecar(&gateway, &[]).await;
    revealed.check(api).await;
    started(api, "after all that").await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
}

#[tokio::test]
async fn a_message_that_is_in_the_air_when_there_is_room_again_is_posted_once() {
    let Some((place, mount)) = small_place() else {
        return;
    };
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let receiver = Receiver::new(|before| {
        if before == 0 {
            Mood::RefuseLater
        } else {
            Mood::TakeLater
        }
    })
    .await;
    let (sidecar, api) = place.sidecar_with_app(&gateway, &receiver).await;
    let admin = sidecar.last_addresses().1;
    let first = started(api, "first").await;
    pay_at(&gateway, first.text("code")).await;
    let tries = async |count: usize| {
        until("a try", async || {
            (receiver.messages().len() == count).then_some(())
        })
        .await
    };
    tries(1).await;

    let filler = mount.fill();
    // What the file has already may be used up first.
    let mut number = 0;
    while start(api, &format!("key-{number}"))
        .await
        .expect("it lives")
        .status
        == 200
    {
        number += 1;
    }
    let ready = async || call(admin, Method::GET, "/readyz?verbose", &[], "").await;
    let unready = ready().await;
    assert!(
        unready.status == 503 && unready.body.contains("[-]store"),
        "{unready:?}"
    );
    receiver.let_one_go();
    tries(2).await;
    fs::remove_file(filler).unwrap();
    until("a start", async || {
        start(api, "room")
            .await
            .filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(ready().await.status, 200);
    receiver.let_one_go();
    until("it is delivered", async || {
        let deliveries = call(api, Method::GET, "/deliveries", &[TOKEN], "")
            .await
            .json();
        (deliveries["deliveries"][0]["state"] == "delivered").then_some(())
    })
    .await;
    assert_eq!(receiver.messages().len(), 2);
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let place = Place::new();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api) = place.sidecar(&gateway, &[]).await;
    let answer = started(api, "a").await;
    place
        .refuses(&[
            "store.url",
            "another tillgate",
            place.store.to_str().unwrap(),
        ])
        .await;
    assert_eq!(started(api, "a").await.body, answer.body);
    started(api, "b").await;
}

#[tokio::test]
async fn a_store_that_is_empty_or_cut_short_is_refused_and_left_as_it_is() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (template, _) = template(&gateway).await;
    let whole = fs::read(template.file()).unwrap();
    let mut others = vec![
        Vec::new(),
        b"not a store at all".to_vec(),
        vec![0; 65536],
        vec![0xff; 65536],
    ];
    others.extend(
        [
            1,
            100,
            320,
            4095,
            4096,
            20_000,
            whole.len() / 2,
            whole.len() - 1,
        ]
        .map(|end| whole[..end].to_vec()),
    );
    let mut faults = Vec::new();
    for damaged in others {
        fs::write(template.file(), &damaged).unwrap();
        let (code, _, err) = template.launch(&[], NOBODY, &[]).end().await;
        if code != 1
            || complaints(&err) != 1
            || !err.contains("store.url")
            || !err.contains("backup")
        {
            faults.push(format!("{} bytes, exit code {code}: {err}", damaged.len()));
        } else if fs::read(template.file()).unwrap() != damaged {
            faults.push(format!("{} bytes: changed", damaged.len()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Each page in turn: it is found, or nothing was lost with it.
#[tokio::test]
async fn a_store_that_was_overwritten_in_the_middle_is_refused_and_left_as_it_is() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (place, mut revealed) = (Place::new(), Revealed::default());
    let (sidecar, api) = place.sidecar(&gateway, &[]).await;
    for i in 0..40 {
        let key = format!("key-{i}");
        revealed.add(&key, &started(api, &key).await);
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let length = fs::metadata(place.file()).unwrap().len();
    let (mut refused, mut faults) = (0, Vec::new());
    for page in 0..length / 4096 {
        for (fill, from, to) in [
            (0, 0, 4096),
            (0xff, 0, 4096),
            (b'7', 40, 400),
            (0, 2000, 4096),
        ] {
            let copy = Place::copy_of(&place.store);
            let mut file = fs::File::options().write(true).open(copy.file()).unwrap();
            file.seek(SeekFrom::Start(page * 4096 + from)).unwrap();
            file.write_all(&vec![fill; usize::try_from(to - from).unwrap()])
                .unwrap();
            let damaged = fs::read(copy.file()).unwrap();
            let mut fault = |what: &str| {
                faults.push(format!("page {page}, {from}..{to} with {fill:#x}: {what}"))
            };
            let mut sidecar = copy.launch(&[], &gateway, &[]);
            if sidecar.log_line_or_end("tillgate is running").await {
                let api = sidecar.last_addresses().0;
                let listed = listed(api).await;
                if !revealed
                    .0
                    .keys()
                    .all(|key| listed.contains_key(&codes(&revealed, key).0))
                {
                    fault("it runs, and payments are forgotten");
                }
                let mut answers = 0;
                for (key, body) in &revealed.0 {
                    answers += usize::from(
                        start(api, key)
                            .await
                            .is_some_and(|answer| answer.body == *body),
                    );
                }
                if answers < revealed.0.len() {
                    fault("it runs, and keys are forgotten");
                }
                sidecar.kill().await;
            } else {
                let log = sidecar.log.join("\n");
                let (code, ..) = sidecar.end().await;
                refused += 1;
                if code != 1 || !log.contains("backup") {
                    fault(&format!(
                        "exit code {code}: {}",
                        log.lines().last().unwrap_or_default()
                    ));
                } else if fs::read(copy.file()).unwrap() != damaged {
                    fault("refused, and changed");
                }
            }
        }
    }
    assert!(
        refused > 10,
        "only {refused} of {} were found",
        length / 4096 * 4
    );
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        length / 4096 * 4,
        faults.join("\n")
    );
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_one_clear_line() {
    let place = Place::new();
    let missing = Place {
        store: place.directory.path().join("no/such/parent"),
        ..Place::new()
    };
    missing
        .refuses(&["store.url", missing.store.to_str().unwrap()])
        .await;
    let file = Place {
        store: place.directory.path().join("tokens"),
        ..Place::new()
    };
    file.refuses(&["store.url", file.store.to_str().unwrap()])
        .await;
    // Whoever is root may do everything.
    let is_root = fs::metadata(place.directory.path()).unwrap().uid() == 0;
    let somebody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    if is_root && !has("setpriv") {
        return;
    }
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(
        place.directory.path().join("tokens"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    for mode in [0o000, 0o555] {
        let _ = fs::remove_dir_all(&place.store);
        fs::create_dir(&place.store).unwrap();
        fs::set_permissions(&place.store, fs::Permissions::from_mode(mode)).unwrap();
        let under = if is_root { &somebody[..] } else { &[] };
        let (code, _, err) = place.launch(under, NOBODY, &[]).end().await;
        assert_eq!((code, complaints(&err)), (1, 1), "{err}");
        assert!(
            err.contains("store.url") && err.contains("ermission"),
            "{err}"
        );
    }
}
