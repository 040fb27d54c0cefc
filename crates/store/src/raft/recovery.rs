//! Makes the one member that is left of a lost quorum a quorum of its own.
//!
//! What the member has in its log counts as committed: of that, it cannot know what the others had acknowledged. A new
//! membership of itself alone ends its log, and the cluster gets another number, so that none of the old quorum's members
//! is heard, or listens, should it come back.

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
use super::commands::Decodable;
use super::damage::DamageReport;
use super::identity::{self, Origin, Owner};
use super::integrity;
use super::log::{LogOptions, LogStore};
use super::space::Space;
use super::state::{StateOptions, StateStore};
use super::types::{Entry, LogId, Vote};
use super::watching::Watching;
use crate::error::StoreError;
use crate::hub::HubConfig;
use crate::membership::{Intent, Member};
use crate::platform;

const CACHE_BYTES: usize = 8 << 20;
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Entries that are looked through at a time.
const CHUNK: u64 = 1024;

/// A stopped member, looked at, and not changed yet.
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
    /// Looks at what is in `data_dir`.
    ///
    /// # Errors
    /// When it belongs to no member, runs, is damaged, or never was in a quorum.
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

    /// Who is left.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The other members of the quorum that is lost.
    #[must_use]
    pub fn given_up(&self) -> &[Member] {
        &self.given_up
    }

    /// The newest revision that is applied; the log may have more.
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

    /// Does it.
    ///
    /// # Errors
    /// When it cannot be written; it can be tried again.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Recovery { data_dir, owner, member, applied, last, vote, mut log, closed, _lock, .. } = self;
        // First the number: without the rest, this member reaches nobody, and can be recovered again.
        let cluster = owner.cluster ^ (platform::random::<u32>() | 1);
        identity::write(&data_dir, &Owner { cluster, member: member.clone(), origin: owner.origin })?;
        let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
        let vote = Vote::new(term, member.id);
        if applied == Some(last) {
            // The log may end before the state; it goes on behind it.
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
        // Written behind it, and waited for.
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
