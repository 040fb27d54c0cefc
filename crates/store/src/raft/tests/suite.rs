//! openraft's test suite for a storage.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::Mutex;
use rocksdb::Cache;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::hub::HubConfig;
use crate::raft::lifecycle::closing::{Closed, close_signal};
use crate::raft::lifecycle::damage::DamageReport;
use crate::raft::log::{LogOptions, LogStore};
use crate::raft::requests::commands::Decodable;
use crate::raft::state::state_machine::StateMachine;
use crate::raft::state::watching::Watching;
use crate::raft::state::{StateOptions, StateStore};
use crate::raft::types::TypeConfig;
use crate::raft::upkeep::space::Space;

/// Records the databases that it opened, since a process that exits while a database closes aborts.
#[derive(Clone, Default)]
struct Builder {
    opened: Arc<Mutex<Vec<Closed>>>,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::new_lru_cache(1 << 20);
        let (signal, closed) = close_signal();
        self.opened.lock().push(closed);
        // The cache is empty, so that the suite reads from disk.
        let space = Arc::new(Space::new(dir.path(), 0, CancellationToken::new()));
        let log = LogStore::open(
            &dir.path().join("log"),
            LogOptions { cache_bytes: 0, prepares_first: true },
            space.clone(),
            signal,
        );
        let (signal, closed) = close_signal();
        self.opened.lock().push(closed);
        let options = StateOptions {
            cache,
            watching: Arc::new(Watching::new(HubConfig::default())),
            traces: Arc::default(),
            space,
            damage: DamageReport::default(),
            decodable: Decodable::default(),
        };
        let state = StateStore::open(&dir.path().join("state"), options, signal);
        let machine = StateMachine::new(Arc::new(state.expect("the state opens")));
        Ok((dir, log.expect("the log opens"), machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_suite() {
    let builder = Builder::default();
    Suite::test_all(builder.clone()).await.expect("the suite passes");
    let opened = std::mem::take(&mut *builder.opened.lock());
    for closed in opened {
        assert!(closed.wait(std::time::Duration::from_secs(60)).await, "a database stays open");
    }
}
