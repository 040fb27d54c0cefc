//! What this member does when its disk is full.
//!
//! It keeps a reserve: a file of zeros that it gives up when a write finds no space. From then on the leader refuses
//! what would need more space, so the reserve is left to what must go on: votes, the log's own marks, renewals of leases,
//! deletions and compactions, and the flush of what was applied. When the reserve can be filled again, all is as before.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_mvcc::{Command, Op, Txn};
use tokio_util::sync::CancellationToken;

use super::network::client::Lane;
use super::network::messages::{self, StatusResponse};
use super::node::Node;
use crate::membership::{Intent, MemberRole};
use crate::platform::fs::{File, OpenOptions};
use crate::platform::tokio;
use crate::platform::tokio::sync::watch;

const RESERVE: &str = "reserve";
const CHUNK_BYTES: u64 = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether there is space, and the reserve.
#[derive(Debug)]
pub struct Space {
    reserve: PathBuf,
    reserve_bytes: u64,
    is_full: watch::Sender<bool>,
    /// When this is cancelled nobody waits for space any more.
    shutdown: CancellationToken,
    /// Held while the reserve changes.
    changing: Mutex<()>,
    /// So many wait until something can be written, and need the reserve for it.
    waiting: AtomicUsize,
    /// There is space, but not for us.
    #[cfg(test)]
    pub pretend_full: std::sync::atomic::AtomicBool,
}

impl Space {
    /// Nothing is reserved before [`run`] runs.
    #[must_use]
    pub fn new(data_dir: &Path, reserve_bytes: u64, shutdown: CancellationToken) -> Self {
        Space {
            reserve: data_dir.join(RESERVE),
            reserve_bytes,
            is_full: watch::Sender::new(false),
            shutdown,
            changing: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            #[cfg(test)]
            pretend_full: std::sync::atomic::AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        *self.is_full.borrow()
    }

    /// Whether this member ends: what finds no space from now on fails at once. What was acknowledged is in the log.
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

    /// Tells that a write found no space; gives up the reserve.
    pub fn exhausted(&self, error: &dyn std::fmt::Display) {
        let _changing = self.changing.lock();
        let is_news = !self.is_full.send_replace(true);
        if is_news {
            tracing::error!(%error, "the disk is full; writes are refused until there is space");
        }
        if let Err(error) = self.release() {
            tracing::warn!(%error, "cannot give up the reserve");
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

    /// Leaves the reserve to who waits until something can be written.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// Fills the reserve if it is not; false when there is no space for it, or somebody needs it.
    pub(super) fn fill(&self) -> io::Result<bool> {
        let _changing = self.changing.lock();
        let is_filled = self.waiting.load(Ordering::Relaxed) == 0 && self.try_fill(self.reserve_bytes, true)?;
        if is_filled && self.is_full.send_replace(false) {
            tracing::info!("there is space on the disk again");
        }
        Ok(is_filled)
    }

    /// Whether there is space for so many bytes. Only for who [waits](Space::wait): the reserve is empty then.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        let _changing = self.changing.lock();
        self.try_fill(bytes, false).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for disk space");
            false
        })
    }

    /// Whether the reserve can have so many bytes, and if so, gives it them or empties it.
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

/// Somebody waits for space.
pub struct Waiting<'a>(&'a Space);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an error says that there is no space.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Keeps the reserve, and ends the alarm when it can be filled again. A leader without space looks for another one.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        if shutdown.run_until_cancelled(look(&node)).await.is_none() {
            return;
        }
    }
}

async fn look(node: &Node) {
    let space = &node.space;
    let filling = space.clone();
    match tokio::task::spawn_blocking(move || filling.fill()).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            if !space.is_full.send_replace(true) {
                tracing::error!("the disk has no space for a reserve; writes are refused until it has");
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "cannot keep a reserve of disk space"),
        Err(error) => tracing::warn!(%error, "cannot keep a reserve of disk space"),
    }
    if space.is_full() {
        find_another_leader(node).await;
    } else {
        // The sender lives in `space`.
        drop(space.is_full.subscribe().wait_for(|is_full| *is_full).await);
    }
    tokio::time::sleep(LOOK_EVERY).await;
}

/// Begins to hand leadership to a follower that has space, if this member leads and there is one.
async fn find_another_leader(node: &Node) {
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
    tracing::warn!(heir = heir.member.name, "no space to lead with; leadership is handed over");
    if let Err(error) = instance.raft.trigger().transfer_leader(heir.member.id).await {
        tracing::info!(%error, "leadership is not handed over");
    }
}

/// Whether a command is taken when the disk is full: it leaves less than it found, or it keeps a lease alive. Leases end
/// on a full disk as on any other, so their holders must be able to renew them. A renewal takes some bytes of the
/// reserve; when that is gone too the log waits, for renewals and ends of leases alike.
#[must_use]
pub fn is_taken_when_full(command: &Command) -> bool {
    match command {
        Command::Compact { .. } | Command::LeaseRevoke { .. } | Command::LeaseKeepAlive { .. } => true,
        // Once in the life of a version.
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
    fn the_reserve_is_given_up_and_filled_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let space = Space::new(dir.path(), 3 * CHUNK_BYTES / 2, CancellationToken::new());
        let length = || std::fs::metadata(dir.path().join(RESERVE)).map_or(0, |metadata| metadata.len());
        assert!(space.fill().expect("writable") && length() == 3 * CHUNK_BYTES / 2);
        space.exhausted(&"a test");
        assert!(space.is_full() && length() == 0);
        let waiting = space.wait();
        assert!(!space.fill().expect("writable") && length() == 0 && space.is_full());
        assert!(space.has_room(1) && length() == 0 && space.is_full());
        drop(waiting);
        assert!(space.fill().expect("writable") && length() == 3 * CHUNK_BYTES / 2);
        assert!(!space.is_full());
    }

    #[test]
    fn only_what_frees_space_or_renews_a_lease_is_taken_on_a_full_disk() {
        let put = || Op::Put(PutRequest::default());
        let delete = || Op::Delete(DeleteRequest { range: KeyRange::key("k"), prev_kv: false });
        let txn = |success, failure| Command::Txn(Txn { success, failure, ..Txn::default() });
        let nested = |op| Op::Txn(Box::new(Txn { failure: vec![op], ..Txn::default() }));
        assert!(is_taken_when_full(&txn(vec![delete()], vec![])));
        assert!(is_taken_when_full(&txn(vec![nested(delete())], vec![delete()])));
        assert!(!is_taken_when_full(&txn(vec![delete()], vec![put()])));
        assert!(!is_taken_when_full(&txn(vec![nested(put())], vec![])));
        assert!(is_taken_when_full(&Command::LeaseRevoke { id: LeaseId(1), generation: None }));
        assert!(!is_taken_when_full(&Command::LeaseGrant { id: LeaseId(1), ttl_seconds: 1 }));
        assert!(is_taken_when_full(&Command::LeaseKeepAlive { id: LeaseId(1) }));
    }
}
