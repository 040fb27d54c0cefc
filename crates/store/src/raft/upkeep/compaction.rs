//! Continuous compaction of old revisions.
//!
//! The leader samples the newest revision over time and proposes to compact revisions older than the retention. A new
//! leader starts without samples, so after a failover revisions are kept longer, never shorter. Each member deletes the
//! compacted revisions by itself, in small parts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::Revision;
use quorate_mvcc::{BackendError, Command};
use tokio_util::sync::CancellationToken;

use super::space::Space;
use crate::error::StoreError;
use crate::platform::tokio;
use crate::platform::tokio::time::{Instant, MissedTickBehavior};
use crate::raft::node::Node;
use crate::raft::requests::proposals;
use crate::raft::state::StateBackend;

const SAMPLES: u32 = 20;
const SAMPLE_EVERY_MIN: Duration = Duration::from_millis(200);
const SAMPLE_EVERY_MAX: Duration = Duration::from_secs(30);

/// Maximum number of changes deleted in one part.
const CHANGES_PER_PART: usize = 1000;
/// Pause between two parts.
const PAUSE: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Samples of the newest revision over time.
#[derive(Debug, Default)]
struct Samples {
    samples: VecDeque<(Instant, Revision)>,
}

impl Samples {
    fn add(&mut self, now: Instant, revision: Revision) {
        if self.samples.back().is_none_or(|(_, last)| *last < revision) {
            self.samples.push_back((now, revision));
        }
    }

    /// Removes the samples that were superseded at least `retention` ago; returns the newest of their revisions.
    fn take_older_than(&mut self, now: Instant, retention: Duration) -> Option<Revision> {
        let mut old = None;
        // A sampled revision was the newest until the next sample, so its age counts from there.
        while self.samples.len() > 1 && self.samples[1].0 + retention <= now {
            old = self.samples.pop_front();
        }
        old.map(|(_, revision)| revision)
    }
}

/// Proposes compactions while this member leads.
pub async fn run_leader(node: Arc<Node>, shutdown: CancellationToken) {
    let every = (node.settings.retention / SAMPLES).clamp(SAMPLE_EVERY_MIN, SAMPLE_EVERY_MAX);
    let mut samples = Samples::default();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        if !node.leadership.borrow().is_active_leader {
            samples = Samples::default();
            continue;
        }
        let now = Instant::now();
        samples.add(now, node.revision());
        let Some(revision) = samples.take_older_than(now, node.settings.retention) else { continue };
        let compacting = shutdown.run_until_cancelled(async {
            let command = Command::Compact { revision };
            match proposals::propose(&node, &command).await.map(|reply| reply.outcome) {
                Ok(Ok(_)) => tracing::debug!(%revision, "compacted"),
                // A client has compacted further already.
                Ok(Err(refused)) => tracing::debug!(%revision, %refused, "not compacted"),
                Err(error) => tracing::info!(%revision, %error, "not compacted; will retry"),
            }
        });
        if compacting.await.is_none() {
            return;
        }
    }
}

/// Deletes compacted revisions. Every member runs this.
pub async fn run_deletion(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        let has_more = match node.instance() {
            Ok(instance) => delete_part(instance.state.current(), &node.space).await,
            Err(_) => false,
        };
        let pause = if has_more { PAUSE } else { LOOK_EVERY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Deletes all revisions that are compacted by now.
pub async fn settle(state: Arc<quorate_mvcc::State<StateBackend>>) -> Result<(), StoreError> {
    let deleting = tokio::task::spawn_blocking(move || {
        while state.compact_some(CHANGES_PER_PART)? {}
        Ok(())
    });
    let deleted: Result<(), BackendError> = deleting.await.map_err(|error| StoreError::Fatal(error.to_string()))?;
    deleted.map_err(|error| StoreError::Fatal(error.to_string()))
}

async fn delete_part(state: Arc<quorate_mvcc::State<StateBackend>>, space: &Space) -> bool {
    match tokio::task::spawn_blocking(move || state.compact_some(CHANGES_PER_PART)).await {
        Ok(Ok(has_more)) => has_more,
        // The full disk is logged already.
        Ok(Err(error)) if space.is_full() => {
            tracing::debug!(%error, "compacted revisions are deleted when there is space");
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "compacted revisions cannot be deleted; will retry");
            false
        }
        Err(error) => {
            tracing::error!(%error, "the deletion of compacted revisions failed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::tokio;

    #[tokio::test]
    async fn revisions_within_the_retention_are_kept() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let retention = Duration::from_secs(60);
        let mut samples = Samples::default();
        for second in 0..=100 {
            samples.add(at(second), Revision(10 + second));
            let old = samples.take_older_than(at(second), retention);
            // At second s, revision 10 + t was the newest until t + 1.
            let expected = second.checked_sub(61).map(|t| Revision(10 + t));
            assert_eq!(old, expected, "at {second}");
        }
        assert_eq!(samples.take_older_than(at(100), retention), None, "and only once");
    }
}
