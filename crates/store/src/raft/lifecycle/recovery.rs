//! Recovery: turns the one remaining member of a lost quorum into a quorum of its own.
//!
//! All entries in the member's log count as committed, since it cannot know which of them the others had acknowledged.
//! A membership of itself alone is appended to its log. The cluster gets a new id, so that members of the old quorum
//! that come back can neither send messages to this one nor receive any from it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::entry::{EntryPayload, RaftEntry};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::vote::RaftLeaderId;
use openraft::{LogId as RaftLogId, Membership};
use quorate_api::Revision;
use rocksdb::Cache;
use tokio_util::sync::CancellationToken;

use super::closing::{Closed, close_signal};
use super::damage::DamageReport;
use super::identity::{self, Origin, Owner};
use crate::error::StoreError;
use crate::hub::HubConfig;
use crate::membership::{Intent, Member};
use crate::platform;
use crate::raft::log::{LogOptions, LogStore};
use crate::raft::requests::commands::Decodable;
use crate::raft::state::watching::Watching;
use crate::raft::state::{StateOptions, StateStore};
use crate::raft::types::{Entry, LogId, Vote};
use crate::raft::upkeep::integrity;
use crate::raft::upkeep::space::Space;

const CACHE_BYTES: usize = 8 << 20;
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Number of entries read at a time.
const CHUNK: u64 = 1024;

/// A stopped member that was read and is not changed yet.
pub struct Recovery {
    data_dir: PathBuf,
    owner: Owner,
    member: Member,
    given_up: Vec<Member>,
    revision: Revision,
    applied: Option<LogId>,
    last: LogId,
    vote: Option<Vote>,
    log: LogStore,
    closed: Closed,
    _lock: std::fs::File,
}

impl Recovery {
    /// Reads the member in `data_dir`.
    ///
    /// # Errors
    /// When the directory belongs to no member, its member is running, is damaged, or never was in a quorum.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        integrity::check_mark(data_dir)?;
        let owner = identity::read(data_dir)?.filter(|owner| owner.origin != Origin::Joining);
        let owner = owner.ok_or_else(|| StoreError::Fatal(format!("{} is no member's", data_dir.display())))?;
        let lock = identity::lock(data_dir)?;
        let space = Arc::new(Space::new(data_dir, 0, CancellationToken::new()));
        let (signal, state_closed) = close_signal();
        let (path, state_space) = (data_dir.join("state"), space.clone());
        let watching = Arc::new(Watching::new(HubConfig::default()));
        let options = StateOptions {
            cache: Cache::new_lru_cache(CACHE_BYTES),
            watching: watching.clone(),
            traces: Arc::default(),
            space: state_space,
            damage: DamageReport::default(),
            decodable: Decodable::default(),
        };
        let state = StateStore::open(&path, options, signal).map_err(|error| failed("open the state", &error))?;
        let (signal, closed) = close_signal();
        let log = LogStore::open(&data_dir.join("log"), LogOptions::default(), space, signal);
        let mut log = log.map_err(|error| failed("open the log", &error))?;
        let position = state.position().borrow().clone();
        if let Some(applied) = position.log_id {
            log.reconcile(applied).map_err(|error| failed("read the log", &error))?;
        }
        let revision = state.current().revision();
        watching.detach();
        drop(state);
        state_closed.wait(CLOSE_DEADLINE).await;

        let end = log.get_log_state().await.map_err(|error| failed("read the log", &error))?;
        let last = end.last_log_id.max(position.log_id);
        let last = last.ok_or_else(|| StoreError::Fatal("this member never was in a quorum".to_owned()))?;
        let next = position.log_id.map_or(0, |id| id.index + 1);
        let newest = last_membership(&mut log, next..last.index + 1).await?;
        let nodes: Vec<Member> = match newest {
            Some(membership) => membership.nodes().map(|(_, member)| member.clone()).collect(),
            None => position.membership.nodes().map(|(_, member)| member.clone()).collect(),
        };
        let (own, given_up): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|member| member.id == owner.member.id);
        let own = own.into_iter().next().unwrap_or_else(|| owner.member.clone());
        let member = Member { intent: Intent::Voter, incarnation: owner.member.incarnation, ..own };
        let vote = {
            let mut reader = log.get_log_reader().await;
            reader.read_vote().await.map_err(|error| failed("read the log", &error))?
        };
        let (data_dir, applied) = (data_dir.to_owned(), position.log_id);
        Ok(Recovery { data_dir, owner, member, given_up, revision, applied, last, vote, log, closed, _lock: lock })
    }

    /// Returns the remaining member.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Returns the other members of the lost quorum.
    #[must_use]
    pub fn given_up(&self) -> &[Member] {
        &self.given_up
    }

    /// Returns the newest applied revision; the log may have newer ones.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.last.index
    }

    #[must_use]
    pub fn last_term(&self) -> u64 {
        self.last.leader_id.term
    }

    /// Makes the member a quorum of its own.
    ///
    /// # Errors
    /// When the changes cannot be written; recovery can then be repeated.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Recovery { data_dir, owner, member, applied, last, vote, mut log, closed, _lock, .. } = self;
        // The cluster id is written first: if recovery stops here, the member reaches no other one and can be recovered
        // again.
        let cluster = owner.cluster ^ (platform::random::<u32>() | 1);
        identity::write(&data_dir, &Owner { cluster, member: member.clone(), origin: owner.origin })?;
        let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
        let vote = Vote::new(term, member.id);
        if applied == Some(last) {
            // The log may end before the state. The purge makes the log continue after the last applied entry.
            log.purge(last).await.map_err(|error| failed("write the log", &error))?;
        }
        log.save_vote(&vote).await.map_err(|error| failed("write the log", &error))?;
        let membership = Membership::new(
            vec![[member.id].into()],
            [(member.id, member.clone())].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        )
        .map_err(|error| failed("make the membership", &error))?;
        let id = RaftLogId::new(vote.leader_id.to_committed(), last.index + 1);
        let entry = Entry::new(id, EntryPayload::Membership(membership));
        log.append([entry], IOFlushed::noop()).await.map_err(|error| failed("write the log", &error))?;
        // The vote is written after the entry and is waited for, so the entry is durable as well.
        log.save_vote(&vote).await.map_err(|error| failed("write the log", &error))?;
        drop(log);
        closed.wait(CLOSE_DEADLINE).await;
        Ok(())
    }
}

async fn last_membership(
    log: &mut LogStore,
    range: std::ops::Range<u64>,
) -> Result<Option<Membership<u64, Member>>, StoreError> {
    let mut reader = log.get_log_reader().await;
    let mut newest = None;
    let mut from = range.start;
    while from < range.end {
        let upto = (from + CHUNK).min(range.end);
        let entries = reader.try_get_log_entries(from..upto).await.map_err(|error| failed("read the log", &error))?;
        for entry in entries {
            if let EntryPayload::Membership(membership) = entry.payload {
                newest = Some(membership);
            }
        }
        from = upto;
    }
    Ok(newest)
}

fn failed(what: &str, error: &dyn Display) -> StoreError {
    StoreError::Fatal(format!("cannot {what}: {error}"))
}
