//! [`Node`]: the state of this member while its process runs, with the Raft instance if one is open.
//!
//! The instance may be torn down and opened again from disk (see [`super::lifecycle::supervisor`]) while everything else stays:
//! the listener, the connections, the queues and the callers that wait in them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use openraft::ServerState;
use openraft::errors::RaftError;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use quorate_api::Revision;
use quorate_mvcc::CommandVersion;
use tokio_util::sync::CancellationToken;

use super::config::{LogRetention, Timing};
use super::lifecycle::damage::DamageReport;
use super::lifecycle::first_reason::FirstReason;
use super::log::LogStore;
use super::membership::roster::Roster;
use super::network::client::Peers;
use super::network::messages::{ReadIndexResponse, StatusFields};
use super::requests::announced::Announced;
use super::requests::batching::BatchQueue;
use super::requests::commands::Decodable;
use super::requests::reads::Barrier;
use super::requests::rounds::RoundQueue;
use super::state::StateStore;
use super::state::watching::Watching;
use super::types::{AppendRequest, AppendResponse, Fatal, Metrics, Raft, Snapshot, SnapshotResponse, Vote};
use super::upkeep::leases::LeaseClock;
use super::upkeep::space::Space;
use crate::error::StoreError;
use crate::membership::{Alarm, Leadership, Member, MemberId, MemberRole};
use crate::platform::TaskTracker;
use crate::platform::tokio::sync::watch;
use crate::traces::Traces;

/// A running Raft, its log and its state.
pub struct Instance {
    pub raft: Raft,
    pub log: LogStore,
    pub state: Arc<StateStore>,
}

/// The parts of the configuration that are needed after the start.
pub struct Settings {
    /// This member as it was when its directory was created.
    pub member: Member,
    /// The members that form the quorum if it is not formed yet.
    pub founders: Vec<Member>,
    pub cluster: u32,
    pub data_dir: PathBuf,
    pub retention: Duration,
    pub timing: Timing,
    pub log_retention: LogRetention,
    pub request_timeout: Duration,
    pub reserve_bytes: u64,
    pub integrity_interval: Duration,
    /// The newest command version that this member decodes.
    pub commands: CommandVersion,
}

/// The queues through which work reaches this member's tasks.
pub struct Queues {
    /// Commands for this member's own log, when it leads.
    pub lead: BatchQueue,
    /// Commands to forward to the leader.
    pub forward: BatchQueue,
    /// Requests for this member's read index, when it leads.
    pub read_index: RoundQueue<ReadIndexResponse>,
    pub barrier: RoundQueue<Barrier>,
}

/// This member.
pub struct Node {
    pub settings: Settings,
    pub peers: Peers,
    pub queues: Queues,
    pub watching: Arc<Watching>,
    pub traces: Arc<Traces>,
    pub leadership: watch::Sender<Leadership>,
    /// The deadlines of leases, while this member leads.
    pub lease_clock: LeaseClock,
    pub announced: Arc<Announced>,
    pub space: Arc<Space>,
    /// Receives reports of damage to the state.
    pub damage: DamageReport,
    /// The commands that this member decodes.
    pub decodable: Decodable,
    /// The highest command version that this member, as the leader, has proposed to its quorum.
    pub proposed_version: AtomicU32,
    roster: ArcSwap<Roster>,
    /// Held while the newest membership is stored, so that an older one cannot overwrite it.
    storing_roster: parking_lot::Mutex<()>,
    /// Held while the membership changes.
    pub changing: tokio::sync::Mutex<()>,
    /// Why this member is out of service.
    out_of_service: FirstReason,
    /// Why this member was removed, or why its data directory is not accepted.
    removed: FirstReason,
    instance: ArcSwapOption<Instance>,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
    /// Ends before `shutdown` does when this member is taken out of service.
    pub serving: CancellationToken,
}

impl Node {
    #[must_use]
    pub fn new(
        settings: Settings,
        peers: Peers,
        queues: Queues,
        watching: Arc<Watching>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let space = Arc::new(Space::new(&settings.data_dir, settings.reserve_bytes, shutdown.clone()));
        let roster = Roster::founding(&settings.founders);
        let decodable = Decodable { newest: settings.commands, ..Decodable::default() };
        peers.follow(roster.members.values());
        Node {
            settings,
            roster: ArcSwap::from_pointee(roster),
            storing_roster: parking_lot::Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            removed: FirstReason::default(),
            peers,
            queues,
            watching,
            traces: Arc::default(),
            leadership: watch::Sender::new(Leadership::default()),
            lease_clock: LeaseClock::default(),
            announced: Arc::default(),
            space,
            damage: DamageReport::default(),
            decodable,
            proposed_version: AtomicU32::new(0),
            out_of_service: FirstReason::default(),
            instance: ArcSwapOption::empty(),
            tasks,
            serving: shutdown.child_token(),
            shutdown,
        }
    }

    /// Returns the running instance.
    ///
    /// # Errors
    /// While the instance is being opened, after the shutdown, or when this member is out of service.
    pub fn instance(&self) -> Result<Arc<Instance>, StoreError> {
        self.instance.load_full().ok_or_else(|| {
            if self.shutdown.is_cancelled() {
                StoreError::ShuttingDown
            } else if let Some(reason) = self.out_of_service.reason() {
                StoreError::Fatal(reason)
            } else {
                StoreError::NoLeader("this member is starting".to_owned())
            }
        })
    }

    /// Takes this member out of service for good.
    pub fn take_out_of_service(&self, reason: String) {
        self.out_of_service.set(reason);
    }

    /// Returns when this member is out of service.
    pub async fn out_of_service(&self) {
        self.out_of_service.wait().await;
    }

    /// # Errors
    /// `Fatal` when this member is out of service.
    pub fn check_in_service(&self) -> Result<(), StoreError> {
        self.out_of_service.reason().map_or(Ok(()), |reason| Err(StoreError::Fatal(reason)))
    }

    pub fn set_instance(&self, instance: Option<Arc<Instance>>) {
        self.instance.store(instance);
    }

    #[must_use]
    pub fn id(&self) -> MemberId {
        self.settings.member.id
    }

    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        self.leader_and_term().0
    }

    /// Returns the leader, if one is known, and the current term.
    #[must_use]
    pub fn leader_and_term(&self) -> (Option<MemberId>, u64) {
        self.leadership.borrow().leader_and_term()
    }

    /// Returns the membership as this member knows it.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// Stores the membership that an instance reports. `reported` reads it under the lock.
    pub fn store_roster(&self, reported: impl FnOnce() -> Option<Roster>) {
        let _newest = self.storing_roster.lock();
        if let Some(roster) = reported() {
            self.set_roster(roster);
        }
    }

    /// Stores a membership that is known before an instance reports one.
    pub fn set_roster(&self, roster: Roster) {
        if *self.roster.load_full() == roster {
            return;
        }
        if roster.members.contains_key(&self.id()) {
            self.peers.set_membership_index(roster.version);
        }
        self.peers.follow(roster.members.values());
        self.roster.store(Arc::new(roster));
    }

    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<Member> {
        self.roster.load().members.get(&id).cloned()
    }

    /// Returns this member as the membership has it.
    #[must_use]
    pub fn own(&self) -> Member {
        self.member(self.id()).unwrap_or_else(|| self.settings.member.clone())
    }

    /// Takes this member out of service, and reports that its process can end.
    pub fn remove(&self, reason: String) {
        self.take_out_of_service(reason.clone());
        self.removed.set(reason);
    }

    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.is_set()
    }

    /// Waits until this member is removed; returns the reason.
    pub async fn removed(&self) -> String {
        self.removed.wait().await
    }

    /// Returns the status of this member.
    ///
    /// # Errors
    /// As [`Node::instance`].
    pub fn status(&self) -> Result<StatusFields, StoreError> {
        if self.check_in_service().is_err() {
            return Ok(StatusFields {
                member: self.own(),
                role: MemberRole::Unreachable,
                term: 0,
                last_log_index: 0,
                applied_index: 0,
                revision: Revision::ZERO,
                database_size_bytes: 0,
                alarms: vec![Alarm::Corrupt],
            });
        }
        let instance = self.instance()?;
        let metrics = instance.metrics();
        let state = instance.state.current();
        Ok(StatusFields {
            member: self.own(),
            role: match metrics.state {
                ServerState::Leader => MemberRole::Leader,
                ServerState::Follower => MemberRole::Follower,
                ServerState::Candidate => MemberRole::Candidate,
                ServerState::Learner | ServerState::Shutdown => MemberRole::Learner,
            },
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: instance.state.position().borrow().log_id.map_or(0, |id| id.index),
            revision: state.revision(),
            database_size_bytes: state.backend().size_bytes() + instance.log.size_bytes(),
            alarms: if self.space.is_full() { vec![Alarm::NoSpace] } else { Vec::new() },
        })
    }

    /// Returns the command version that the quorum has agreed on, as far as this member has applied.
    #[must_use]
    pub fn command_version(&self) -> CommandVersion {
        let instance = self.instance.load();
        instance.as_ref().map_or(CommandVersion::FIRST, |instance| instance.state.current().command_version())
    }

    /// Returns the newest applied revision; zero while no state is open.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.instance.load().as_ref().map_or(Revision::ZERO, |instance| instance.state.current().revision())
    }
}

impl Instance {
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Installs a snapshot that the leader of `vote` has sent, unless the log already covers it.
    ///
    /// A follower whose log has the snapshot's last entry keeps its log and its state, and answers once that entry is
    /// on disk (the Raft paper, extended version, figure 13, step 6): it applies the entries when it learns that they
    /// are committed. openraft (0.10.0-alpha.37) would install the snapshot and lower the index that it counts as
    /// accepted from this leader, and its debug build panics on that. So this function first asks openraft to append
    /// no entries behind the snapshot's last one; success means that the log has that entry. If entries of this leader
    /// arrive over an older stream between the refusal and the installation, openraft still panics, and the supervisor
    /// restarts the instance.
    ///
    /// # Errors
    /// When Raft has ended.
    pub async fn receive_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<SnapshotResponse, Fatal> {
        let last = snapshot.meta.last_log_id;
        let nothing = AppendRequest { vote, prev_log_id: last, entries: Vec::new(), leader_commit: None };
        match self.raft.append_entries(nothing).await {
            Ok(AppendResponse::Conflict) => self.raft.install_full_snapshot(vote, snapshot).await,
            Ok(AppendResponse::Success | AppendResponse::PartialSuccess(_)) => {
                tracing::info!(?last, "the log has all that the snapshot holds; it is not installed");
                Ok(SnapshotResponse { vote })
            }
            Ok(AppendResponse::HigherVote(vote)) => Ok(SnapshotResponse { vote }),
            Err(RaftError::Fatal(fatal)) => Err(fatal),
        }
    }
}
