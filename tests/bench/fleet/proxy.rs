//! A way to the database that takes longer: what the server says arrives later by a round trip.
//!
//! With threads of its own: timers of the runtime count in milliseconds.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Carries connections for as long as the process lives; returns where it takes them.
pub(super) fn begin(server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Ok(server) = TcpStream::connect(server) {
                    carry(&client, &server, delay);
                }
            });
        }
    });
    address
}

fn carry(client: &TcpStream, server: &TcpStream, delay: Duration) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (late, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::scope(|scope| {
        scope.spawn(|| {
            each(client, |bytes| {
                let mut server = server;
                server.write_all(bytes).is_ok()
            });
            let _ = server.shutdown(Shutdown::Both);
        });
        scope.spawn(move || {
            each(server, |bytes| {
                late.send((Instant::now() + delay, bytes.to_vec())).is_ok()
            });
        });
        for (at, bytes) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            let mut client = client;
            if client.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// Hands on what comes, for as long as it is taken.
fn each(mut from: &TcpStream, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !take(&buffer[..n]) {
            break;
        }
    }
}
