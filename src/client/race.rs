//! Happy Eyeballs (RFC 8305, section 5): attempts at several addresses, so that one that never answers delays nothing.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::clock;

/// The time from the start of one attempt to the start of the next.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Starts an attempt with each candidate in turn, the next one after 250 ms or as soon as one has failed. Returns the first
/// success, and drops the other attempts.
///
/// # Errors
/// Returns all failures, in the order in which they came, if no attempt succeeds.
pub(super) async fn race<C, T, E, F>(
    candidates: impl IntoIterator<Item = C>,
    attempt: impl Fn(C) -> F,
) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = candidates.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        running.extend(waiting.next().map(&attempt));
        let delay = clock::sleep(ATTEMPT_DELAY);
        tokio::pin!(delay);
        loop {
            tokio::select! {
                ended = running.next() => match ended {
                    Some(Ok(winner)) => return Ok(winner),
                    Some(Err(failure)) => failures.push(failure),
                    None => return Err(failures),
                },
                () = &mut delay, if waiting.peek().is_some() => {}
            }
            if waiting.peek().is_some() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// Runs it on paused time: each candidate is how long it takes and whether it succeeds. The result, when it came, and
    /// when each attempt began, in milliseconds.
    fn run(candidates: &[(u64, bool)]) -> (Result<usize, Vec<usize>>, u64, Vec<u64>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (began, starts) = (clock::now(), RefCell::new(Vec::new()));
            let elapsed = || u64::try_from((clock::now() - began).as_millis()).unwrap();
            let result = race(candidates.iter().enumerate(), |(i, (takes, succeeds))| {
                starts.borrow_mut().push(elapsed());
                async move {
                    clock::sleep(Duration::from_millis(*takes)).await;
                    if *succeeds { Ok(i) } else { Err(i) }
                }
            })
            .await;
            (result, elapsed(), starts.into_inner())
        })
    }

    #[test]
    fn the_next_begins_after_a_while_or_when_one_has_failed() {
        assert_eq!(run(&[]), (Err(vec![]), 0, vec![]));
        assert_eq!(run(&[(10, true), (0, true)]), (Ok(0), 10, vec![0]));
        assert_eq!(
            run(&[(10_000, true), (20, true)]),
            (Ok(1), 270, vec![0, 250])
        );
        assert_eq!(
            run(&[(5, false), (5, false), (5, true)]),
            (Ok(2), 15, vec![0, 5, 10])
        );
        assert_eq!(run(&[(300, true), (600, true)]), (Ok(0), 300, vec![0, 250]));
        assert_eq!(
            run(&[(300, false), (600, true)]),
            (Ok(1), 850, vec![0, 250])
        );
        assert_eq!(
            run(&[(9, false), (1, false)]),
            (Err(vec![0, 1]), 10, vec![0, 9])
        );
    }

    proptest! {
        #[test]
        fn whoever_can_win_does_and_nobody_waits_longer_than_for_the_delays(
            candidates in prop::collection::vec((0_u64..2000, any::<bool>()), 1..8)
        ) {
            let (result, took, starts) = run(&candidates);
            prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= 250));
            let can_win = |i: usize| candidates.get(i).is_some_and(|(_, succeeds)| *succeeds);
            match result {
                Ok(winner) => prop_assert!(can_win(winner)),
                Err(failures) => {
                    prop_assert_eq!(failures.len(), candidates.len());
                    prop_assert!(!(0..candidates.len()).any(can_win));
                }
            }
            let bound = |(i, (takes, succeeds)): (usize, &(u64, bool))| succeeds.then_some(250 * i as u64 + takes);
            if let Some(earliest) = candidates.iter().enumerate().filter_map(bound).min() {
                prop_assert!(took <= earliest, "{took} > {earliest}");
            }
        }
    }
}
