//! The gateway of a fleet: a sandbox, and what came to it, call by call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::TcpStream;

use crate::harness::{Program, address_of, get_at, pay_at, set_faults};
use crate::server::{Server, next_request};

/// One request that came to the gateway.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Instant,
    /// The watch code; none for a start.
    pub watch_code: Option<String>,
}

/// A sandbox in another process, behind a server that writes down each request before it passes it on.
pub struct Gateway {
    /// What `gateway.url` is to be.
    pub url: String,
    /// Where the sandbox itself is.
    pub sandbox: String,
    calls: Arc<Mutex<Vec<Call>>>,
    _server: Server,
    _program: Program,
}

impl Gateway {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A sandbox with these arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        let (program, sandbox) = Program::sandbox(arguments).await;
        let (calls, target) = (Arc::new(Mutex::new(Vec::new())), address_of(&sandbox));
        let kept = calls.clone();
        let server = Server::new(move |stream| pass_on(stream, target, kept.clone())).await;
        Self {
            url: server.url(),
            sandbox,
            calls,
            _server: server,
            _program: program,
        }
    }

    /// See [`set_faults`].
    pub async fn faults(&self, faults: &[&str]) {
        set_faults(&self.sandbox, faults).await;
    }

    /// The payer pays.
    pub async fn pay(&self, code: &str) {
        pay_at(&self.sandbox, code).await;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// How many starts have come.
    pub fn starts(&self) -> usize {
        let is_start = |call: &&Call| call.watch_code.is_none();
        self.calls.lock().unwrap().iter().filter(is_start).count()
    }

    /// How often this payment was asked for.
    pub fn watches(&self, watch_code: &str) -> usize {
        let of_it = |call: &&Call| call.watch_code.as_deref() == Some(watch_code);
        self.calls.lock().unwrap().iter().filter(of_it).count()
    }

    /// The most starts and the most watches in any one second, by the sandbox's own clock.
    pub async fn busiest_second(&self) -> (u64, u64) {
        let calls = get_at(address_of(&self.sandbox), "/_sandbox/calls").await;
        let busiest = &calls.json()["busiest_second"];
        let most = |name: &str| busiest[name].as_u64().expect("a number");
        (most("start"), most("watch"))
    }
}

async fn pass_on(
    mut stream: TcpStream,
    target: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
) -> Option<()> {
    let gateway = TcpStream::connect(target).await.ok()?;
    let (mut from_gateway, mut to_gateway) = gateway.into_split();
    let (mut from_sidecar, mut to_sidecar) = stream.split();
    let requests = async {
        let mut read = Vec::new();
        while let Some(request) = next_request(&mut from_sidecar, &mut read).await {
            let path = request.split(' ').nth(1).unwrap_or_default();
            let watch_code = path.strip_prefix("/watch/").map(str::to_owned);
            let call = Call {
                at: Instant::now(),
                watch_code,
            };
            calls.lock().unwrap().push(call);
            to_gateway.write_all(request.as_bytes()).await.ok()?;
        }
        to_gateway.shutdown().await.ok()
    };
    let answers = async {
        let _ = copy(&mut from_gateway, &mut to_sidecar).await;
    };
    // With the end of the answers everything is over, however it ended: a sidecar keeps its half open.
    tokio::select! {
        () = answers => {}
        () = async { requests.await; std::future::pending::<()>().await } => {}
    }
    Some(())
}
