//! Purging of the log, on every member: flushes the state, then purges the entries that need not be kept. Also checks
//! RocksDB for errors in the background.
//!
//! The log is purged by bytes, not by entries, since an entry holds one command or a thousand. openraft's own policies
//! are off.

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use crate::platform::tokio;
use crate::raft::node::{Instance, Node};
use crate::raft::types::Fatal;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const FLUSH_DEADLINE: Duration = Duration::from_secs(30);

pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let Ok(instance) = node.instance() else { continue };
        meet_background_errors(&instance).await;
        let retention = node.settings.log_retention;
        if instance.log.size_bytes() <= retention.keep_bytes + retention.slack_bytes {
            continue;
        }
        let Some(upto) = instance.log.purge_point(retention.keep_bytes) else { continue };
        let purging = shutdown.run_until_cancelled(purge(&instance, upto)).await;
        if let Some(Err(error)) = purging {
            tracing::info!(%error, "the log was not purged");
        }
    }
}

/// Handles RocksDB's background errors now. RocksDB itself reports them only to the next writer, which may take long.
async fn meet_background_errors(instance: &Instance) {
    let state = instance.state.current();
    if !state.backend().has_background_errors() {
        return;
    }
    if let Err(error) = tokio::task::spawn_blocking(move || state.backend().meet_background_errors()).await {
        tracing::error!(%error, "errors of RocksDB in the background were not checked");
    }
}

async fn purge(instance: &Instance, upto: u64) -> Result<(), Fatal> {
    instance.raft.trigger().snapshot().await?;
    let mut metrics = instance.raft.metrics();
    let flushed = async {
        while metrics.borrow_watched().snapshot.is_none_or(|flushed| flushed.index < upto) {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(FLUSH_DEADLINE, flushed).await.is_err() {
        tracing::warn!(upto, "the state was not flushed in time; the log is not purged");
        return Ok(());
    }
    tracing::debug!(upto, "purging the log");
    instance.raft.trigger().purge_log(upto).await
}
