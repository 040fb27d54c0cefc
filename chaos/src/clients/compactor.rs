//! Keeps compacting revisions that all watchers have seen. Compaction must be visible only to clients that read old
//! revisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::watcher::Progress;
use super::{CALL_DEADLINE, Connection, Context};

const EVERY: Duration = Duration::from_millis(500);
/// Number of revisions to keep behind the slowest watcher, so that clients can read recent revisions.
const KEPT: u64 = 500;

/// Runs until the clients are stopped, and publishes the newest revision that may have been compacted.
pub async fn run(context: Context, progress: Arc<Progress>, compacted: Arc<AtomicU64>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let member = rng.random_range(0..context.layout.places.len());
    let mut connection = Connection::new(context.clone(), "compactor", member);
    while context.stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let upto = progress.slowest().saturating_sub(KEPT);
        if upto <= compacted.load(Ordering::Relaxed) {
            continue;
        }
        // The compaction may take effect even if the call is not answered.
        compacted.store(upto, Ordering::Relaxed);
        let call = async {
            let client = connection.client().await?;
            anyhow::Ok(client.compact(i64::try_from(upto)?, None).await?)
        };
        let is_done = matches!(timeout(CALL_DEADLINE, call).await, Ok(Ok(_)));
        if !is_done || rng.random_bool(0.1) {
            connection.leave(&mut rng);
        }
    }
}
