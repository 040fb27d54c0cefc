//! A store without replication and without a disk, for tests. It has the same state machine and the same watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{Command, CommandVersion, KeyRange, LeaseId, MemoryBackend, Reply, State};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backup::Backup;
use crate::error::StoreError;
use crate::handle::{Engine, StateHash, Store};
use crate::hub::{Hub, HubConfig};
use crate::membership::{Identity, Leadership, Member, MemberId, MemberRole, MemberStatus, QuorumStatus};
use crate::platform::TaskTracker;
use crate::platform::tokio::sync::watch;
use crate::reader::Reader;
use crate::traces::{Landing, Traces};
use crate::watch::{Watch, WatchError, WatchOptions};

/// Number of events that a step of the deletion after a compaction processes.
const COMPACTION_EVENTS: usize = 10_000;
const TERM: u64 = 1;

impl Store {
    /// Creates an empty store in memory, which is the leader of a quorum of one named `memory`. Leases end only when
    /// they are revoked, because nothing expires them. Must be called within a Tokio runtime.
    #[must_use]
    pub fn memory() -> Store {
        Store::memory_with(HubConfig::default())
    }

    /// Like [`Store::memory`], with other limits for its watches.
    #[must_use]
    pub fn memory_with(config: HubConfig) -> Store {
        Store::new(Arc::new(MemoryEngine::start(config)))
    }

    /// Like [`Store::memory`], but loses the response to the command after the first `after` ones. The command is
    /// applied and its outcome is unknown, as when a leader dies.
    #[must_use]
    pub fn memory_losing(after: u64) -> Store {
        Store::memory_with_loss(after, Loss::Answer)
    }

    /// Like [`Store::memory`], but loses the command after the first `after` ones, or its response. The outcome of that
    /// command is unknown.
    #[must_use]
    pub(crate) fn memory_with_loss(after: u64, loss: Loss) -> Store {
        Store::new(Arc::new(MemoryEngine { loses: Some((after, loss)), ..MemoryEngine::start(HubConfig::default()) }))
    }
}

/// The part of a command that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The response: the command is applied.
    Answer,
    /// The command, while its leader stays the leader.
    #[cfg(test)]
    Command,
    /// The command together with its leader, which is succeeded by another.
    #[cfg(test)]
    Leader,
}

struct MemoryEngine {
    state: Arc<State<MemoryBackend>>,
    writer: Mutex<()>,
    /// Number of proposed commands.
    proposed: AtomicU64,
    /// The number of commands before the lost one, and the part of it that is lost.
    loses: Option<(u64, Loss)>,
    hub: Hub,
    traces: Arc<Traces>,
    leadership: watch::Sender<Leadership>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    _stop_on_drop: DropGuard,
}

fn member() -> Member {
    Member { id: 1, name: "memory".into(), ..Member::default() }
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
            proposed: AtomicU64::new(0),
            loses: None,
            hub,
            traces: Arc::default(),
            leadership: watch::Sender::new(leadership),
            tasks,
            _stop_on_drop: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    fn check_running(&self) -> Result<(), StoreError> {
        if self.shutdown.is_cancelled() { Err(StoreError::ShuttingDown) } else { Ok(()) }
    }

    /// Applies a command. Returns `None` when the command or its response is lost.
    fn apply(&self, command: &Command) -> Result<Option<Reply>, quorate_mvcc::BackendError> {
        let _one_at_a_time = self.writer.lock();
        let before = self.proposed.fetch_add(1, Ordering::Relaxed);
        let loss = self.loses.filter(|(after, _)| *after == before).map(|(_, loss)| loss);
        if let Some(loss) = loss {
            self.traces.left_open(command, TERM);
            match loss {
                Loss::Answer => {}
                #[cfg(test)]
                Loss::Command => return Ok(None),
                #[cfg(test)]
                Loss::Leader => {
                    self.leadership.send_modify(|known| known.term += 1);
                    return Ok(None);
                }
            }
        }
        let mut applier = self.state.applier();
        let applied = applier.apply(command)?;
        self.state.commit(applier.finish())?;
        self.traces.landed(Landing::of(command, &applied.reply).as_slice());
        self.hub.publish(applied.reply.revision, applied.events);
        while self.state.compact_some(COMPACTION_EVENTS)? {}
        Ok(loss.is_none().then_some(applied.reply))
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn propose(&self, command: Command) -> Result<Reply, StoreError> {
        self.check_running()?;
        let reply = self.apply(&command).map_err(|error| StoreError::Fatal(error.to_string()))?;
        reply.ok_or_else(|| StoreError::OutcomeUnknown("a test has lost the response".to_owned()))
    }

    fn traces(&self) -> &Arc<Traces> {
        &self.traces
    }

    async fn read_barrier(&self) -> Result<Reader, StoreError> {
        self.local_reader()
    }

    fn local_reader(&self) -> Result<Reader, StoreError> {
        self.check_running()?;
        Ok(self.state.clone())
    }

    fn revision(&self) -> Revision {
        self.state.revision()
    }

    fn command_version(&self) -> CommandVersion {
        CommandVersion::NEWEST
    }

    fn watch_with(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError> {
        self.hub.watch(range, after, options)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError> {
        self.check_running()?;
        let applied = self.proposed.load(Ordering::Relaxed);
        let status = MemberStatus {
            member: member(),
            role: MemberRole::Leader,
            voter: true,
            term: TERM,
            last_log_index: applied,
            applied_index: applied,
            lag: 0,
            revision: self.state.revision(),
            database_size_bytes: 0,
            command_version: Some(self.command_version().0),
            alarms: Vec::new(),
        };
        let (command_version, members) = (self.command_version().0, vec![status]);
        Ok(QuorumStatus { leader: Some(member().name), term: TERM, command_version, members, invited: Vec::new() })
    }

    async fn hash_at(&self, revision: Revision) -> Result<StateHash, StoreError> {
        let (revision, hash) = self.state.hash_at(revision)?;
        Ok(StateHash { revision, hash, compacted: self.state.compacted() })
    }

    fn identity(&self) -> Identity {
        Identity { cluster: 1, member: member().id }
    }

    async fn lease_remaining(&self, _: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.check_running()?;
        Ok(None)
    }

    fn mark_watch_progress(&self, at_least: Revision) {
        self.hub.mark_progress(at_least);
    }

    async fn compaction_settled(&self) -> Result<(), StoreError> {
        self.check_running()
    }

    async fn backup(&self) -> Result<Backup, StoreError> {
        Err(StoreError::Fatal("a store in memory has nothing to back up".to_owned()))
    }

    async fn transfer_leadership(&self, _: MemberId) -> Result<(), StoreError> {
        self.check_running()
    }

    async fn shutdown(&self) -> Result<(), StoreError> {
        self.leadership.send_replace(Leadership { term: TERM, leader: None, is_active_leader: false });
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }
}
