//! The app, as far as webhooks go: takes what is posted, or does not, and remembers it all.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::server::{self, Server, next_request};

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
    server: Server,
    messages: Arc<Mutex<Vec<Message>>>,
    let_go: Arc<Semaphore>,
}

impl Receiver {
    /// On a free port; `mood` is told how often this message was not taken before.
    pub async fn new(mood: impl FnMut(usize) -> Mood + Send + 'static) -> Self {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let (kept, mood) = (messages.clone(), Arc::new(Mutex::new(mood)));
        let let_go = Arc::new(Semaphore::new(0));
        let gate = let_go.clone();
        let server =
            Server::new(move |stream| serve(stream, kept.clone(), mood.clone(), gate.clone()));
        Self {
            server: server.await,
            messages,
            let_go,
        }
    }

    /// What `webhook.url` is to be.
    pub fn url(&self) -> String {
        format!("{}/payment-events", self.server.url())
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
        self.check_each_has_one_id();
        let mut bodies = HashMap::new();
        for message in self.messages() {
            let body = bodies
                .entry(message.id.clone())
                .or_insert(message.body.clone());
            assert_eq!(
                *body, message.body,
                "{}: another body under the same id",
                message.id
            );
        }
    }

    /// Each message has one id, and no other has it. One that its database has lost may be made anew.
    pub fn check_each_has_one_id(&self) {
        let mut ids = HashMap::new();
        for message in self.messages() {
            let json = message.json();
            let what = (json["type"].to_string(), json["data"]["code"].to_string());
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
    // Whoever posts may be killed in the middle: half a message is none.
    let request = next_request(&mut stream, &mut Vec::new()).await?;
    let body = server::body(&request).to_owned();
    let id = field(&request, "webhook-id").to_owned();
    assert!(
        field(&request, "webhook-signature").starts_with("v1,"),
        "{request}"
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

fn field<'a>(request: &'a str, name: &str) -> &'a str {
    server::field(request, name).unwrap_or_else(|| panic!("no {name}: {request}"))
}
