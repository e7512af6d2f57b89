//! Looks names up with the resolver of the system (`getaddrinfo`), which alone knows the hosts file, NSS and the search
//! domains of a container.
//!
//! `getaddrinfo` cannot be cancelled, and takes as long as the name servers do. So there is one lookup at a time, with a
//! thread for each address family: a family whose answers get lost does not delay the other.

mod known;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dns_lookup::{AddrFamily, AddrInfoHints, LookupErrorKind, SockType};
use tokio::sync::watch;

use self::known::{Known, Verdict};
use crate::clock::{self, Instant};

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
        let shared = Shared {
            known: Mutex::new(Known::new(fixed)),
            answered: watch::Sender::new(()),
        };
        Self {
            host: host.to_owned(),
            shared: Arc::new(shared),
        }
    }

    /// Returns the addresses of the name, families alternating, and whether it waited for a lookup. Addresses younger than
    /// 30 s come from memory; the last known ones are used while a new lookup fails or takes more than a second.
    ///
    /// # Errors
    /// Fails if no address is known and the lookup fails. There is no time limit of its own.
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

    /// Returns the addresses that were found last.
    pub(super) fn known_addresses(&self) -> Vec<IpAddr> {
        self.shared.known().addresses().to_vec()
    }

    /// Reports that the addresses seem to be wrong: the next call for them looks the name up again.
    pub(super) fn doubt(&self) {
        self.shared.known().doubt();
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

/// Asks the system, and blocks. Tries the name without its trailing dot too, since a hosts file has none.
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
