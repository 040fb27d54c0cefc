//! Handling of a full disk.
//!
//! A member keeps a reserve: a file of zeros that it truncates when a write finds no space. From then on the leader
//! refuses commands that need more space, so the space of the reserve is left to the writes that must continue: votes,
//! the log's own records, renewals of leases, deletions and compactions, and the flush of the state. The member accepts
//! all commands again when it can fill the reserve again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_mvcc::{Command, Op, Txn};
use tokio_util::sync::CancellationToken;

use crate::membership::{Intent, MemberRole};
use crate::platform::fs::{File, OpenOptions};
use crate::platform::tokio;
use crate::platform::tokio::sync::watch;
use crate::raft::network::client::Lane;
use crate::raft::network::messages::{self, StatusResponse};
use crate::raft::node::Node;

const RESERVE: &str = "reserve";
const CHUNK_BYTES: u64 = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// The reserve of disk space, and whether the disk is full.
#[derive(Debug)]
pub struct Space {
    reserve: PathBuf,
    reserve_bytes: u64,
    is_full: watch::Sender<bool>,
    /// Cancelled when this member shuts down; waits for space then end.
    shutdown: CancellationToken,
    /// Held while the reserve changes.
    changing: Mutex<()>,
    /// Number of writers that wait for space and need that of the reserve.
    waiters: AtomicUsize,
    /// Makes every check for space fail, as on a full disk.
    #[cfg(test)]
    pub pretend_full: std::sync::atomic::AtomicBool,
}

impl Space {
    /// Returns a `Space` whose reserve is empty until [`run`] fills it.
    #[must_use]
    pub fn new(data_dir: &Path, reserve_bytes: u64, shutdown: CancellationToken) -> Self {
        Space {
            reserve: data_dir.join(RESERVE),
            reserve_bytes,
            is_full: watch::Sender::new(false),
            shutdown,
            changing: Mutex::new(()),
            waiters: AtomicUsize::new(0),
            #[cfg(test)]
            pretend_full: std::sync::atomic::AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        *self.is_full.borrow()
    }

    /// Returns whether this member shuts down. Writes that find no space then fail at once, since acknowledged entries
    /// are in the log.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Fails when a test pretends that there is no space.
    ///
    /// # Errors
    /// `StorageFull`.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests pretend"))]
    pub fn check(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.pretend_full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Raises the alarm because a write found no space, and frees the reserve.
    pub fn report_full(&self, error: &dyn std::fmt::Display) {
        let _changing = self.changing.lock();
        let is_news = !self.is_full.send_replace(true);
        if is_news {
            tracing::error!(%error, "the disk is full; writes are refused until there is space");
        }
        if let Err(error) = self.release() {
            tracing::warn!(%error, "cannot free the reserve of disk space");
        }
    }

    fn release(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).open(&self.reserve) {
            Ok(file) if file.metadata()?.len() > 0 => {
                file.set_len(0)?;
                file.sync_all()
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps the reserve empty for a writer that waits for space, until the returned guard is dropped.
    pub fn register_waiter(&self) -> SpaceWaiter<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        SpaceWaiter(self)
    }

    /// Fills the reserve, and ends the alarm; false when there is no space, or a writer waits for the space.
    pub fn fill(&self) -> io::Result<bool> {
        let _changing = self.changing.lock();
        let is_filled = self.waiters.load(Ordering::Relaxed) == 0 && self.try_fill(self.reserve_bytes, true)?;
        if is_filled && self.is_full.send_replace(false) {
            tracing::info!("there is space on the disk again");
        }
        Ok(is_filled)
    }

    /// Returns whether the disk has space for `bytes`. Only for a [registered waiter](Space::register_waiter), since
    /// the probe uses the file of the reserve, which must be empty.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        let _changing = self.changing.lock();
        self.try_fill(bytes, false).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot check for disk space");
            false
        })
    }

    /// Fills the reserve up to `bytes`; false when there is no space. Empties it again on failure, or unless `keeps`.
    fn try_fill(&self, bytes: u64, keeps: bool) -> io::Result<bool> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.reserve)?;
        let filled = self.check().and_then(|()| fill_file(&mut file, bytes));
        if filled.is_err() || !keeps {
            file.set_len(0)?;
            file.sync_all()?;
        }
        match filled {
            Ok(()) => Ok(true),
            Err(error) if is_no_space(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn fill_file(file: &mut File, bytes: u64) -> io::Result<()> {
    let mut length = file.metadata()?.len();
    if length == bytes {
        return Ok(());
    }
    let zeros = vec![0; usize::try_from(CHUNK_BYTES).map_err(io::Error::other)?];
    while length < bytes {
        let chunk = CHUNK_BYTES.min(bytes - length);
        file.write_all(&zeros[..usize::try_from(chunk).map_err(io::Error::other)?])?;
        length += chunk;
    }
    file.set_len(bytes)?;
    file.sync_all()
}

/// The registration of a writer that waits for space.
pub struct SpaceWaiter<'a>(&'a Space);

impl Drop for SpaceWaiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether an error means that the disk or a quota is full.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Keeps the reserve filled, and ends the alarm when that succeeds. A leader without space transfers leadership.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        if shutdown.run_until_cancelled(maintain_reserve(&node)).await.is_none() {
            return;
        }
    }
}

async fn maintain_reserve(node: &Node) {
    let space = &node.space;
    let filling = space.clone();
    match tokio::task::spawn_blocking(move || filling.fill()).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            if !space.is_full.send_replace(true) {
                tracing::error!("the disk has no space for the reserve; writes are refused until there is space");
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "cannot keep a reserve of disk space"),
        Err(error) => tracing::warn!(%error, "cannot keep a reserve of disk space"),
    }
    if space.is_full() {
        transfer_leadership(node).await;
    } else {
        // An error is impossible: the sender is in `space`.
        drop(space.is_full.subscribe().wait_for(|is_full| *is_full).await);
    }
    tokio::time::sleep(LOOK_EVERY).await;
}

/// Starts the transfer of leadership to a follower that has space, if this member leads and there is such a follower.
async fn transfer_leadership(node: &Node) {
    if !node.leadership.borrow().is_active_leader {
        return;
    }
    let asked = node
        .peers
        .iter()
        .map(async |peer| peer.call::<_, StatusResponse>(Lane::Control, messages::STATUS, &(), STATUS_TIMEOUT).await);
    let answers = futures::future::join_all(asked).await.into_iter().filter_map(Result::ok);
    let fit = answers.map(|answer| answer.status).filter(|status| {
        status.alarms.is_empty() && status.role == MemberRole::Follower && status.member.intent == Intent::Voter
    });
    let Some(heir) = fit.max_by_key(|status| status.last_log_index) else { return };
    let Ok(instance) = node.instance() else { return };
    tracing::warn!(heir = heir.member.name, "the disk of this leader is full; transferring leadership");
    if let Err(error) = instance.raft.trigger().transfer_leader(heir.member.id).await {
        tracing::info!(%error, "leadership was not transferred");
    }
}

/// Returns whether a command is accepted while the disk is full, because it frees space or keeps a lease alive. Leases
/// expire on a full disk too, so their holders must be able to renew them. A renewal takes some bytes of the reserve;
/// when the reserve is used up the log waits, for renewals and expirations alike.
#[must_use]
pub fn is_allowed_when_full(command: &Command) -> bool {
    match command {
        Command::Compact { .. } | Command::LeaseRevoke { .. } | Command::LeaseKeepAlive { .. } => true,
        // Proposed only once per version.
        Command::RaiseVersion { .. } => true,
        Command::LeaseGrant { .. } => false,
        Command::Txn(txn) | Command::TracedTxn { txn, .. } => only_deletes(txn),
    }
}

fn only_deletes(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Range(_) | Op::Delete(_) => true,
        Op::Put(_) => false,
        Op::Txn(txn) => only_deletes(txn),
    })
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::{DeleteRequest, KeyRange, LeaseId, PutRequest};

    use super::*;

    #[test]
    fn the_reserve_is_freed_and_filled_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let space = Space::new(dir.path(), 3 * CHUNK_BYTES / 2, CancellationToken::new());
        let length = || std::fs::metadata(dir.path().join(RESERVE)).map_or(0, |metadata| metadata.len());
        assert!(space.fill().expect("writable") && length() == 3 * CHUNK_BYTES / 2);
        space.report_full(&"a test");
        assert!(space.is_full() && length() == 0);
        let waiter = space.register_waiter();
        assert!(!space.fill().expect("writable") && length() == 0 && space.is_full());
        assert!(space.has_room(1) && length() == 0 && space.is_full());
        drop(waiter);
        assert!(space.fill().expect("writable") && length() == 3 * CHUNK_BYTES / 2);
        assert!(!space.is_full());
    }

    #[test]
    fn a_full_disk_allows_only_commands_that_free_space_or_renew_a_lease() {
        let put = || Op::Put(PutRequest::default());
        let delete = || Op::Delete(DeleteRequest { range: KeyRange::key("k"), prev_kv: false });
        let txn = |success, failure| Command::Txn(Txn { success, failure, ..Txn::default() });
        let nested = |op| Op::Txn(Box::new(Txn { failure: vec![op], ..Txn::default() }));
        assert!(is_allowed_when_full(&txn(vec![delete()], vec![])));
        assert!(is_allowed_when_full(&txn(vec![nested(delete())], vec![delete()])));
        assert!(!is_allowed_when_full(&txn(vec![delete()], vec![put()])));
        assert!(!is_allowed_when_full(&txn(vec![nested(put())], vec![])));
        assert!(is_allowed_when_full(&Command::LeaseRevoke { id: LeaseId(1), generation: None }));
        assert!(!is_allowed_when_full(&Command::LeaseGrant { id: LeaseId(1), ttl_seconds: 1 }));
        assert!(is_allowed_when_full(&Command::LeaseKeepAlive { id: LeaseId(1) }));
    }
}
