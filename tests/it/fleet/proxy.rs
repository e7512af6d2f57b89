//! What lies between sidecars and their database: a way that is cut, closed, slow, or that loses one message.

mod messages;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::messages::{Answers, Requests};

/// What becomes of bytes and of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// New connections are closed at once; those that are there go on.
    Closed,
    /// Nothing arrives, as where packets are dropped. What was sent meanwhile arrives when the way is open again, also
    /// where the sender is gone.
    Blocked,
}

/// What happens to a request that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server never sees it.
    IsLost,
    /// It is answered, and nobody hears the answer.
    AnswerIsLost,
    /// The way is blocked before it, and it arrives when the way is open again. Nothing is cut.
    IsLate,
    /// Its connection goes no further until [`Proxy::free`], and what is sent there is acknowledged. Nothing is cut, and
    /// other connections go on.
    IsStuck,
}

/// A request that something happens to, and what becomes of the way afterwards; all connections are cut then.
struct Trap {
    matches: Box<dyn Fn(&str) -> bool + Send>,
    /// So many that match are let through before.
    skip: usize,
    fate: Fate,
    then: Way,
    sprung: watch::Sender<bool>,
}

struct State {
    target: Mutex<SocketAddr>,
    way: watch::Sender<Way>,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
    /// Counts how often stuck connections were freed.
    freed: watch::Sender<u64>,
    delay: Mutex<Duration>,
    trap: Mutex<Option<Trap>>,
    /// How many connections have come so far.
    accepted: watch::Sender<usize>,
}

/// It listens until it is dropped, which cuts its connections.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
    _task: AbortOnDropHandle<()>,
}

/// Whether a trap has sprung.
pub struct Sprung(watch::Receiver<bool>);

impl Sprung {
    pub async fn wait(mut self) {
        let sprung = self.0.wait_for(|sprung| *sprung);
        let sprung = super::in_time("the message comes that is waited for", sprung);
        sprung.await.expect("the proxy is there");
    }

    pub fn has(&self) -> bool {
        *self.0.borrow()
    }
}

impl Proxy {
    /// To the server at this address.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its port");
        let state = Arc::new(State {
            target: Mutex::new(target),
            way: watch::Sender::new(Way::Open),
            cuts: watch::Sender::new(0),
            freed: watch::Sender::new(0),
            delay: Mutex::default(),
            trap: Mutex::default(),
            accepted: watch::Sender::new(0),
        });
        let shared = state.clone();
        let accept = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.accepted.send_modify(|accepted| *accepted += 1);
                connections.spawn(carry(stream, shared.clone()));
            }
        };
        Self {
            address,
            state,
            _task: AbortOnDropHandle::new(tokio::spawn(accept)),
        }
    }

    /// New connections go there from here on.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock().unwrap() = target;
    }

    /// Ends all connections, with a reset.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What is stuck goes on, also where the sender is gone.
    pub fn free(&self) {
        self.state.freed.send_modify(|freed| *freed += 1);
    }

    /// See [`Way`].
    pub fn set(&self, way: Way) {
        self.state.way.send_replace(way);
    }

    /// Cuts all connections, and takes no others.
    pub fn close(&self) {
        self.set(Way::Closed);
        self.cut();
    }

    pub fn open(&self) {
        self.set(Way::Open);
    }

    /// Each request and each answer takes so much longer.
    pub fn delay(&self, delay: Duration) {
        *self.state.delay.lock().unwrap() = delay;
    }

    /// How many connections have come so far.
    pub fn accepted(&self) -> usize {
        *self.state.accepted.borrow()
    }

    /// Waits for the first request that matches. It is given the request's bytes as text, in lower case and without
    /// double quotes.
    pub fn trap(
        &self,
        fate: Fate,
        then: Way,
        matches: impl Fn(&str) -> bool + Send + 'static,
    ) -> Sprung {
        self.trap_nth(0, fate, then, matches)
    }

    /// The same after so many that match.
    pub fn trap_nth(
        &self,
        skip: usize,
        fate: Fate,
        then: Way,
        matches: impl Fn(&str) -> bool + Send + 'static,
    ) -> Sprung {
        let sprung = watch::Sender::new(false);
        let seen = Sprung(sprung.subscribe());
        *self.state.trap.lock().unwrap() = Some(Trap {
            matches: Box::new(matches),
            skip,
            fate,
            then,
            sprung,
        });
        seen
    }

    /// Whether a trap still waits; it is taken away.
    pub fn disarm(&self) -> bool {
        self.state.trap.lock().unwrap().take().is_some()
    }
}

impl State {
    /// The trap, if this request springs it.
    fn sprung_by(&self, request: &[u8]) -> Option<Trap> {
        let mut trap = self.trap.lock().unwrap();
        let waiting = trap.as_mut()?;
        let text = String::from_utf8_lossy(request).to_lowercase();
        if !(waiting.matches)(&text.replace('"', "")) {
            return None;
        }
        if waiting.skip > 0 {
            waiting.skip -= 1;
            return None;
        }
        trap.take()
    }

    /// What comes after a trap.
    fn end(&self, trap: &Trap) {
        self.way.send_replace(trap.then);
        self.cuts.send_modify(|cuts| *cuts += 1);
        trap.sprung.send_replace(true);
    }

    /// Waits until bytes that came at this moment may pass.
    async fn pass(&self, came: Instant) {
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep_until(came + delay).await;
        let mut way = self.way.subscribe();
        let _ = way.wait_for(|way| *way != Way::Blocked).await;
    }
}

async fn carry(client: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    cuts.mark_unchanged();
    let _ = client.set_nodelay(true);
    // It sends a reset where it is dropped: what has not been read is gone.
    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
    if *state.way.borrow() == Way::Closed {
        return;
    }
    let talk = async {
        state.pass(Instant::now()).await;
        let target = *state.target.lock().unwrap();
        let server = TcpStream::connect(target).await.ok()?;
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let talk = Talk::default();
        // What comes while something else is on its way is on its way too.
        let (sent, requested) = mpsc::unbounded_channel();
        let (answered, said) = mpsc::unbounded_channel();
        tokio::join!(
            receive(from_client, sent),
            receive(from_server, answered),
            requests(requested, to_server, &state, &talk),
            answers(said, to_client, &state, &talk),
        );
        Some(())
    };
    tokio::select! {
        _ = talk => {}
        _ = cuts.changed() => {}
    }
}

/// What the two directions of a connection tell each other.
#[derive(Default)]
struct Talk {
    /// The request whose answer is lost: its number, and the trap.
    doomed: Mutex<Option<(u64, Trap)>>,
    /// How many answers of one byte are to come.
    bytes: AtomicUsize,
}

/// Bytes, and when they came.
type Came = (Instant, Vec<u8>);

async fn receive(mut from: OwnedReadHalf, to: mpsc::UnboundedSender<Came>) {
    loop {
        let mut bytes = Vec::with_capacity(16 * 1024);
        match from.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) if to.send((Instant::now(), bytes)).is_err() => return,
            Ok(_) => {}
        }
    }
}

async fn requests(
    mut client: mpsc::UnboundedReceiver<Came>,
    mut server: OwnedWriteHalf,
    state: &State,
    talk: &Talk,
) -> Option<()> {
    let (mut requests, mut came) = (Requests::default(), Instant::now());
    loop {
        while let Some(request) = requests.next() {
            if let Some(trap) = state.sprung_by(&request.bytes) {
                match trap.fate {
                    Fate::IsLost => {
                        state.end(&trap);
                        return None;
                    }
                    Fate::IsLate => {
                        state.way.send_replace(Way::Blocked);
                        trap.sprung.send_replace(true);
                    }
                    Fate::IsStuck => {
                        let mut freed = state.freed.subscribe();
                        trap.sprung.send_replace(true);
                        freed.changed().await.ok()?;
                    }
                    Fate::AnswerIsLost => {
                        *talk.doomed.lock().unwrap() = Some((request.number, trap));
                    }
                }
            }
            state.pass(came).await;
            if request.asks_for_a_byte {
                talk.bytes.fetch_add(1, Ordering::Relaxed);
            }
            server.write_all(&request.bytes).await.ok()?;
        }
        let Some((moment, bytes)) = client.recv().await else {
            return server.shutdown().await.ok();
        };
        came = moment;
        requests.bytes.extend_from_slice(&bytes);
    }
}

async fn answers(
    mut server: mpsc::UnboundedReceiver<Came>,
    mut client: OwnedWriteHalf,
    state: &State,
    talk: &Talk,
) -> Option<()> {
    let (mut answers, mut came) = (Answers::default(), Instant::now());
    loop {
        while let Some(answer) = answers.next(talk.bytes.load(Ordering::Relaxed) > 0) {
            let is_byte = answer.bytes.len() == 1;
            talk.bytes
                .fetch_sub(usize::from(is_byte), Ordering::Relaxed);
            let is_lost = |doomed: &(u64, Trap)| doomed.0 == answer.number;
            if talk.doomed.lock().unwrap().as_ref().is_some_and(is_lost) {
                // Only with its last message it is sure that the server has done it.
                if answer.is_last {
                    let doomed = talk.doomed.lock().unwrap().take();
                    state.end(&doomed.expect("it is doomed").1);
                    return None;
                }
                continue;
            }
            state.pass(came).await;
            client.write_all(&answer.bytes).await.ok()?;
        }
        let Some((moment, bytes)) = server.recv().await else {
            return client.shutdown().await.ok();
        };
        came = moment;
        answers.bytes.extend_from_slice(&bytes);
    }
}
