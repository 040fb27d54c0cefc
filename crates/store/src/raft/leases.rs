//! Ends leases whose time is over, on the leader.
//!
//! The clock decides only when to *propose* an end. The proposal names the generation that was seen to expire, so one
//! that a keep-alive has overtaken does nothing. A new leader gives every lease its whole time again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_mvcc::{Command, LeaseId, LeaseInfo};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::node::Node;
use super::proposals;

const TICK: Duration = Duration::from_millis(500);
/// Ends proposed in one tick; the rest have waited, and can wait a tick more.
const MAX_ENDS_PER_TICK: usize = 500;

/// When leases end, by this leader's clock.
#[derive(Debug, Default)]
struct Deadlines {
    leases: BTreeMap<LeaseId, (u64, Instant)>,
}

impl Deadlines {
    /// Takes note of the leases that there are; says which are over.
    fn observe(&mut self, leases: &[LeaseInfo], now: Instant) -> Vec<(LeaseId, u64)> {
        let mut over = Vec::new();
        let mut current = BTreeMap::new();
        for lease in leases {
            let deadline = match self.leases.get(&lease.id) {
                Some((generation, deadline)) if *generation == lease.generation => *deadline,
                _ => now + Duration::from_secs(lease.ttl_seconds),
            };
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
    let mut deadlines = None;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let (term, leads) = {
            let leadership = node.leadership.borrow();
            (leadership.term, leadership.is_active_leader)
        };
        let Ok(instance) = node.instance() else { continue };
        if !leads {
            deadlines = None;
            continue;
        }
        let (known_term, known) = deadlines.get_or_insert_with(|| (term, Deadlines::default()));
        if *known_term != term {
            (*known_term, *known) = (term, Deadlines::default());
        }
        let over = known.observe(&instance.state.current().leases(), Instant::now());
        drop(instance);
        let ends = over.into_iter().map(async |(id, generation)| {
            let command = Command::LeaseRevoke { id, generation: Some(generation) };
            match proposals::propose(&node, &command).await {
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

    #[tokio::test]
    async fn a_lease_ends_when_its_generation_has_aged() {
        let lease = |generation| LeaseInfo { id: LeaseId(7), ttl_seconds: 10, generation };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.observe(&[lease(1)], at(0)), []);
        assert_eq!(deadlines.observe(&[lease(1)], at(9)), []);
        assert_eq!(deadlines.observe(&[lease(2)], at(10)), [], "kept alive");
        assert_eq!(deadlines.observe(&[lease(2)], at(19)), []);
        assert_eq!(deadlines.observe(&[lease(2)], at(20)), [(LeaseId(7), 2)]);
        assert_eq!(deadlines.observe(&[], at(21)), [], "it is gone");
    }
}
