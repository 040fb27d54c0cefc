//! Decides which masters are endpoints of `default/kubernetes`, from what the leader hears and looks up.
//!
//! A master leaves the endpoints when it is no longer a member, or when it has been silent for a bounded time. A failed
//! question or look-up says nothing about a master, so it removes none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use quorate_api::address::is_global_unicast;

/// The masters, as one leader knows them. Times are those of its monotonic clock.
#[derive(Debug)]
pub struct Liveness {
    /// Time that a silent master stays an endpoint.
    forget_after: Duration,
    /// Time of the last status of the quorum; `None` before the first.
    observed: Option<Duration>,
    /// The members, by the URL of their REST API.
    members: BTreeMap<String, Member>,
}

#[derive(Debug)]
struct Member {
    known_since: Duration,
    /// Time of the first status in which the member did not answer, since it last did.
    silent_since: Option<Duration>,
    /// Whether this leader has ever heard of the member.
    was_heard: bool,
    /// Addresses of the last look-up that succeeded.
    addresses: Option<Vec<SocketAddr>>,
}

impl Member {
    fn usable_address(&self) -> Option<SocketAddr> {
        self.addresses.iter().flatten().copied().find(|address| is_global_unicast(address.ip()))
    }
}

impl Liveness {
    #[must_use]
    pub fn new(forget_after: Duration) -> Self {
        Liveness { forget_after, observed: None, members: BTreeMap::new() }
    }

    /// Records a status of the quorum: the URL of each member, and whether it answers.
    pub fn observe<'a>(&mut self, status: impl IntoIterator<Item = (&'a str, bool)>, now: Duration) {
        let mut before = std::mem::take(&mut self.members);
        for (url, answers) in status {
            let mut member = before.remove(url).unwrap_or(Member {
                known_since: now,
                silent_since: None,
                was_heard: false,
                addresses: None,
            });
            member.was_heard |= answers;
            member.silent_since = if answers { None } else { member.silent_since.or(Some(now)) };
            self.members.insert(url.to_owned(), member);
        }
        self.observed = Some(now);
    }

    /// Returns the URLs of the members, whose addresses must be looked up.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Records a look-up that succeeded.
    pub fn resolved(&mut self, url: &str, addresses: Vec<SocketAddr>) {
        if let Some(member) = self.members.get_mut(url) {
            member.addresses = Some(addresses);
        }
    }

    /// Returns the endpoints, or `None` before the first status. `present` are the stored ones.
    ///
    /// A new leader does not know what its predecessor heard. It keeps a master that it has not heard itself only if the
    /// master is an endpoint, and keeps all endpoints while the address of such a master may still be looked up.
    #[must_use]
    pub fn endpoints(&self, present: &BTreeSet<SocketAddr>) -> Option<BTreeSet<SocketAddr>> {
        let observed = self.observed?;
        let is_recent = |since: Duration| observed.saturating_sub(since) < self.forget_after;
        let (mut endpoints, mut dead, mut keeps_present) = (BTreeSet::new(), BTreeSet::new(), false);
        for member in self.members.values() {
            let is_alive = member.silent_since.is_none_or(is_recent);
            match member.usable_address() {
                Some(address) if is_alive && (member.was_heard || present.contains(&address)) => {
                    endpoints.insert(address);
                }
                Some(address) => {
                    dead.insert(address);
                }
                None => keeps_present |= is_alive && member.addresses.is_none() && is_recent(member.known_since),
            }
        }
        if keeps_present {
            endpoints.extend(present.difference(&dead));
        }
        Some(endpoints)
    }

    /// Returns the members whose addresses no pod can reach.
    #[must_use]
    pub fn unreachable(&self) -> BTreeSet<&str> {
        let has_none = |member: &Member| member.addresses.is_some() && member.usable_address().is_none();
        self.members.iter().filter(|(_, member)| has_none(member)).map(|(url, _)| url.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGET_AFTER: Duration = Duration::from_secs(10);
    const URLS: [&str; 3] = ["https://m1:6443", "https://m2:6443", "https://m3:6443"];

    fn address(master: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, u8::try_from(master).expect("a small number")], 6443))
    }

    fn set(masters: &[usize]) -> BTreeSet<SocketAddr> {
        masters.iter().map(|master| address(*master)).collect()
    }

    /// A leader of three masters that has looked up all addresses, if it `resolves`.
    struct Leader {
        liveness: Liveness,
        present: BTreeSet<SocketAddr>,
        resolves: bool,
    }

    impl Leader {
        fn new(present: &[usize]) -> Self {
            Leader { liveness: Liveness::new(FORGET_AFTER), present: set(present), resolves: true }
        }

        fn status(&mut self, second: u64, answering: &[usize], members: &[usize]) -> BTreeSet<SocketAddr> {
            let status = members.iter().map(|master| (URLS[master - 1], answering.contains(master)));
            self.liveness.observe(status, Duration::from_secs(second));
            for master in members.iter().filter(|_| self.resolves) {
                self.liveness.resolved(URLS[master - 1], vec![address(*master)]);
            }
            self.present = self.liveness.endpoints(&self.present).expect("a status");
            self.present.clone()
        }
    }

    #[test]
    fn a_silent_master_leaves_after_a_bounded_time_and_a_removed_one_at_once() {
        let mut leader = Leader::new(&[]);
        assert_eq!(leader.liveness.endpoints(&set(&[1])), None, "nothing is known before the first status");
        assert_eq!(leader.status(0, &[1, 2, 3], &[1, 2, 3]), set(&[1, 2, 3]));
        assert_eq!(leader.status(100, &[1, 2], &[1, 2, 3]), set(&[1, 2, 3]), "no status said so for long");
        assert_eq!(leader.status(109, &[1, 2], &[1, 2, 3]), set(&[1, 2, 3]));
        assert_eq!(leader.status(110, &[1, 2], &[1, 2, 3]), set(&[1, 2]));
        assert_eq!(leader.status(111, &[1, 2, 3], &[1, 2, 3]), set(&[1, 2, 3]));
        assert_eq!(leader.status(112, &[1, 3], &[1, 3]), set(&[1, 3]));
    }

    #[test]
    fn a_new_leader_keeps_masters_that_it_has_not_heard_yet() {
        let mut leader = Leader::new(&[1, 2, 3]);
        assert_eq!(leader.status(0, &[1], &[1, 2, 3]), set(&[1, 2, 3]));
        assert_eq!(leader.status(2, &[1, 2], &[1, 2, 3]), set(&[1, 2, 3]));
        assert_eq!(leader.status(10, &[1, 2], &[1, 2, 3]), set(&[1, 2]));
        // A master that was dead before does not come back with a new leader.
        let mut leader = Leader::new(&[1, 2]);
        assert_eq!(leader.status(0, &[1], &[1, 2, 3]), set(&[1, 2]));
        assert_eq!(leader.status(1, &[1, 3], &[1, 2, 3]), set(&[1, 2, 3]));
    }

    #[test]
    fn a_failed_look_up_removes_no_master() {
        let mut leader = Leader::new(&[1, 2, 3]);
        leader.resolves = false;
        assert_eq!(leader.status(0, &[1, 2, 3], &[1, 2, 3]), set(&[1, 2, 3]));
        leader.resolves = true;
        assert_eq!(leader.status(2, &[1, 2, 3], &[1, 2, 3]), set(&[1, 2, 3]));
        leader.resolves = false;
        assert_eq!(leader.status(60, &[1, 2, 3], &[1, 2, 3]), set(&[1, 2, 3]), "the last addresses count");
        // A name that cannot be looked up at all does not keep addresses of unknown masters for ever.
        let mut leader = Leader::new(&[1, 2, 3]);
        leader.resolves = false;
        assert_eq!(leader.status(0, &[1, 2], &[1, 2]), set(&[1, 2, 3]));
        assert_eq!(leader.status(10, &[1, 2], &[1, 2]), set(&[]));
    }

    #[test]
    fn addresses_that_pods_cannot_reach_are_no_endpoints() {
        let mut liveness = Liveness::new(FORGET_AFTER);
        liveness.observe([(URLS[0], true), (URLS[1], true)], Duration::ZERO);
        liveness.resolved(URLS[0], vec!["127.0.0.1:6443".parse().expect("an address"), address(1)]);
        liveness.resolved(URLS[1], vec!["[::1]:6443".parse().expect("an address")]);
        assert_eq!(liveness.endpoints(&BTreeSet::new()), Some(set(&[1])));
        assert_eq!(liveness.unreachable(), [URLS[1]].into());
    }
}
