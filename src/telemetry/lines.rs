//! The lines of the log that wait to be written. A reader of the log that is slow, or has stopped, holds nobody up: what
//! there is no room for is lost, the lines of requests first.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines of the log of this process that were lost.
pub(super) static LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The most lines that wait, and the most bytes in them.
const MAX_LINES: usize = 4096;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long the end of the program waits for lines that are not written yet.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Where the line of each request comes from.
const REQUESTS: &str = "tillgate::api::access";

/// How much a line matters. Those that matter less are lost first.
#[derive(Clone, Copy, Debug)]
enum Rank {
    /// The line of a request, or one that is for developers.
    Request,
    /// What happens to payments and to the program.
    Event,
    /// A warning or an error.
    Trouble,
}

impl Rank {
    fn of(metadata: &Metadata<'_>) -> Self {
        match *metadata.level() {
            Level::ERROR | Level::WARN => Self::Trouble,
            Level::INFO if metadata.target() != REQUESTS => Self::Event,
            _ => Self::Request,
        }
    }
}

/// The lines that wait.
#[derive(Default)]
struct Queue {
    /// The number and the text of each line, by rank.
    waiting: [VecDeque<(u64, Vec<u8>)>; 3],
    bytes: usize,
    /// The number of the next line.
    next: u64,
    is_writing: bool,
    is_closed: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Adds a line. Returns how many were lost for want of room, of those that matter no more than this one; or this one.
    fn push(&mut self, rank: Rank, line: &[u8]) -> u64 {
        let mut lost = 0;
        while self.len() >= MAX_LINES || self.bytes + line.len() > MAX_BYTES {
            lost += 1;
            let no_more = &mut self.waiting[..=rank as usize];
            match no_more.iter_mut().find_map(VecDeque::pop_front) {
                Some((_, oldest)) => self.bytes -= oldest.len(),
                None => return lost,
            }
        }
        self.bytes += line.len();
        self.waiting[rank as usize].push_back((self.next, line.to_vec()));
        self.next += 1;
        lost
    }

    /// Takes out the line that came first.
    fn pop(&mut self) -> Option<Vec<u8>> {
        let waiting = self.waiting.iter_mut().filter(|lines| !lines.is_empty());
        let (_, line) = waiting.min_by_key(|lines| lines[0].0)?.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }
}

/// The lines that wait, and the condition that wakes the thread that writes them.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the lines one after the other, until the log is closed.
    fn write(&self, mut out: impl Write) {
        let mut queue = self.queue();
        loop {
            if let Some(line) = queue.pop() {
                queue.is_writing = true;
                drop(queue);
                // A closed stderr must not end the program.
                let _ = out.write_all(&line);
                queue = self.queue();
                queue.is_writing = false;
            } else if queue.is_closed {
                self.changed.notify_all();
                return;
            } else {
                queue = self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Takes in the lines. Clones share the queue.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Writes what still waits when it is dropped, for as long as that makes sense.
pub(crate) struct Log(Arc<Shared>);

impl Lines {
    /// Starts writing lines to stderr.
    ///
    /// # Errors
    /// Fails if the system gives no thread.
    pub(super) fn to_stderr() -> io::Result<(Self, Log)> {
        let shared = Arc::new(Shared::default());
        let writer = shared.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write(io::stderr()))?;
        Ok((Self(shared.clone()), Log(shared)))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.is_closed = true;
        self.0.changed.notify_all();
        let is_busy = |queue: &mut Queue| queue.is_writing || queue.len() > 0;
        let _ = self.0.changed.wait_timeout_while(queue, LAST_WAIT, is_busy);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0, Rank::Event)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line(&self.0, Rank::of(metadata))
    }
}

/// Takes in one line, which is written to it at once.
pub(super) struct Line<'a>(&'a Shared, Rank);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = self.0.queue().push(self.1, line);
        self.0.changed.notify_all();
        if lost > 0 {
            LOST.inc_by(lost);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANKS: [Rank; 3] = [Rank::Request, Rank::Event, Rank::Trouble];

    fn drain(queue: &mut Queue) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn the_lines_of_requests_are_lost_before_any_other() {
        let mut queue = Queue::default();
        let mut lost = 0;
        for n in 0..MAX_LINES {
            lost += queue.push(Rank::Request, format!("request {n}").as_bytes());
        }
        assert_eq!(lost, 0);
        for n in 0..MAX_LINES {
            assert_eq!(
                queue.push(RANKS[1 + n % 2], format!("line {n}").as_bytes()),
                1
            );
        }
        // Nothing matters less than they do.
        assert_eq!(queue.push(Rank::Request, b"one more request"), 1);
        // Of warnings and other lines the latter are lost, and of warnings the oldest.
        for _ in 0..MAX_LINES / 2 + 1 {
            assert_eq!(queue.push(Rank::Trouble, b"trouble"), 1);
        }
        let left = drain(&mut queue);
        assert_eq!(left.len(), MAX_LINES);
        assert_eq!(left[0], b"line 3");
        assert_eq!((queue.bytes, queue.len()), (0, 0));
    }

    #[test]
    fn a_line_that_is_longer_than_all_may_be_is_lost_alone() {
        let mut queue = Queue::default();
        queue.push(Rank::Trouble, b"trouble");
        assert_eq!(queue.push(Rank::Event, &vec![b'x'; MAX_BYTES + 1]), 1);
        assert_eq!(drain(&mut queue), [b"trouble"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_comes_in_its_order_and_the_rest_is_counted(
            lines in prop::collection::vec((0_usize..3, 0_usize..MAX_BYTES / 4), 0..40),
            pops in prop::collection::vec(0_usize..2, 40),
        ) {
            let (mut queue, mut lost, mut written) = (Queue::default(), 0, Vec::new());
            for ((n, (rank, length)), pops) in lines.iter().enumerate().zip(pops) {
                let mut line = vec![0; 8 + length];
                line[..8].copy_from_slice(&n.to_be_bytes());
                lost += queue.push(RANKS[*rank], &line);
                prop_assert!(queue.bytes <= MAX_BYTES);
                written.extend((0..pops).filter_map(|_| queue.pop()));
            }
            written.extend(drain(&mut queue));
            prop_assert!(written.is_sorted_by(|a, b| a[..8] < b[..8]));
            prop_assert_eq!(written.len() as u64 + lost, lines.len() as u64);
        }
    }
}
