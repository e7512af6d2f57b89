//! How much memory the process takes at most.

use std::fmt::{self, Display};

use super::sections::Config;
use crate::size::ByteSize;
use crate::store::Place;

/// The program itself, its threads, and everything of a fixed number: places to wait at, connections to the app, those of
/// probes, lines of the log.
const PROGRAM: u64 = 40 << 20;
/// One call to the gateway that is under way, on a connection of its own, with its answer.
const CALL: u64 = 64 << 10;
/// One connection: what the server and the story behind it keep of it, and the largest body of a request by default.
const CONNECTION: ByteSize = ByteSize::kibibytes(48);
/// The part of it that is the body of a request.
const BODY: ByteSize = ByteSize::kibibytes(16);

/// The bound of memory, in its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    base: u64,
    store: ByteSize,
    /// How many times the store is there: that of a fleet is read anew, beside the old one, after a failover.
    copies: u64,
    connections: u64,
    connection: ByteSize,
}

impl Config {
    /// Returns the bound of memory with these settings.
    pub(crate) fn memory(&self) -> Memory {
        let connections = u64::from(self.listen.max_connections.get());
        let body = self.listen.max_body_bytes.get() as u64;
        let body = body.saturating_sub(BODY.bytes());
        Memory {
            base: PROGRAM + CALL * self.calls(),
            store: self.store.max_bytes,
            copies: match self.store.url {
                Place::Fleet(_) => 2,
                Place::Memory | Place::Directory(_) => 1,
            },
            connections,
            connection: ByteSize::of(CONNECTION.bytes().saturating_add(body)),
        }
    }

    /// Returns how many calls to the gateway are under way at most.
    fn calls(&self) -> u64 {
        let start = &self.start;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is never negative"
        )]
        let starts = (start.rate.0 * self.gateway.timeout.as_secs_f64()).ceil() as u64;
        // A start goes on after its caller has hung up. Those are left out: for them to be many, callers have to hang up
        // at the full rate while the gateway hangs.
        let starts = starts.saturating_add(start.burst.get().into());
        let starts = starts.min(self.listen.max_connections.get().into());
        // Each counts until a second after its end.
        let polls = u64::from(self.watch.poll_rate.get());
        starts.saturating_add(polls)
    }
}

impl Memory {
    /// Returns the bound in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let connections = self.connections.saturating_mul(self.connection.bytes());
        let store = self.store.bytes().saturating_mul(self.copies);
        self.base.saturating_add(store).saturating_add(connections)
    }
}

/// Says what it is made of.
impl Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "memory: {} MiB at most, which are {} MiB for the program and its calls to the gateway, {} x {} (store.max_bytes), and {} for each of {} connections (listen.max_connections)",
            whole(self.bytes()),
            whole(self.base),
            self.copies,
            self.store,
            self.connection,
            self.connections
        )
    }
}
