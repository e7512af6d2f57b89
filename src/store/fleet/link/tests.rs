use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::store::Place;

/// What a fake server answers to a statement.
#[derive(Clone, Copy, Debug)]
enum Reply {
    /// One row of texts.
    Row(&'static [&'static str]),
    /// An error with this SQLSTATE.
    Error(&'static str),
    /// A row, and before it the warning of a server that gives its standby up.
    Unconfirmed,
    /// The end of the connection.
    End,
}

use Reply::{End, Row as Answer};

const GOOD: Reply = Answer(&[
    "PostgreSQL 15.18 (Debian)",
    "off",
    "read committed",
    "tillgate",
]);

/// A server that speaks the little of the protocol that a link needs.
#[derive(Clone)]
struct Fake {
    port: u16,
    /// What it got: passwords, and what was sent after a question for TLS.
    got: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// One that answers the statements of each connection in this order, then no more.
    async fn with(replies: &'static [Reply]) -> Self {
        Self::new(replies, false).await
    }

    async fn new(replies: &'static [Reply], asks_for_a_password: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            port: listener.local_addr().unwrap().port(),
            got: Arc::default(),
        };
        let this = fake.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let session = Session {
                    tcp,
                    got: this.got.clone(),
                };
                tokio::spawn(session.run(replies.iter().copied().collect(), asks_for_a_password));
            }
        });
        fake
    }

    fn got(&self) -> Vec<String> {
        std::mem::take(&mut self.got.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Session {
    tcp: TcpStream,
    got: Arc<Mutex<Vec<String>>>,
}

impl Session {
    async fn run(mut self, mut replies: VecDeque<Reply>, asks: bool) -> Option<()> {
        let first = self.body().await?;
        if first == [4, 0xd2, 0x16, 0x2f] {
            self.tcp.write_all(b"N").await.ok()?;
            self.got("asked for TLS");
            self.body().await?;
            self.got("went on without");
        }
        if asks {
            self.send(b'R', &3_i32.to_be_bytes()).await?;
            self.tcp.read_u8().await.ok()?;
            let password = self.body().await?;
            self.got(std::str::from_utf8(&password).ok()?.trim_end_matches('\0'));
        }
        self.send(b'R', &0_i32.to_be_bytes()).await?;
        self.send(b'Z', b"I").await?;
        loop {
            let kind = self.tcp.read_u8().await.ok()?;
            self.body().await?;
            if kind != b'S' {
                continue;
            }
            match replies.pop_front() {
                None => std::future::pending().await,
                Some(End) => return None,
                Some(Answer(texts)) => self.row(texts).await?,
                Some(Reply::Error(code)) => self.error(b'E', code, "parse_analyze").await?,
                Some(Reply::Unconfirmed) => {
                    self.error(b'N', "01000", "SyncRepWaitForLSN").await?;
                    self.row(&["done"]).await?;
                }
            }
            self.send(b'Z', b"I").await?;
        }
    }

    fn got(&self, what: &str) {
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.push(what.to_owned());
    }

    /// What follows the type of a message.
    async fn body(&mut self) -> Option<Vec<u8>> {
        let length = self.tcp.read_i32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).ok()? - 4];
        self.tcp.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        let length = i32::try_from(body.len() + 4).unwrap();
        let message = [&[kind], &length.to_be_bytes()[..], body].concat();
        self.tcp.write_all(&message).await.ok()
    }

    async fn row(&mut self, texts: &[&str]) -> Option<()> {
        let count = i16::try_from(texts.len()).unwrap().to_be_bytes();
        let (mut columns, mut values) = (count.to_vec(), count.to_vec());
        for text in texts {
            // A column of the type text, in the binary format.
            columns.extend(b"c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01");
            values.extend(i32::try_from(text.len()).unwrap().to_be_bytes());
            values.extend(text.as_bytes());
        }
        for (kind, body) in [
            (b'1', &[][..]),
            (b'2', &[]),
            (b't', &[0, 0]),
            (b'T', &columns),
            (b'D', &values),
            (b'C', b"SELECT 1\0"),
        ] {
            self.send(kind, body).await?;
        }
        Some(())
    }

    async fn error(&mut self, kind: u8, code: &str, routine: &str) -> Option<()> {
        let severity = if kind == b'N' { "WARNING" } else { "ERROR" };
        let body =
            format!("S{severity}\0V{severity}\0C{code}\0Mthat is how it is\nhere\0R{routine}\0\0");
        self.send(kind, body.as_bytes()).await
    }
}

fn database(hosts: &str, config: Config) -> Database {
    let Ok(Place::Fleet(url)) = format!("postgres://tillgate@{hosts}/shop").parse() else {
        panic!("{hosts}")
    };
    Database::new(&url, &config)
}

async fn connect(hosts: &str) -> Result<Link, Trouble> {
    database(hosts, Config::default()).connect().await
}

/// A link to a fake that answers so after the first statement.
async fn link(replies: &'static [Reply]) -> Link {
    let fake = Fake::with(replies).await;
    connect(&format!("localhost:{}", fake.port)).await.unwrap()
}

#[tokio::test]
async fn the_first_host_that_takes_writes_is_used() {
    let standby = Fake::with(&[Answer(&["PostgreSQL 15.1", "on"])]).await;
    let strict = ["PostgreSQL 15.1", "off", "serializable", "shop"];
    let strict = Fake::with(Box::leak(Box::new([Answer(Box::leak(Box::new(strict)))]))).await;
    let cockroach = Fake::with(&[Answer(&["CockroachDB CCL v26.1", "off"])]).await;
    let [one, other] = [Fake::with(&[GOOD]).await, Fake::with(&[GOOD]).await];
    let host = |fake: &Fake| format!("127.0.0.1:{}", fake.port);
    let hosts = [&standby, &cockroach, &one, &other, &strict].map(host);
    let link = connect(&hosts.join(",")).await.unwrap();
    assert_eq!(link.place(), hosts[2]);
    assert_eq!(link.version(), "PostgreSQL 15.18");
    assert!(!link.is_tls);

    let trouble = connect(&format!(
        "{},127.0.0.1:1,{},{}",
        hosts[0], hosts[1], hosts[4]
    ))
    .await;
    let trouble = trouble.err().unwrap();
    assert_eq!(trouble.reason, Reason::Refused, "it says most");
    let text = trouble.to_string();
    for words in [
        "read-only",
        "127.0.0.1:1: ",
        "CockroachDB",
        "alter role shop set",
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!trouble.is_unknown() && trouble.ends_connection());
}

#[tokio::test]
async fn an_answer_is_known_and_its_absence_is_not() {
    // SQLSTATE, the reason, whether the statement may have been carried out, whether the connection is given up.
    for (reply, reason, is_unknown, ends) in [
        (Reply::Error("25006"), Reason::ReadOnly, false, true),
        (Reply::Error("53100"), Reason::Full, false, false),
        (Reply::Error("53300"), Reason::Unreachable, false, true),
        (Reply::Error("57P01"), Reason::Unreachable, true, true),
        (Reply::Error("57014"), Reason::Timeout, false, false),
        (Reply::Error("42501"), Reason::Refused, false, false),
        (Reply::Error("42P01"), Reason::Refused, false, false),
        (Reply::Error("XX001"), Reason::Damaged, false, false),
        (Reply::Unconfirmed, Reason::Timeout, true, true),
        (End, Reason::Unreachable, true, true),
    ] {
        let replies = Box::leak(Box::new([GOOD, reply, Answer(&["next"])]));
        let link = link(replies).await;
        let trouble = link.query("insert", &[]).await.unwrap_err();
        let found = (
            trouble.reason,
            trouble.is_unknown(),
            trouble.ends_connection(),
        );
        assert_eq!(found, (reason, is_unknown, ends), "{reply:?}: {trouble}");
        match reply {
            Reply::Error(code) => {
                assert_eq!(trouble.code().unwrap().code(), code);
                let text = trouble.to_string();
                assert!(
                    text.contains(code) && text.contains("that is how it ishere"),
                    "{text}"
                );
                // The connection is in step.
                let row = &link.query("select", &[]).await.unwrap()[0];
                assert_eq!(row.get::<_, &str>(0), "next");
            }
            _ => {
                link.closed().await;
                assert!(link.is_closed());
                let trouble = link.query("insert", &[]).await.unwrap_err();
                assert!(!trouble.is_unknown(), "it was not sent");
                assert!(trouble.ends_connection());
            }
        }
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_no_answer_to_the_next_statement() {
    let link = link(&[GOOD, Answer(&["one"]), Answer(&["two"]), Answer(&["three"])]).await;
    {
        let one = link.query("one", &[]);
        tokio::pin!(one);
        // It is sent, and then its caller goes away.
        assert!(futures_util::poll!(&mut one).is_pending());
    }
    let (two, three) = tokio::join!(link.query("two", &[]), link.query("three", &[]));
    for (rows, word) in [(two, "two"), (three, "three")] {
        assert_eq!(rows.unwrap()[0].get::<_, &str>(0), word);
    }
}

#[tokio::test]
async fn the_answer_to_another_statement_is_not_believed() {
    let link = link(&[GOOD, Answer(&["7", "another"]), Answer(&[]), Answer(&["7"])]).await;
    for _ in 0..2 {
        let trouble = link.ask("select 7, $1", &[]).await.unwrap_err();
        assert_eq!(trouble.reason, Reason::Unreachable);
        assert!(trouble.is_unknown() && trouble.ends_connection());
    }
    let trouble = link.tell("delete", &[]).await.unwrap_err();
    assert!(trouble.is_unknown() && trouble.ends_connection());
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = Fake::with(&[]).await;
    let began = clock::now();
    let trouble = connect(&format!("127.0.0.1:{}", silent.port)).await;
    let trouble = trouble.err().unwrap();
    assert_eq!(trouble.reason, Reason::Timeout);
    assert!(!trouble.is_unknown() && trouble.to_string().contains("within 2s"));
    assert!(clock::now() - began < Duration::from_secs(20));
}

#[tokio::test]
async fn the_password_file_is_read_for_each_connection() {
    let fake = Fake::new(&[GOOD], true).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let config = Config {
        password_file: path.to_str().unwrap().parse().ok(),
        ..Config::default()
    };
    let database = database(&format!("localhost:{}", fake.port), config);
    let trouble = database.connect().await.err().unwrap();
    assert_eq!(trouble.reason, Reason::Refused);
    assert!(trouble.to_string().contains("store.password_file"));

    for password in ["one word", "another"] {
        std::fs::write(&path, format!("{password}\n")).unwrap();
        database.connect().await.unwrap();
        assert_eq!(fake.got(), [password]);
    }
    for bad in ["", "two\nlines"] {
        std::fs::write(&path, bad).unwrap();
        database.connect().await.unwrap();
        assert_eq!(fake.got(), ["another"], "the last good one stays");
    }
    std::fs::remove_file(&path).unwrap();
    database.connect().await.unwrap();
    assert_eq!(fake.got(), ["another"]);

    let trouble = connect(&format!("localhost:{}", fake.port)).await;
    let text = trouble.err().unwrap().to_string();
    assert!(text.contains("set store.password_file"), "{text}");
}

#[tokio::test]
async fn another_machine_without_tls_gets_nothing_unless_that_is_allowed() {
    let fake = Fake::new(&[GOOD], true).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "open sesame").unwrap();
    for (is_allowed, expected) in [
        (false, &["asked for TLS"][..]),
        (true, &["asked for TLS", "went on without", "open sesame"]),
    ] {
        let config = Config {
            password_file: path.to_str().unwrap().parse().ok(),
            allow_plain_tcp: is_allowed,
            ..Config::default()
        };
        // This machine, but that does not follow from the address.
        let link = database(&format!("0.0.0.0:{}", fake.port), config)
            .connect()
            .await;
        match (link, is_allowed) {
            (Ok(link), true) => assert!(!link.is_tls),
            (Err(trouble), false) => {
                assert_eq!(trouble.reason, Reason::Refused);
                assert!(trouble.to_string().contains("allow_plain_tcp"), "{trouble}");
            }
            (other, _) => panic!("{:?}", other.err()),
        }
        assert_eq!(fake.got(), expected);
    }
}
