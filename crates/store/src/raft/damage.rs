//! What becomes of a member whose state is damaged on disk.
//!
//! RocksDB has a checksum of each block. What does not match is given to nobody, but whoever needs it fails, and would
//! again after every start. So this member ends, says what to do, and stays out over restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::identity::REJOIN;
use super::integrity;
use super::node::Node;
use super::told::Told;

/// Where a database of the state tells that it is damaged. Those that are made of one tell the same.
#[derive(Clone, Debug)]
pub struct DamageReport {
    /// With what to do.
    found: Arc<Told>,
    /// Whether the database is the state that counts. With a snapshot that is not installed nothing is lost.
    is_heard: Arc<AtomicBool>,
}

impl Default for DamageReport {
    fn default() -> Self {
        DamageReport { found: Arc::default(), is_heard: Arc::new(AtomicBool::new(true)) }
    }
}

impl DamageReport {
    /// For a database that counts.
    #[must_use]
    pub fn heard(&self) -> Self {
        DamageReport { found: self.found.clone(), is_heard: Arc::new(AtomicBool::new(true)) }
    }

    /// For a database that does not count, or not yet.
    #[must_use]
    pub fn unheard(&self) -> Self {
        DamageReport { found: self.found.clone(), is_heard: Arc::new(AtomicBool::new(false)) }
    }

    /// From now on the database counts, or counts no more.
    pub fn set_heard(&self, is_heard: bool) {
        self.is_heard.store(is_heard, Ordering::Relaxed);
    }

    /// Tells of damage, if the database counts. Returns what is to be told to who met it.
    pub fn tell(&self, damage: String) -> String {
        if !self.is_heard.load(Ordering::Relaxed) {
            return damage;
        }
        let reason = format!("{damage}: {REJOIN}");
        self.found.tell(&reason);
        reason
    }

    /// Returns, with what it is and what to do, when a database is damaged.
    pub async fn found(&self) -> String {
        self.found.wait().await
    }

    /// What was told.
    #[cfg(test)]
    pub fn told(&self) -> Option<String> {
        self.found.reason()
    }
}

/// Ends this member when its state is damaged.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let Some(found) = shutdown.run_until_cancelled(node.damage.found()).await else { return };
    let reason = format!("{} is out of service: {found}", node.own().name);
    integrity::note_out_of_service(&node, &reason);
    node.remove(reason);
}
