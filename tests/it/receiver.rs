//! The app, as far as webhooks go: takes what is posted, or does not, and remembers it all.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

/// What it does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Take,
    Refuse,
    HangUp,
    /// The first two of these, but not before it is let to.
    TakeLater,
    RefuseLater,
}

/// One try of a message.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// It was answered with a 2xx.
    pub taken: bool,
}

/// Listens until it is dropped.
pub struct Receiver {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<Message>>>,
    let_go: Arc<Semaphore>,
    _task: AbortOnDropHandle<()>,
}

impl Receiver {
    /// On a free port; `mood` is told how often this message was not taken before.
    pub async fn new(mood: impl FnMut(usize) -> Mood + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let (kept, mood) = (messages.clone(), Arc::new(Mutex::new(mood)));
        let let_go = Arc::new(Semaphore::new(0));
        let gate = let_go.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, kept.clone(), mood.clone(), gate.clone()));
            }
        });
        Self {
            address,
            messages,
            let_go,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What `webhook.url` is to be.
    pub fn url(&self) -> String {
        format!("http://{}/payment-events", self.address)
    }

    /// Lets one go that is held back.
    pub fn let_one_go(&self) {
        self.let_go.add_permits(1);
    }

    /// Every try so far.
    pub fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// The codes of which it has taken this message.
    pub fn taken(&self, kind: &str) -> HashSet<String> {
        let messages = self.messages.lock().unwrap();
        let taken = messages
            .iter()
            .filter(|message| message.taken)
            .map(Message::json);
        let of_kind = taken.filter(|message| message["type"] == kind);
        of_kind
            .map(|message| message["data"]["code"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Each message has one id and the same bytes at every try, and no other has its id.
    pub fn check_ids(&self) {
        let (mut bodies, mut ids) = (HashMap::new(), HashMap::new());
        for message in self.messages() {
            let json = message.json();
            let what = (json["type"].to_string(), json["data"]["code"].to_string());
            let body = bodies
                .entry(message.id.clone())
                .or_insert(message.body.clone());
            assert_eq!(
                *body, message.body,
                "{}: another body under the same id",
                message.id
            );
            let id = ids.entry(what.clone()).or_insert(message.id.clone());
            assert_eq!(*id, message.id, "{what:?}: another id");
        }
    }
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn serve(
    mut stream: TcpStream,
    messages: Arc<Mutex<Vec<Message>>>,
    mood: Arc<Mutex<impl FnMut(usize) -> Mood>>,
    let_go: Arc<Semaphore>,
) -> Option<()> {
    let mut read = Vec::new();
    // Whoever posts may be killed in the middle: half a message is none.
    let (head, length) = loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            let length: usize = field(&head, "content-length").parse().unwrap();
            if read.len() >= end + 4 + length {
                break (head, length);
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let body = String::from_utf8(read.split_off(read.len() - length)).unwrap();
    let id = field(&head, "webhook-id").to_owned();
    assert!(
        field(&head, "webhook-signature").starts_with("v1,"),
        "{head}"
    );
    let mood = {
        let mut messages = messages.lock().unwrap();
        let before = messages
            .iter()
            .filter(|message| message.id == id && !message.taken)
            .count();
        let mood = (mood.lock().unwrap())(before);
        messages.push(Message {
            id,
            body,
            taken: matches!(mood, Mood::Take | Mood::TakeLater),
        });
        mood
    };
    if matches!(mood, Mood::TakeLater | Mood::RefuseLater) {
        let_go.acquire().await.unwrap().forget();
    }
    let answer = match mood {
        Mood::Take | Mood::TakeLater => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        Mood::Refuse | Mood::RefuseLater => {
            "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        }
        Mood::HangUp => return None,
    };
    stream.write_all(answer.as_bytes()).await.ok()
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .unwrap_or_else(|| panic!("no {name}: {head}"))
        .1
}
