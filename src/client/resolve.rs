//! Names to addresses, by the system's own resolver (`getaddrinfo`): it alone knows the hosts file, NSS and the search
//! domains of a container.
//!
//! `getaddrinfo` cannot be cancelled, and takes as long as the name servers do. So there is one lookup at a time, in a
//! thread for each family: one family whose answers are swallowed does not hold up the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dns_lookup::{AddrFamily, AddrInfoHints, LookupErrorKind, SockType};
use tokio::sync::watch;

use crate::clock::{self, Instant};

/// How long addresses are used before they are looked up again.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// How long a new lookup is waited for while older addresses are known.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the other family is waited for once one has answered (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// From the beginning of one lookup to that of the next, at least, when the addresses are in doubt.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

const FAMILIES: [AddrFamily; 2] = [AddrFamily::Inet6, AddrFamily::Inet];

/// Looks one name up. Dropping it does not end a lookup that is running.
pub(super) struct Resolver {
    host: String,
    shared: Arc<Shared>,
}

struct Shared {
    known: Mutex<Known>,
    /// Rings when a family has answered.
    answered: watch::Sender<()>,
}

/// What is known of the name. A value: time comes in as an argument.
#[derive(Default)]
struct Known {
    families: [Family; 2],
    /// The addresses of the last lookup that found any.
    addresses: Vec<IpAddr>,
    /// Until when they are used without another lookup.
    fresh_until: Option<Instant>,
    /// When the lookup that is running began.
    running_since: Option<Instant>,
    began_last: Option<Instant>,
    /// A literal address, or localhost: never looked up.
    is_fixed: bool,
}

/// One family of the lookup that is running.
#[derive(Default)]
struct Family {
    /// A thread is in `getaddrinfo`. It may belong to an earlier lookup.
    is_busy: bool,
    /// What came of it, and when.
    answer: Option<(Instant, Result<Vec<IpAddr>, String>)>,
}

/// What to do about a wish for addresses.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Use(Vec<IpAddr>),
    Failed(String),
    /// Wait for an answer, or for that moment.
    Wait(Option<Instant>),
}

impl Resolver {
    /// A resolver for this host. A literal address, and `localhost` (RFC 6761), are never looked up.
    pub(super) fn new(host: &str) -> Self {
        let fixed = match host.parse() {
            Ok(ip) => vec![ip],
            Err(_)
                if host.eq_ignore_ascii_case("localhost")
                    || host.eq_ignore_ascii_case("localhost.") =>
            {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Err(_) => Vec::new(),
        };
        let known = Known {
            is_fixed: !fixed.is_empty(),
            addresses: fixed,
            ..Known::default()
        };
        let shared = Shared {
            known: Mutex::new(known),
            answered: watch::Sender::new(()),
        };
        Self {
            host: host.to_owned(),
            shared: Arc::new(shared),
        }
    }

    /// Returns its addresses, families alternating. Addresses younger than 30 s come from memory; the last known ones
    /// are used while a new lookup fails or takes more than a second. True with them if a lookup was waited for.
    ///
    /// # Errors
    /// Fails if no address is known and the lookup fails. Waits without an end if it takes that long.
    pub(super) async fn addresses(&self) -> Result<(Vec<IpAddr>, bool), String> {
        let mut answered = self.shared.answered.subscribe();
        let mut has_waited = false;
        loop {
            let verdict = {
                let mut known = self.shared.known();
                if known.is_wanted(clock::now()) {
                    self.look_up(&mut known);
                }
                known.verdict(clock::now())
            };
            let until = match verdict {
                Verdict::Use(addresses) => return Ok((addresses, has_waited)),
                Verdict::Failed(why) => return Err(why),
                Verdict::Wait(until) => until,
            };
            has_waited = true;
            tokio::select! {
                _ = answered.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// The addresses that were found last.
    pub(super) fn known_addresses(&self) -> Vec<IpAddr> {
        self.shared.known().addresses.clone()
    }

    /// Nobody answers at the addresses, or the wrong one: the next wish for them is a reason to look the name up again.
    pub(super) fn doubt(&self) {
        self.shared.known().fresh_until = None;
    }

    fn look_up(&self, known: &mut Known) {
        for i in known.begin(clock::now()) {
            let (host, shared) = (self.host.clone(), self.shared.clone());
            tokio::task::spawn_blocking(move || {
                let answer = look_up(&host, FAMILIES[i]);
                shared.known().answer(i, answer, clock::now());
                shared.answered.send_replace(());
            });
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => clock::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether a lookup has to begin now.
    fn is_wanted(&self, now: Instant) -> bool {
        let is_fresh = self.is_fixed || self.fresh_until.is_some_and(|until| now < until);
        let is_too_soon = !self.addresses.is_empty()
            && self
                .began_last
                .is_some_and(|last| now - last < AT_MOST_EVERY);
        !is_fresh && !is_too_soon && self.running_since.is_none()
    }

    /// Begins a lookup; returns the families that a thread has to be started for.
    fn begin(&mut self, now: Instant) -> Vec<usize> {
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

    /// A family has answered.
    fn answer(&mut self, family: usize, answer: Result<Vec<IpAddr>, String>, now: Instant) {
        let late = self.running_since.is_none();
        if let (true, Ok(found)) = (late, &answer) {
            // The lookup was over when the other family had answered: these addresses are as good.
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

    /// What is to be used, or waited for.
    fn verdict(&mut self, now: Instant) -> Verdict {
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

/// The first of each, the second of each, and so on (RFC 8305, section 4).
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

/// Asks the system. Blocks. A hosts file knows no trailing dot.
fn look_up(host: &str, family: AddrFamily) -> Result<Vec<IpAddr>, String> {
    let without_dot = || getaddrinfo(host.strip_suffix('.')?, family).ok();
    getaddrinfo(host, family).or_else(|why| without_dot().ok_or(why))
}

fn getaddrinfo(host: &str, family: AddrFamily) -> Result<Vec<IpAddr>, String> {
    let hints = AddrInfoHints {
        address: family.into(),
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let found =
        dns_lookup::getaddrinfo(Some(host), None, Some(hints)).map_err(|error| {
            match error.kind() {
                LookupErrorKind::NoName | LookupErrorKind::NoData => format!("there is no {host}"),
                LookupErrorKind::Again => {
                    format!("no name server gives an answer about {host} at this moment")
                }
                _ => std::io::Error::from(error).to_string(),
            }
        })?;
    let mut addresses = Vec::new();
    for ip in found.flatten().map(|info| info.sockaddr.ip()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    if addresses.is_empty() {
        Err(format!("{host} has no address"))
    } else {
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        /// Whatever the families do and when: there is one lookup, one thread a family, and who knows addresses waits a
        /// second at the longest.
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
