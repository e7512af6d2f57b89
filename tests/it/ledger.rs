//! An app's ledger, kept from answers, lists, events and webhooks alone, over the whole program, a gateway that reuses
//! codes, changes its mind and loses answers, and processes that are killed: no order is paid twice without a word, no
//! payment that is paid gets lost, and no order gets what another one has.
//!
//! With `TILLGATE_TEST_LEDGER=10000 cargo test --test it ledger:: -- --nocapture` as many rounds as wanted, and with
//! `TILLGATE_TEST_SEED=N` those of an earlier run, which begins with the round of that seed.

mod book;
mod figures;
mod gateway;
mod round;
mod shop;
mod town;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::figures::Figures;
use crate::dice::Dice;

/// Unless another number is asked for.
const ROUNDS: u64 = 10;
/// Rounds at the same time.
const LANES: u64 = 2;

#[test]
fn no_order_is_paid_twice_without_a_word_and_nothing_that_is_paid_gets_lost() {
    let rounds = std::env::var("TILLGATE_TEST_LEDGER")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let first = Dice::seed("ledger");
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Figures::default()));
    let play = || {
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= rounds {
                return;
            }
            let seed = first.wrapping_add(round);
            match round::play(seed) {
                Ok(figures) => sum.lock().unwrap().add(figures),
                Err(faults) => {
                    panic!("TILLGATE_TEST_SEED={seed} TILLGATE_TEST_LEDGER=1:\n{faults}")
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(play);
        }
    });
    let figures = sum.into_inner().unwrap();
    let _ = writeln!(
        std::io::stderr(),
        "ledger: {figures}; TILLGATE_TEST_LEDGER=10000 for more"
    );
    assert!(
        figures.completed > 0 && (rounds < 50 || figures.kills > 0 && figures.paid_twice > 0),
        "too little happened: {figures}"
    );
}
