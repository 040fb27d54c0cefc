//! [`Node`]: what this member is while it runs, and the running Raft instance in it, if there is one.
//!
//! The instance may be torn down and opened again from disk (see [`super::supervisor`]) while everything else stays:
//! the listener, the connections, the queues and who waits in them.

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

use super::announced::Announced;
use super::batching::{BatchQueue, RoundQueue};
use super::commands::Decodable;
use super::config::{LogRetention, Timing};
use super::damage::DamageReport;
use super::leases::LeaseClock;
use super::log::LogStore;
use super::network::client::Peers;
use super::network::messages::{ReadIndexResponse, StatusFields};
use super::reads::Barrier;
use super::roster::Roster;
use super::space::Space;
use super::state::StateStore;
use super::told::Told;
use super::types::{AppendRequest, AppendResponse, Fatal, Metrics, Raft, Snapshot, SnapshotResponse, Vote};
use super::watching::Watching;
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

/// The parts of the configuration that stay.
pub struct Settings {
    /// This member as it was when its directory was made.
    pub member: Member,
    /// Who forms the quorum, if it is not formed yet.
    pub founders: Vec<Member>,
    pub cluster: u32,
    pub data_dir: PathBuf,
    pub retention: Duration,
    pub timing: Timing,
    pub log_retention: LogRetention,
    pub request_timeout: Duration,
    pub reserve_bytes: u64,
    pub integrity_interval: Duration,
    /// The newest commands that this member decodes.
    pub commands: CommandVersion,
}

/// Where work is handed in.
pub struct Queues {
    /// Commands for this member's own log, when it leads.
    pub lead: BatchQueue,
    /// Commands to be forwarded to who leads.
    pub forward: BatchQueue,
    /// Read indexes of this member, when it leads.
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
    /// When leases end, while this member leads.
    pub lease_clock: LeaseClock,
    pub announced: Arc<Announced>,
    pub space: Arc<Space>,
    /// Hears of damage of the state.
    pub damage: DamageReport,
    /// What this member decodes.
    pub decodable: Decodable,
    /// The highest version of commands that this member, as the leader, has proposed to its quorum.
    pub proposed_version: AtomicU32,
    roster: ArcSwap<Roster>,
    /// Held while the newest report is taken, so that no older one comes after it.
    taking_roster: parking_lot::Mutex<()>,
    /// Held by who changes the membership.
    pub changing: tokio::sync::Mutex<()>,
    /// Why this member is out of service.
    condemned: Told,
    /// Why this member is none any more, or can be none with this directory.
    removed: Told,
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
            taking_roster: parking_lot::Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            removed: Told::default(),
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
            condemned: Told::default(),
            instance: ArcSwapOption::empty(),
            tasks,
            serving: shutdown.child_token(),
            shutdown,
        }
    }

    /// The running instance.
    ///
    /// # Errors
    /// While it is opened, after the shutdown, or when this member is out of service.
    pub fn instance(&self) -> Result<Arc<Instance>, StoreError> {
        self.instance.load_full().ok_or_else(|| {
            if self.shutdown.is_cancelled() {
                StoreError::ShuttingDown
            } else if let Some(reason) = self.condemned.reason() {
                StoreError::Fatal(reason)
            } else {
                StoreError::NoLeader("this member is starting".to_owned())
            }
        })
    }

    /// Takes this member out of service for good.
    pub fn condemn(&self, reason: String) {
        self.condemned.tell(reason);
    }

    /// Returns when this member is out of service.
    pub async fn condemned(&self) {
        self.condemned.wait().await;
    }

    /// # Errors
    /// `Fatal` when this member is out of service.
    pub fn check_in_service(&self) -> Result<(), StoreError> {
        self.condemned.reason().map_or(Ok(()), |reason| Err(StoreError::Fatal(reason)))
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

    /// Who leads, and in which term.
    #[must_use]
    pub fn leader_and_term(&self) -> (Option<MemberId>, u64) {
        self.leadership.borrow().leader_and_term()
    }

    /// The membership as it is known here.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// Takes note of the membership that an instance reports.
    pub fn take_roster(&self, reported: impl FnOnce() -> Option<Roster>) {
        let _newest = self.taking_roster.lock();
        if let Some(roster) = reported() {
            self.set_roster(roster);
        }
    }

    /// Has a membership that is known before there are reports.
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

    /// This member, as all know it.
    #[must_use]
    pub fn own(&self) -> Member {
        self.member(self.id()).unwrap_or_else(|| self.settings.member.clone())
    }

    /// Ends this member: it is out of service, and says that its process is of no more use.
    pub fn remove(&self, reason: String) {
        self.condemn(reason.clone());
        self.removed.tell(reason);
    }

    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.is_told()
    }

    /// Returns the reason when this member is none any more.
    pub async fn removed(&self) -> String {
        self.removed.wait().await
    }

    /// This member as it sees itself.
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

    /// The version of commands that the quorum has agreed on, as far as this member knows.
    #[must_use]
    pub fn command_version(&self) -> CommandVersion {
        let instance = self.instance.load();
        instance.as_ref().map_or(CommandVersion::FIRST, |instance| instance.state.current().command_version())
    }

    /// The newest applied revision; zero while there is no state.
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

    /// Answers the leader of `vote`, who has sent a snapshot.
    ///
    /// A follower whose log has the snapshot's last entry keeps its log and its state, and answers once that entry is
    /// on disk (the Raft paper, extended version, figure 13, step 6): it applies the entries when it learns that they
    /// are committed. openraft (0.10.0-alpha.37) would install the snapshot, and set back what it counts as accepted
    /// from this leader, at which a debug build of it panics. So it is asked first to append nothing behind that entry.
    /// Should entries of this leader come between its refusal and the installation, over a stream that has lasted, it
    /// would panic still, and the instance start anew.
    ///
    /// # Errors
    /// When Raft has ended.
    pub async fn take_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<SnapshotResponse, Fatal> {
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
