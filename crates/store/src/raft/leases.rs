//! Ends leases whose time is over, on the leader.
//!
//! The clock decides only when to *propose* an end. The proposal names the generation that was seen to expire, so one
//! that a keep-alive has overtaken does nothing. A new leader gives every lease its whole time again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_mvcc::{Command, LeaseId, LeaseInfo};
use tokio_util::sync::CancellationToken;

use super::network::client::{CallError, Lane};
use super::network::messages::{self, LeaseTimeResponse};
use super::node::Node;
use super::proposals;
use crate::error::StoreError;
use crate::platform::tokio;
use crate::platform::tokio::time::Instant;
#[cfg(test)]
use crate::raft::simulation::planted::{self, Bug};

const TICK: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);
/// Time between two looks counts only up to this.
const MAX_STEP: Duration = Duration::from_secs(1);
/// Ends proposed in one tick; the rest have waited, and can wait a tick more.
const MAX_ENDS_PER_TICK: usize = 500;

/// Time during which this process ran. A process that was stopped, or starved, could not take keep-alives either, so
/// that time is nobody's.
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

/// When leases end, by this member's clock, as long as it leads.
#[derive(Debug, Default)]
pub struct LeaseClock {
    current: Mutex<Option<(u64, Deadlines)>>,
}

impl LeaseClock {
    /// How long a lease has left; `None` when it was not seen yet.
    fn remaining(&self, id: LeaseId) -> Option<Duration> {
        let current = self.current.lock();
        let (_, deadlines) = current.as_ref()?;
        let (_, deadline) = deadlines.leases.get(&id)?;
        Some(deadline.saturating_sub(deadlines.clock.read(Instant::now())))
    }

    /// Notes which leases the leader of `term` has; says which are over.
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

/// What this member knows of a lease's time.
pub fn lease_time(node: &Node, id: LeaseId) -> LeaseTimeResponse {
    if !node.leadership.borrow().is_active_leader {
        return LeaseTimeResponse::NotLeader;
    }
    node.lease_clock.remaining(id).map_or(LeaseTimeResponse::Unknown, LeaseTimeResponse::Remaining)
}

/// How long a lease has left by the leader's clock; `None` when that has not seen it yet.
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
    /// Takes note of the leases that there are; says which are over.
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
            // Here or nowhere: what this member saw expire is no business of a leader that comes after it.
            match proposals::propose_as_leader(&node, term, &command).await {
                Ok(_) => tracing::debug!(lease = id.0, "lease ended"),
                Err(error) => tracing::info!(lease = id.0, %error, "a lease could not be ended; it is tried again"),
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
    fn a_lease_ends_when_its_generation_has_aged() {
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
    fn an_endless_lease_is_no_overflow() {
        let mut deadlines = Deadlines::default();
        let start = Instant::now();
        for second in 0..3 {
            assert_eq!(deadlines.observe(&[lease(u64::MAX, 1)], start + Duration::from_secs(second)), []);
        }
    }
}
