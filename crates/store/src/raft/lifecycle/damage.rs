//! Handling of a state that is damaged on disk.
//!
//! RocksDB has a checksum of each block. A read of a block that does not match fails, and would fail again after every
//! start. So this member ends, logs the remedy, and stays out of service over restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::first_reason::FirstReason;
use super::identity::REJOIN;
use crate::raft::node::Node;
use crate::raft::upkeep::integrity;

/// Channel through which a state database reports damage. The reports derived from one share it.
#[derive(Clone, Debug)]
pub struct DamageReport {
    /// The damage and its remedy.
    found: Arc<FirstReason>,
    /// Whether the database is the state in use. Damage to a snapshot that is not installed loses nothing.
    is_in_use: Arc<AtomicBool>,
}

impl Default for DamageReport {
    fn default() -> Self {
        DamageReport { found: Arc::default(), is_in_use: Arc::new(AtomicBool::new(true)) }
    }
}

impl DamageReport {
    /// Returns a report for the database in use.
    #[must_use]
    pub fn in_use(&self) -> Self {
        DamageReport { found: self.found.clone(), is_in_use: Arc::new(AtomicBool::new(true)) }
    }

    /// Returns a report for a database that is not in use. It ignores damage until [`DamageReport::set_in_use`].
    #[must_use]
    pub fn not_in_use(&self) -> Self {
        DamageReport { found: self.found.clone(), is_in_use: Arc::new(AtomicBool::new(false)) }
    }

    /// Sets whether the database is the state in use.
    pub fn set_in_use(&self, is_in_use: bool) {
        self.is_in_use.store(is_in_use, Ordering::Relaxed);
    }

    /// Reports damage if the database is in use. Returns the message for the caller whose read or write failed.
    pub fn report(&self, damage: String) -> String {
        if !self.is_in_use.load(Ordering::Relaxed) {
            return damage;
        }
        let reason = format!("{damage}: {REJOIN}");
        self.found.set(&reason);
        reason
    }

    /// Waits until damage is reported; returns it with its remedy.
    pub async fn found(&self) -> String {
        self.found.wait().await
    }

    /// Returns the damage that was reported so far.
    #[cfg(test)]
    pub fn reported(&self) -> Option<String> {
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
