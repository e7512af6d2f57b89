//! What is known of a name, as a plain value: time comes in as an argument.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Instant;

/// How long addresses are used before they are looked up again.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// How long a caller waits for a new lookup while older addresses are known.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a lookup waits for the second family after the first has answered (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// The least time from the start of one lookup to the start of the next while the addresses are in doubt.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// What is known of a name, and of the lookup that is running.
#[derive(Default)]
pub(super) struct Known {
    families: [Family; 2],
    /// The addresses of the last lookup that found any.
    addresses: Vec<IpAddr>,
    /// The end of the time in which they are used without another lookup.
    fresh_until: Option<Instant>,
    /// The start of the lookup that is running.
    running_since: Option<Instant>,
    began_last: Option<Instant>,
    /// Whether the addresses are those of a literal address or of localhost, which is never looked up.
    is_fixed: bool,
}

/// One address family of the lookup that is running.
#[derive(Default)]
struct Family {
    /// Whether a thread is in `getaddrinfo`, perhaps for an earlier lookup.
    is_busy: bool,
    /// The answer, and when it came.
    answer: Option<(Instant, Result<Vec<IpAddr>, String>)>,
}

/// What a caller who wants addresses has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Use(Vec<IpAddr>),
    Failed(String),
    /// Wait for an answer of a family, or for this moment.
    Wait(Option<Instant>),
}

impl Known {
    /// Nothing, or else the fixed addresses of a name that is never looked up.
    pub(super) fn new(fixed: Vec<IpAddr>) -> Self {
        Self {
            is_fixed: !fixed.is_empty(),
            addresses: fixed,
            ..Self::default()
        }
    }

    /// Returns the addresses of the last lookup that found any.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Makes the next wish for addresses a reason for a lookup.
    pub(super) fn doubt(&mut self) {
        self.fresh_until = None;
    }

    /// Returns whether a lookup has to begin now.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        let is_fresh = self.is_fixed || self.fresh_until.is_some_and(|until| now < until);
        let is_too_soon = !self.addresses.is_empty()
            && self
                .began_last
                .is_some_and(|last| now - last < AT_MOST_EVERY);
        !is_fresh && !is_too_soon && self.running_since.is_none()
    }

    /// Begins a lookup. Returns the families for which a thread has to be started.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<usize> {
        self.running_since = Some(now);
        self.began_last = Some(now);
        let mut idle = Vec::new();
        for (i, family) in self.families.iter_mut().enumerate() {
            family.answer = None;
            if !family.is_busy {
                family.is_busy = true;
                idle.push(i);
            }
        }
        idle
    }

    /// Records the answer of a family.
    pub(super) fn answer(
        &mut self,
        family: usize,
        answer: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) {
        let late = self.running_since.is_none();
        if let (true, Ok(found)) = (late, &answer) {
            // The lookup ended without this family; its addresses are as good as the others.
            let others = self
                .addresses
                .iter()
                .copied()
                .filter(|ip| !found.contains(ip))
                .collect();
            self.addresses = interleave([found.clone(), others]);
        }
        self.families[family] = Family {
            is_busy: false,
            answer: Some((now, answer)),
        };
    }

    /// Returns the addresses to use, or what to wait for. Ends the lookup once it has a result.
    pub(super) fn verdict(&mut self, now: Instant) -> Verdict {
        let Some(began) = self.running_since else {
            return Verdict::Use(self.addresses.clone());
        };
        let answers = || {
            self.families
                .iter()
                .filter_map(|family| family.answer.as_ref())
        };
        let found = answers()
            .filter(|(_, answer)| answer.is_ok())
            .map(|(at, _)| *at)
            .min();
        let is_complete = answers().count() == self.families.len();
        if let Some(first) = found
            && (is_complete || now >= first + RESOLUTION_DELAY)
        {
            let of = |i: usize| match &self.families[i].answer {
                Some((_, Ok(found))) => found.clone(),
                _ => Vec::new(),
            };
            self.addresses = interleave([of(0), of(1)]);
            self.fresh_until = Some(now + FRESH_FOR);
            self.running_since = None;
            return Verdict::Use(self.addresses.clone());
        }
        if is_complete {
            let why = answers()
                .find_map(|(_, answer)| answer.as_ref().err())
                .cloned()
                .unwrap_or_default();
            self.running_since = None;
            return if self.addresses.is_empty() {
                Verdict::Failed(why)
            } else {
                Verdict::Use(self.addresses.clone())
            };
        }
        if !self.addresses.is_empty() && now >= began + PATIENCE {
            return Verdict::Use(self.addresses.clone());
        }
        let patience = (!self.addresses.is_empty()).then_some(began + PATIENCE);
        let delay = found.map(|first| first + RESOLUTION_DELAY);
        Verdict::Wait(patience.into_iter().chain(delay).min())
    }
}

/// Returns the first of each family, then the second of each, and so on (RFC 8305, section 4).
fn interleave(families: [Vec<IpAddr>; 2]) -> Vec<IpAddr> {
    let longest = families.iter().map(Vec::len).max().unwrap_or_default();
    (0..longest)
        .flat_map(|i| {
            families
                .iter()
                .filter_map(move |family| family.get(i).copied())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const V6: usize = 0;
    const V4: usize = 1;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn no() -> Result<Vec<IpAddr>, String> {
        Err("no".to_owned())
    }

    #[test]
    fn the_first_family_waits_a_moment_for_the_other() {
        let (mut known, now) = (Known::default(), clock::now());
        assert!(known.is_wanted(now));
        assert_eq!(known.begin(now), [V6, V4]);
        assert!(!known.is_wanted(now), "one at a time");
        assert_eq!(known.verdict(now), Verdict::Wait(None));
        known.answer(V4, Ok(vec![ip("192.0.2.1"), ip("192.0.2.2")]), now);
        assert_eq!(
            known.verdict(now),
            Verdict::Wait(Some(now + RESOLUTION_DELAY))
        );
        known.answer(V6, Ok(vec![ip("2001:db8::1")]), now);
        let expected = vec![ip("2001:db8::1"), ip("192.0.2.1"), ip("192.0.2.2")];
        assert_eq!(known.verdict(now), Verdict::Use(expected));
        assert!(!known.is_wanted(now + FRESH_FOR - Duration::from_millis(1)));
        assert!(known.is_wanted(now + FRESH_FOR));
    }

    #[test]
    fn a_family_that_never_answers_holds_nothing_up_and_takes_one_thread() {
        let (mut known, now) = (Known::default(), clock::now());
        known.begin(now);
        known.answer(V4, Ok(vec![ip("192.0.2.1")]), now);
        let later = now + RESOLUTION_DELAY;
        assert_eq!(known.verdict(later), Verdict::Use(vec![ip("192.0.2.1")]));
        let again = later + FRESH_FOR;
        assert!(known.is_wanted(again));
        assert_eq!(known.begin(again), [V4], "the other thread is still busy");
        known.answer(V4, Ok(vec![ip("192.0.2.9")]), again);
        assert_eq!(
            known.verdict(again + RESOLUTION_DELAY),
            Verdict::Use(vec![ip("192.0.2.9")]),
            "it has moved"
        );
        known.answer(V6, Ok(vec![ip("2001:db8::1")]), again + PATIENCE);
        assert_eq!(
            known.verdict(again + PATIENCE),
            Verdict::Use(vec![ip("2001:db8::1"), ip("192.0.2.9")])
        );
    }

    #[test]
    fn the_last_known_serve_while_a_lookup_fails_or_hangs() {
        let (mut known, now) = (Known::default(), clock::now());
        known.begin(now);
        known.answer(V6, no(), now);
        known.answer(V4, Ok(vec![ip("192.0.2.1")]), now);
        let last = Verdict::Use(vec![ip("192.0.2.1")]);
        assert_eq!(known.verdict(now), last);
        let again = now + FRESH_FOR;
        known.begin(again);
        assert_eq!(known.verdict(again), Verdict::Wait(Some(again + PATIENCE)));
        assert_eq!(known.verdict(again + PATIENCE), last);
        known.answer(V6, no(), again + PATIENCE);
        known.answer(V4, no(), again + PATIENCE);
        assert_eq!(known.verdict(again + PATIENCE), last);
        assert!(
            known.is_wanted(again + PATIENCE),
            "what failed is not fresh"
        );
    }

    #[test]
    fn a_name_that_nobody_knows_fails() {
        let (mut known, now) = (Known::default(), clock::now());
        known.begin(now);
        known.answer(V6, no(), now);
        known.answer(V4, no(), now);
        assert_eq!(known.verdict(now), Verdict::Failed("no".to_owned()));
        assert!(known.is_wanted(now));
    }

    proptest! {
        /// Whatever the families do and when: there is one lookup, one thread a family, and a caller waits for
        /// known addresses a second at the longest.
        #[test]
        fn nobody_waits_long_for_what_is_known(steps in prop::collection::vec((0_u8..5, 0_u64..40_000), 1..60)) {
            let (mut known, mut now) = (Known::default(), clock::now());
            let mut busy = [false; 2];
            for (step, pause) in steps {
                now += Duration::from_millis(pause);
                match step {
                    0 | 1 if known.is_wanted(now) => {
                        for family in known.begin(now) {
                            prop_assert!(!busy[family], "a second thread");
                            busy[family] = true;
                        }
                    }
                    2 | 3 => {
                        let family = usize::from(step - 2);
                        if std::mem::take(&mut busy[family]) {
                            let found = if pause % 3 == 0 { no() } else { Ok(vec![ip("192.0.2.1")]) };
                            known.answer(family, found, now);
                        }
                    }
                    4 => known.fresh_until = None,
                    _ => {}
                }
                let had = !known.addresses.is_empty();
                let began = known.running_since;
                let verdict = known.verdict(now);
                if let Some(began) = began && had && now >= began + PATIENCE {
                    prop_assert!(matches!(verdict, Verdict::Use(_)));
                }
                prop_assert!(!had || !known.addresses.is_empty(), "what was known is not forgotten");
            }
        }
    }
}
