//! What outlives each process of the program: the gateway, the app and its ledger, and the time by which they live.

use std::fs;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tillgate::app::Sidecar;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::book::Book;
use super::gateway::Gateway;
use crate::dice::Dice;

pub struct Town {
    clock: Mutex<Clock>,
    state: Mutex<State>,
    /// Rings when the process is to be killed.
    pub kill: Notify,
    pub idle: Idle,
}

/// Time passes in the runtime of a process, and goes on from there in that of the next one.
struct Clock {
    before: Duration,
    began: Option<Instant>,
}

pub struct State {
    pub dice: Dice,
    pub gateway: Gateway,
    pub book: Book,
    /// What is still to happen before the process is killed.
    events_left: Option<u64>,
}

impl Town {
    pub fn new(dice: Dice, gateway: Gateway, book: Book) -> Self {
        Self {
            clock: Mutex::new(Clock {
                before: Duration::ZERO,
                began: None,
            }),
            state: Mutex::new(State {
                dice,
                gateway,
                book,
                events_left: None,
            }),
            kill: Notify::new(),
            idle: Idle::default(),
        }
    }

    /// A process begins, which is killed after so many events if a number is given.
    pub fn begin(&self, kill_after: Option<u64>) {
        lock(&self.clock).began = Some(Instant::now());
        self.state().events_left = kill_after;
    }

    /// The process has ended, and no other one begins for so long.
    pub fn end(&self, pause: Duration) {
        let now = self.now();
        *lock(&self.clock) = Clock {
            before: now + pause,
            began: None,
        };
        let mut state = self.state();
        state.events_left = None;
        state.book.process_ended(now);
        state.gateway.process_ended();
    }

    pub fn now(&self) -> Duration {
        let clock = lock(&self.clock);
        let ran = clock.began.map_or(Duration::ZERO, |began| began.elapsed());
        clock.before + ran
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Something happens that a kill may follow.
    pub fn event(&self) {
        let left = &mut self.state().events_left;
        if let Some(left) = left {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.kill.notify_one(),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that fails in one task may go on in another.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps paused time from running ahead of the store: before the runtime goes idle, which moves its clock to the next
/// timer, the writer's thread has written what it was given.
#[derive(Default)]
pub struct Idle {
    sidecar: Mutex<Option<Arc<Sidecar>>>,
    /// How often the store may still have something to write when the runtime goes idle.
    busy: AtomicU32,
    /// Now and then time goes on while it writes, as with a slow disk.
    slow: Mutex<Option<Dice>>,
}

impl Idle {
    pub fn watch(&self, sidecar: Option<Arc<Sidecar>>) {
        *lock(&self.sidecar) = sidecar;
        self.stored();
    }

    /// What happens now may be written, and what follows from that once more.
    pub fn stored(&self) {
        self.busy.store(2, Ordering::Relaxed);
    }

    pub fn set_slow(&self, dice: Option<Dice>) {
        *lock(&self.slow) = dice;
    }

    /// To be called before the runtime goes idle.
    pub fn wait(&self) {
        let is_slow = |dice: &mut Dice| dice.percent(20);
        if lock(&self.slow).as_mut().is_some_and(is_slow) {
            return;
        }
        let busy = self.busy.load(Ordering::Relaxed);
        let sidecar = lock(&self.sidecar).clone();
        if let Some(sidecar) = sidecar
            && let Some(fewer) = busy.checked_sub(1)
        {
            self.busy.store(fewer, Ordering::Relaxed);
            block_on(sidecar.written());
        }
    }
}

/// Something may be written when this is over, however it ends.
pub struct Written<'a>(pub &'a Idle);

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.0.stored();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Without a runtime: the one of this thread is going idle.
fn block_on(future: impl Future<Output = ()>) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    while future.as_mut().poll(&mut context) == Poll::Pending {
        std::thread::park();
    }
}

/// The head of the store's file: each write changes it, last of all.
fn head(file: &Path) -> [u8; 320] {
    let mut head = [0; 320];
    let opened = fs::File::open(file).and_then(|mut file| file.read_exact(&mut head));
    opened.expect("a store");
    head
}

/// Copies a store as a kill at this moment leaves it. A writer may be at work: what was written before the head stands
/// in the copy, and nothing of what its head does not name counts.
pub fn copy_as_killed(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    let (from, to) = (from.join("store.redb"), to.join("store.redb"));
    loop {
        let before = head(&from);
        fs::copy(&from, &to).unwrap();
        if head(&from) == before && head(&to) == before {
            return;
        }
    }
}

/// Waits until the process that used this store has let go of it.
pub fn wait_for_lock(store: &Path) {
    let lock = fs::File::options().write(true).open(store.join("lock"));
    lock.and_then(|lock| lock.lock()).expect("a store");
}
