//! Sync of the proof that the last batch of the log is durable, when the log is quiet.
//!
//! A batch cannot prove its own sync, and the next batch may come late. The proof costs a sync that nobody waits for,
//! except a write that arrives during it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::platform::tokio;
use crate::raft::node::Node;

/// The log is quiet when it was not written for this time.
const QUIET_FOR: Duration = Duration::from_millis(500);

pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let mut writes = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(QUIET_FOR) => {}
        }
        let Ok(instance) = node.instance() else { continue };
        let is_quiet = std::mem::replace(&mut writes, instance.log.writes()) == writes;
        if is_quiet {
            instance.log.sync_proof();
        }
    }
}
