//! Comparison of the members' states.
//!
//! The members apply the same commands in the same order, so at equal revisions their states have equal hashes. The
//! leader collects the hashes on a schedule and sends them to all members. A member that differs from a majority cannot
//! know what else of its state is wrong: it transfers leadership, takes itself out of service, and stays out over
//! restarts.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorate_api::Revision;
use quorate_mvcc::ReadError;
use tokio_util::sync::CancellationToken;

use crate::error::StoreError;
use crate::membership::MemberId;
use crate::platform::tokio::time::Instant;
use crate::platform::{fs, tokio};
use crate::raft::network::client::{CallError, Lane, PeerClient};
use crate::raft::network::messages::{self, Comparison, HashRequest, HashResponse};
use crate::raft::node::Node;
use crate::raft::state::snapshot::sync_directory;

const MARK: &str = "out-of-service";
/// How long a member may take to apply the revision that is to be hashed.
const APPLY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a member may take to hash its state.
const HASH_DEADLINE: Duration = Duration::from_secs(120);
/// Ratio of rest to work while hashing, which is never urgent.
const REST: u32 = 4;

/// Checks that the directory is not marked as out of service.
///
/// # Errors
/// `Fatal` with the reason in the mark.
pub fn check_mark(data_dir: &Path) -> Result<(), StoreError> {
    match fs::read_to_string(mark(data_dir)) {
        Ok(reason) => Err(StoreError::Fatal(format!("{reason} ({})", mark(data_dir).display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::Fatal(format!("cannot read {}: {error}", mark(data_dir).display()))),
    }
}

fn mark(data_dir: &Path) -> PathBuf {
    data_dir.join(MARK)
}

fn set_mark(data_dir: &Path, reason: &str) -> io::Result<()> {
    let temporary = data_dir.join(".out-of-service.tmp");
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(reason.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, mark(data_dir))
    };
    let written = write();
    if written.is_err() {
        // On a full disk an empty mark is better than none.
        fs::File::create(mark(data_dir))?;
    }
    sync_directory(data_dir)?;
    written
}

/// Logs why this member is out of service, and marks its directory, so that it stays out over restarts.
pub fn note_out_of_service(node: &Node, reason: &str) {
    tracing::error!("{reason}");
    if let Err(error) = set_mark(&node.settings.data_dir, reason) {
        tracing::error!(%error, "the mark that keeps this member out of service cannot be written");
    }
}

/// Compares the members' states on a schedule while this member leads.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        let Some(()) = shutdown.run_until_cancelled(tokio::time::sleep(node.settings.integrity_interval)).await else {
            return;
        };
        if node.leadership.borrow().is_active_leader && shutdown.run_until_cancelled(compare(&node)).await.is_none() {
            return;
        }
    }
}

/// Compares the states of all members that can be reached, once.
pub async fn compare(node: &Arc<Node>) {
    let revision = node.revision();
    let own = async { (node.id(), own_hash(node, revision).await) };
    let others = node.peers.iter().map(async |peer| (peer.peer.id, ask(&peer, revision).await));
    let (own, others) = tokio::join!(own, futures::future::join_all(others));
    let hashes: BTreeMap<_, _> =
        others.into_iter().chain([own]).filter_map(|(member, hash)| Some((member, hash?))).collect();
    let comparison = Comparison { revision, hashes };
    let sending = node.peers.iter().map(async |peer| {
        let sent: Result<(), CallError> =
            peer.call(Lane::Control, messages::COMPARISON, &comparison, APPLY_DEADLINE).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "a member did not receive the comparison");
        }
    });
    futures::future::join_all(sending).await;
    judge(node, &comparison);
}

async fn ask(peer: &PeerClient, revision: Revision) -> Option<u64> {
    let deadline = APPLY_DEADLINE + HASH_DEADLINE;
    match peer.call(Lane::Control, messages::HASH, &HashRequest { revision }, deadline).await {
        Ok(HashResponse { hash }) => hash,
        Err(error) => {
            tracing::debug!(%error, "no hash");
            None
        }
    }
}

/// Waits until this member has applied `revision`, and hashes its state there; `None` when that fails.
pub async fn own_hash(node: &Node, revision: Revision) -> Option<u64> {
    let state = node.instance().ok()?.state.clone();
    let mut position = state.position();
    let applied = position.wait_for(|_| state.current().revision() >= revision);
    if !matches!(tokio::time::timeout(APPLY_DEADLINE, applied).await, Ok(Ok(_))) {
        return None;
    }
    let shutdown = node.shutdown.clone();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut began = Instant::now();
        state.current().hash_in_parts(revision, || {
            std::thread::sleep((began.elapsed() * REST).min(HASH_DEADLINE));
            began = Instant::now();
            !shutdown.is_cancelled()
        })
    });
    match hashing.await {
        Ok(Ok(hash)) => hash.map(|(_, hash)| hash),
        Ok(Err(ReadError::Refused(refused))) => {
            tracing::debug!(%refused, "no hash");
            None
        }
        // A state that cannot be read cannot be compared. Its readers meet the same error and handle it.
        Ok(Err(error @ ReadError::Backend(_))) => {
            tracing::error!(%error, "the state cannot be read");
            None
        }
        Err(error) => {
            tracing::error!(%error, "hashing failed");
            None
        }
    }
}

/// The result of a comparison for one member.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    /// This member differs from a majority.
    Differs,
    /// Other members differ from a majority.
    OthersDiffer(Vec<MemberId>),
    /// The members differ, and no majority agrees.
    Undecided,
}

fn verdict(me: MemberId, members: usize, hashes: &BTreeMap<MemberId, u64>) -> Verdict {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for hash in hashes.values() {
        *counts.entry(*hash).or_default() += 1;
    }
    if counts.len() <= 1 {
        return Verdict::Equal;
    }
    let Some((right, _)) = counts.into_iter().find(|(_, count)| *count > members / 2) else {
        return Verdict::Undecided;
    };
    match hashes.get(&me) {
        Some(hash) if *hash != right => Verdict::Differs,
        _ => Verdict::OthersDiffer(
            hashes.iter().filter(|(_, hash)| **hash != right).map(|(member, _)| *member).collect(),
        ),
    }
}

/// Acts on a comparison: takes this member out of service if it differs from a majority.
pub fn judge(node: &Node, comparison: &Comparison) {
    let Comparison { revision, hashes } = comparison;
    match verdict(node.id(), node.roster().members.len(), hashes) {
        Verdict::Equal => tracing::debug!(%revision, members = hashes.len(), "the members' states are equal"),
        Verdict::OthersDiffer(members) => tracing::error!(%revision, ?members, "members differ from the majority"),
        Verdict::Undecided => {
            tracing::error!(%revision, ?hashes, "members differ, and there is no majority to say which is right");
        }
        Verdict::Differs => {
            let reason = format!(
                "the state of {} differs from that of the majority at revision {revision}: it is out of service. Remove \
                 it from the quorum and let it join anew with an empty directory",
                node.own().name
            );
            note_out_of_service(node, &reason);
            node.take_out_of_service(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_differs_from_the_majority_is_wrong() {
        let hashes = |pairs: &[(MemberId, u64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        assert_eq!(verdict(1, 3, &hashes(&[(1, 7), (2, 7), (3, 7)])), Verdict::Equal);
        assert_eq!(verdict(1, 3, &hashes(&[(1, 7)])), Verdict::Equal);
        assert_eq!(verdict(1, 3, &hashes(&[])), Verdict::Equal);
        let one_differs = hashes(&[(1, 7), (2, 8), (3, 7)]);
        assert_eq!(verdict(1, 3, &one_differs), Verdict::OthersDiffer(vec![2]));
        assert_eq!(verdict(2, 3, &one_differs), Verdict::Differs);
        // Two of three are no majority when they disagree.
        assert_eq!(verdict(1, 3, &hashes(&[(1, 7), (2, 8)])), Verdict::Undecided);
        assert_eq!(verdict(1, 3, &hashes(&[(1, 7), (2, 8), (3, 9)])), Verdict::Undecided);
        assert_eq!(verdict(1, 5, &hashes(&[(1, 7), (2, 7), (3, 8)])), Verdict::Undecided);
        assert_eq!(verdict(3, 5, &hashes(&[(1, 7), (2, 7), (3, 8), (4, 7)])), Verdict::Differs);
        // A member without a hash of its own is not judged.
        assert_eq!(verdict(5, 5, &hashes(&[(1, 7), (2, 7), (3, 8), (4, 7)])), Verdict::OthersDiffer(vec![3]));
    }
}
