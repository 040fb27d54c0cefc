//! Expiration of leases, on the leader.
//!
//! The clock decides only when to *propose* the revocation of a lease. The proposal names the generation that expired,
//! so it has no effect if a keep-alive was committed before it. A new leader gives every lease its full TTL again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_mvcc::{Command, LeaseId, LeaseInfo};
use tokio_util::sync::CancellationToken;

use crate::error::StoreError;
use crate::platform::tokio;
use crate::platform::tokio::time::Instant;
use crate::raft::network::client::{CallError, Lane};
use crate::raft::network::messages::{self, LeaseTimeResponse};
use crate::raft::node::Node;
use crate::raft::requests::proposals;
#[cfg(test)]
use crate::raft::simulation::planted::{self, Bug};

const TICK: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);
/// Maximum time that counts between two observations.
const MAX_STEP: Duration = Duration::from_secs(1);
/// Maximum number of revocations proposed in one tick; the other expired leases wait for the next tick.
const MAX_ENDS_PER_TICK: usize = 500;

/// Clock of the time during which this process ran. A process that was stopped or starved could not receive keep-alives
/// either, so that time does not count against a lease.
#[derive(Debug, Default)]
struct WakeClock {
    now: Duration,
    looked: Option<Instant>,
}

impl WakeClock {
    fn look(&mut self, at: Instant) -> Duration {
        self.now = self.read(at);
        self.looked = Some(at);
        self.now
    }

    fn read(&self, at: Instant) -> Duration {
        let step = self.looked.map_or(Duration::ZERO, |before| at.saturating_duration_since(before));
        self.now + step.min(MAX_STEP)
    }
}

/// The deadlines of leases by this member's clock, while it leads.
#[derive(Debug, Default)]
pub struct LeaseClock {
    current: Mutex<Option<(u64, Deadlines)>>,
}

impl LeaseClock {
    /// Returns the remaining time of a lease; `None` when it was not observed yet.
    fn remaining(&self, id: LeaseId) -> Option<Duration> {
        let current = self.current.lock();
        let (_, deadlines) = current.as_ref()?;
        let (_, deadline) = deadlines.leases.get(&id)?;
        Some(deadline.saturating_sub(deadlines.clock.read(Instant::now())))
    }

    /// Records the leases that exist while this member leads in `term`; returns the expired ones.
    fn observe(&self, term: u64, leases: &[LeaseInfo], now: Instant) -> Vec<(LeaseId, u64)> {
        let mut current = self.current.lock();
        match &mut *current {
            Some((known, deadlines)) if *known == term => deadlines.observe(leases, now),
            _ => current.insert((term, Deadlines::default())).1.observe(leases, now),
        }
    }

    fn stop(&self) {
        *self.current.lock() = None;
    }
}

/// Returns the remaining time of a lease by this member's clock, if it leads.
pub fn lease_time(node: &Node, id: LeaseId) -> LeaseTimeResponse {
    if !node.leadership.borrow().is_active_leader {
        return LeaseTimeResponse::NotLeader;
    }
    node.lease_clock.remaining(id).map_or(LeaseTimeResponse::Unknown, LeaseTimeResponse::Remaining)
}

/// Returns the remaining time of a lease by the leader's clock; `None` when the leader has not observed it yet.
pub async fn remaining(node: &Node, id: LeaseId) -> Result<Option<Duration>, StoreError> {
    let deadline = Instant::now() + node.settings.request_timeout;
    let mut problem = "none is known".to_owned();
    loop {
        match ask(node, id).await {
            Some(Ok(LeaseTimeResponse::Remaining(remaining))) => return Ok(Some(remaining)),
            Some(Ok(LeaseTimeResponse::Unknown)) => return Ok(None),
            Some(Ok(LeaseTimeResponse::NotLeader)) => problem = "it does not lead, or not yet".to_owned(),
            Some(Err(error)) => problem = error.to_string(),
            None => {}
        }
        if node.shutdown.is_cancelled() {
            return Err(StoreError::ShuttingDown);
        }
        if Instant::now() + RETRY > deadline {
            return Err(StoreError::NoLeader(problem));
        }
        let mut leadership = node.leadership.subscribe();
        drop(tokio::time::timeout(RETRY, leadership.changed()).await);
    }
}

async fn ask(node: &Node, id: LeaseId) -> Option<Result<LeaseTimeResponse, CallError>> {
    let leader = node.leader()?;
    if leader == node.id() {
        return Some(Ok(lease_time(node, id)));
    }
    let peer = node.peers.get(leader)?;
    Some(peer.call(Lane::Control, messages::LEASE_TIME, &id, ASK_TIMEOUT).await)
}

#[derive(Debug, Default)]
struct Deadlines {
    clock: WakeClock,
    leases: BTreeMap<LeaseId, (u64, Duration)>,
}

impl Deadlines {
    /// Records the leases that exist; returns the expired ones with their generations.
    fn observe(&mut self, leases: &[LeaseInfo], at: Instant) -> Vec<(LeaseId, u64)> {
        let now = self.clock.look(at);
        let mut over = Vec::new();
        let mut current = BTreeMap::new();
        for lease in leases {
            let deadline = match self.leases.get(&lease.id) {
                Some((generation, deadline)) if *generation == lease.generation => *deadline,
                #[cfg(test)]
                _ if planted::is(Bug::LeasesEndEarly) => now + Duration::from_millis(lease.ttl_seconds * 500),
                _ => now.saturating_add(Duration::from_secs(lease.ttl_seconds)),
            };
            #[cfg(test)]
            let deadline = if planted::is(Bug::LeasesStay) { Duration::MAX } else { deadline };
            if deadline <= now && over.len() < MAX_ENDS_PER_TICK {
                over.push((lease.id, lease.generation));
            }
            current.insert(lease.id, (lease.generation, deadline));
        }
        self.leases = current;
        over
    }
}

pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let (term, leads) = {
            let leadership = node.leadership.borrow();
            (leadership.term, leadership.is_active_leader)
        };
        let Ok(instance) = node.instance() else { continue };
        if !leads {
            node.lease_clock.stop();
            continue;
        }
        let over = node.lease_clock.observe(term, &instance.state.current().leases(), Instant::now());
        drop(instance);
        let ends = over.into_iter().map(async |(id, generation)| {
            let command = Command::LeaseRevoke { id, generation: Some(generation) };
            // Only this leader may commit it: a later leader gives the lease its full TTL again.
            match proposals::propose_as_leader(&node, term, &command).await {
                Ok(_) => tracing::debug!(lease = id.0, "a lease expired"),
                Err(error) => tracing::info!(lease = id.0, %error, "an expired lease was not revoked; will retry"),
            }
        });
        let ends = futures::future::join_all(ends);
        if shutdown.run_until_cancelled(ends).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId(7);

    fn lease(ttl_seconds: u64, generation: u64) -> LeaseInfo {
        LeaseInfo { id: LEASE, ttl_seconds, generation }
    }

    #[test]
    fn a_lease_expires_one_ttl_after_its_last_keep_alive() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        let kept_alive_at = 10;
        for second in 0..=21 {
            let generation = if second < kept_alive_at { 1 } else { 2 };
            let over = deadlines.observe(&[lease(10, generation)], start + Duration::from_secs(second));
            let expected = if second < kept_alive_at + 10 { vec![] } else { vec![(LEASE, 2)] };
            assert_eq!(over, expected, "at {second}");
        }
        assert_eq!(deadlines.observe(&[], start + Duration::from_secs(22)), [], "it is gone");
    }

    #[test]
    fn the_time_of_a_stopped_process_does_not_count() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.observe(&[lease(5, 1)], start), []);
        let thawed = start + Duration::from_secs(3600);
        assert_eq!(deadlines.observe(&[lease(5, 1)], thawed), [], "nobody could keep it alive");
        let mut over = None;
        for second in 1..10 {
            let now = deadlines.observe(&[lease(5, 1)], thawed + Duration::from_secs(second));
            over = over.or((!now.is_empty()).then_some(second));
        }
        assert_eq!(over, Some(4), "one second had counted");
    }

    #[test]
    fn the_longest_ttl_does_not_overflow() {
        let mut deadlines = Deadlines::default();
        let start = Instant::now();
        for second in 0..3 {
            assert_eq!(deadlines.observe(&[lease(u64::MAX, 1)], start + Duration::from_secs(second)), []);
        }
    }
}
