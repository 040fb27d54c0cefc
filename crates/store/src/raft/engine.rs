//! The Raft member behind a [`Store`](crate::Store).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quorate_api::Revision;
use quorate_mvcc::{Command, CommandVersion, KeyRange, LeaseId, ReadError, Reply};

use super::membership::{changing, invitations};
use super::network::client::{Lane, PeerClient};
use super::network::messages::{self, StatusFields, StatusResponse};
use super::node::Node;
use super::requests::{commands, proposals, reads};
use super::state::OpenState;
use super::state::store::StateError;
use super::upkeep::{compaction, leases};
use crate::backup::Backup;
use crate::changes::{Change, ChangeError, Changed};
use crate::error::StoreError;
use crate::handle::{Engine, StateHash};
use crate::membership::{Identity, Leadership, Member, MemberId, MemberRole, QuorumStatus};
use crate::platform::tokio;
use crate::platform::tokio::sync::watch;
use crate::reader::Reader;
use crate::traces::Traces;
use crate::watch::{Watch, WatchError, WatchOptions};

const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// This member as an engine.
pub struct RaftEngine {
    node: Arc<Node>,
}

impl RaftEngine {
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        RaftEngine { node }
    }
}

#[async_trait]
impl Engine for RaftEngine {
    async fn propose(&self, command: Command) -> Result<Reply, StoreError> {
        proposals::propose(&self.node, &command).await
    }

    fn traces(&self) -> &Arc<Traces> {
        &self.node.traces
    }

    async fn read_barrier(&self) -> Result<Reader, StoreError> {
        Ok(Arc::new(OpenState::of(&reads::barrier(&self.node).await?)))
    }

    fn local_reader(&self) -> Result<Reader, StoreError> {
        Ok(Arc::new(OpenState::of(&self.node.instance()?.state)))
    }

    fn revision(&self) -> Revision {
        self.node.revision()
    }

    fn command_version(&self) -> CommandVersion {
        self.node.command_version()
    }

    fn watch_with(&self, range: KeyRange, after: Revision, options: WatchOptions) -> Result<Watch, WatchError> {
        self.node.watching.watch(range, after, options)
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.node.leadership.subscribe()
    }

    async fn quorum_status(&self) -> Result<QuorumStatus, StoreError> {
        let own = self.node.status()?;
        let roster = self.node.roster();
        let asked = self.node.peers.iter().map(ask_status);
        let mut answers = futures::future::join_all(asked).await;
        answers.push((own, Some(self.node.decodable.newest)));
        let (leader, term) = {
            let leadership = self.node.leadership.borrow();
            (leadership.leader.as_ref().map(|leader| leader.name.clone()), leadership.term)
        };
        let newest = answers.iter().map(|(status, _)| status.last_log_index).max().unwrap_or(0);
        let head = answers.iter().find(|(status, _)| status.role == MemberRole::Leader);
        let head = head.map_or(newest, |(status, _)| status.last_log_index);
        answers.sort_by(|(a, _), (b, _)| a.member.name.cmp(&b.member.name));
        let members = answers
            .into_iter()
            .map(|(status, commands)| {
                let lag = head.saturating_sub(status.applied_index);
                let is_voter = roster.voters.contains(&status.member.id);
                status.into_status(lag, is_voter, commands)
            })
            .collect();
        let invited = invitations::list_local(&self.node)?.into_iter().map(|(_, invitation)| invitation.member);
        let command_version = self.command_version().0;
        Ok(QuorumStatus { leader, term, command_version, members, invited: invited.collect() })
    }

    async fn hash_at(&self, revision: Revision) -> Result<StateHash, StoreError> {
        let state = self.node.instance()?.state.current();
        let hashing = tokio::task::spawn_blocking(move || {
            let (revision, hash) = state.hash_at(revision)?;
            Ok(StateHash { revision, hash, compacted: state.compacted() })
        });
        let hashed: Result<StateHash, ReadError> =
            hashing.await.map_err(|error| StoreError::Fatal(error.to_string()))?;
        Ok(hashed?)
    }

    fn identity(&self) -> Identity {
        Identity { cluster: self.node.settings.cluster.into(), member: self.node.id() }
    }

    async fn lease_remaining(&self, id: LeaseId) -> Result<Option<Duration>, StoreError> {
        leases::remaining(&self.node, id).await
    }

    fn mark_watch_progress(&self, at_least: Revision) {
        self.node.watching.mark_progress(at_least);
    }

    async fn compaction_settled(&self) -> Result<(), StoreError> {
        compaction::settle(self.node.instance()?.state.current()).await
    }

    async fn backup(&self) -> Result<Backup, StoreError> {
        let (store, cluster) = (reads::barrier(&self.node).await?, self.node.settings.cluster);
        let copying = tokio::task::spawn_blocking(move || {
            let (revision, dir) = store.backup()?;
            Ok(Backup::new(cluster.into(), revision, dir)?)
        });
        let copied: Result<Backup, StateError> = copying.await.map_err(|error| StoreError::Fatal(error.to_string()))?;
        copied.map_err(|error| StoreError::Fatal(error.to_string()))
    }

    async fn transfer_leadership(&self, to: MemberId) -> Result<(), StoreError> {
        let transfer = self.node.instance()?.raft.trigger().transfer_leader(to).await;
        transfer.map_err(|error| StoreError::NoLeader(error.to_string()))
    }

    async fn change(&self, change: Change) -> Result<Changed, ChangeError> {
        changing::change(&self.node, change).await
    }

    async fn removed(&self) -> String {
        self.node.removed().await
    }

    async fn shutdown(&self) -> Result<(), StoreError> {
        self.node.shutdown.cancel();
        self.node.tasks.close();
        self.node.tasks.wait().await;
        Ok(())
    }
}

/// Asks a member for its status and for the newest command version that it decodes. These are two requests, because
/// members of other versions exchange the first one, so it cannot get another field.
async fn ask_status(peer: PeerClient) -> (StatusFields, Option<CommandVersion>) {
    let asked = peer.call::<_, StatusResponse>(Lane::Control, messages::STATUS, &(), STATUS_TIMEOUT);
    let (answer, commands) = futures::future::join(asked, commands::ask(&peer)).await;
    let status = match answer {
        // The peer may not have received the newest membership yet, so its record comes from here.
        Ok(answer) => StatusFields { member: Member::clone(&peer.peer), ..answer.status },
        Err(error) => {
            tracing::debug!(%error, "a member did not report its status");
            StatusFields {
                member: Member::clone(&peer.peer),
                role: MemberRole::Unreachable,
                term: 0,
                last_log_index: 0,
                applied_index: 0,
                revision: Revision::ZERO,
                database_size_bytes: 0,
                alarms: Vec::new(),
            }
        }
    };
    let commands = commands.filter(|_| status.role != MemberRole::Unreachable);
    (status, commands)
}
