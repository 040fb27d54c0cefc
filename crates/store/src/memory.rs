//! The store without replication and without a disk: the same state machine and the same watches, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{Command, KeyRange, MemoryBackend, RangeRequest, RangeResponse, ReadError, Reply, State};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::StoreError;
use crate::handle::{Engine, Store};
use crate::hub::{Hub, HubConfig};
use crate::membership::{Leadership, Member, MemberRole, MemberStatus, QuorumStatus};
use crate::watch::{Watch, WatchError};

/// Changes to delete at a time after a compaction.
const COMPACTION_EVENTS: usize = 10_000;
const TERM: u64 = 1;

impl Store {
    /// An empty store in memory that is the leader of a quorum of one, named `memory`. Leases end only when they are
    /// revoked: nobody watches the time. Must be called within a Tokio runtime.
    #[must_use]
    pub fn memory() -> Store {
        Store::memory_with(HubConfig::default())
    }

    /// [`Store::memory`] with other limits for its watches.
    #[must_use]
    pub fn memory_with(config: HubConfig) -> Store {
        Store::new(Arc::new(MemoryEngine::start(config)))
    }
}

struct MemoryEngine {
    state: Arc<State<MemoryBackend>>,
    writer: Mutex<()>,
    /// Commands applied.
    applied: AtomicU64,
    hub: Hub,
    leadership: watch::Sender<Leadership>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    _stop_on_drop: DropGuard,
}

fn member() -> Member {
    Member { id: 1, name: "memory".into(), peer: String::new(), api: String::new() }
}

impl MemoryEngine {
    fn start(config: HubConfig) -> Self {
        let state = Arc::new(State::open(MemoryBackend::default()).expect("an empty map can be read"));
        let hub = Hub::new(state.clone(), config);
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(hub.clone().run(shutdown.clone()));
        let leadership = Leadership { term: TERM, leader: Some(member()), is_active_leader: true };
        MemoryEngine {
            state,
            writer: Mutex::new(()),
            applied: AtomicU64::new(0),
            hub,
            leadership: watch::Sender::new(leadership),
            tasks,
            _stop_on_drop: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    fn check_running(&self) -> Result<(), StoreError> {
        if self.shutdown.is_cancelled() { Err(StoreError::ShuttingDown) } else { Ok(()) }
    }

    fn apply(&self, command: &Command) -> Result<Reply, quorate_mvcc::BackendError> {
        let _one_at_a_time = self.writer.lock();
        let mut applier = self.state.applier();
        let applied = applier.apply(command)?;
        self.state.commit(applier.finish())?;
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.hub.publish(applied.reply.revision, applied.events);
        while self.state.compact_some(COMPACTION_EVENTS)? {}
        Ok(applied.reply)
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn propose(&self, command: Command) -> Result<Reply, StoreError> {
        self.check_running()?;
        self.apply(&command).map_err(|error| StoreError::Fatal(error.to_string()))
    }

    async fn read_barrier(&self) -> Result<(), StoreError> {
        self.check_running()
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.check_running()?;
        self.state.range(request).map_err(read_failed)
    }

    fn revision(&self) -> Revision {
        self.state.revision()
    }

    fn watch(&self, range: KeyRange, after: Revision) -> Result<Watch, WatchError> {
        self.hub.watch(range, after)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError> {
        self.check_running()?;
        let applied = self.applied.load(Ordering::Relaxed);
        let status = MemberStatus {
            member: member(),
            role: MemberRole::Leader,
            term: TERM,
            last_log_index: applied,
            applied_index: applied,
            lag: 0,
            revision: self.state.revision(),
            database_size_bytes: 0,
        };
        Ok(QuorumStatus { leader: Some(member().name), term: TERM, members: vec![status] })
    }

    async fn state_hash(&self) -> Result<(Revision, u64), StoreError> {
        self.state.hash_at(Revision::ZERO).map_err(read_failed)
    }

    async fn shutdown(&self) -> Result<(), StoreError> {
        self.leadership.send_replace(Leadership { term: TERM, leader: None, is_active_leader: false });
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }
}

fn read_failed(error: ReadError) -> StoreError {
    match error {
        ReadError::Refused(refused) => StoreError::Command(refused),
        ReadError::Backend(error) => StoreError::Fatal(error.to_string()),
    }
}
