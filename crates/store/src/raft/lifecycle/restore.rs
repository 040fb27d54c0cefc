//! Restores a backup into the data directory of a member.
//!
//! Every member of the new quorum is restored from the same backup, with the same list of members. So all of them start
//! with the same state, applied up to the same entry of a log that none of them has, and elect a leader.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use openraft::Membership;
use openraft::storage::RaftLogStorage;
use quorate_mvcc::{Backend, Table, WriteBatch};
use rocksdb::Cache;
use tokio_util::sync::CancellationToken;

use super::closing::close_signal;
use super::damage::DamageReport;
use super::identity::{self, Origin, Owner};
use crate::backup::{self, Manifest};
use crate::error::StoreError;
use crate::membership::Member;
use crate::platform::{fs, tokio};
use crate::raft::log::{LogOptions, LogStore};
use crate::raft::state::backend::BackendContext;
use crate::raft::state::directory::StateDirectory;
use crate::raft::state::snapshot::SnapshotDir;
use crate::raft::state::{StateBackend, store};
use crate::raft::types::{LogId, StoredMembership, Vote};
use crate::raft::upkeep::space::Space;
use crate::raft::{codec, config};

const CACHE_BYTES: usize = 8 << 20;

/// Restores `member` into `data_dir`, which must not exist or be empty.
///
/// # Errors
/// When the directory is in use, the members are not a supported quorum, or the backup is not complete. A directory
/// that was partly restored is removed.
pub async fn restore(
    backup: impl Read + Send + 'static,
    data_dir: &Path,
    member: &Member,
    members: &[Member],
) -> Result<Manifest, StoreError> {
    config::check_members(member, members)?;
    let is_in_use = fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some());
    if is_in_use {
        return Err(StoreError::Fatal(format!(
            "{} is not empty; a backup is restored into a directory of its own",
            data_dir.display()
        )));
    }
    let restored = restore_into(backup, data_dir, member, members).await;
    if restored.is_err()
        && let Err(error) = fs::remove_dir_all(data_dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %data_dir.display(), %error, "cannot remove a partly restored directory");
    }
    restored
}

async fn restore_into(
    backup: impl Read + Send + 'static,
    data_dir: &Path,
    member: &Member,
    members: &[Member],
) -> Result<Manifest, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Fatal(format!("the backup cannot be restored: {error}"));
    let (dir, all) = (data_dir.to_owned(), members.to_vec());
    let unpacking = tokio::task::spawn_blocking(move || unpack_state(backup, &dir, &all));
    let (manifest, applied) = unpacking.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    if let Some(applied) = applied {
        // Elections must continue from the term of the state, since entries of an earlier term could not follow it.
        let vote = Vote::new(applied.leader_id.term, member.id);
        let (signal, closed) = close_signal();
        let space = Arc::new(Space::new(data_dir, 0, CancellationToken::new()));
        let mut log = LogStore::open(&data_dir.join("log"), LogOptions::default(), space, signal)
            .map_err(|error| failed(&error))?;
        log.save_vote(&vote).await.map_err(|error| failed(&error))?;
        drop(log);
        closed.wait(std::time::Duration::from_secs(10)).await;
    }
    let (nonce, origin) = (nonce(&manifest), Origin::Founder);
    let owner = Owner { cluster: identity::cluster_id(members) ^ nonce, member: restored(member, nonce), origin };
    // Written last: a directory without an owner counts as the rest of an interrupted restore.
    identity::write(data_dir, &owner)?;
    Ok(manifest)
}

/// Returns a number that distinguishes clusters with the same members: those restored from different backups, and those
/// that were never restored.
fn nonce(manifest: &Manifest) -> u32 {
    let encoded = codec::encode(manifest).unwrap_or_default();
    crc32fast::hash(&encoded) | 1
}

/// Returns a member as the new quorum knows it. Its incarnation is derived from the backup, because each member is
/// restored separately and must know the incarnations of all others.
fn restored(member: &Member, nonce: u32) -> Member {
    let incarnation = (u64::from(nonce) << 16) ^ member.id;
    Member { incarnation, ..member.clone() }
}

fn unpack_state(
    backup: impl Read,
    data_dir: &Path,
    members: &[Member],
) -> Result<(Manifest, Option<LogId>), Box<dyn std::error::Error + Send + Sync>> {
    fs::create_dir_all(data_dir)?;
    let staging = data_dir.join("restoring");
    let manifest = backup::unpack(backup, &staging)?;
    let (signal, _closed) = close_signal();
    let waits = CancellationToken::new();
    // A restore fails at once when there is no space, instead of waiting for it.
    waits.cancel();
    let context = BackendContext {
        cache: Cache::new_lru_cache(CACHE_BYTES),
        space: Arc::new(Space::new(data_dir, 0, CancellationToken::new())),
        damage: DamageReport::default().not_in_use(),
        closed: Arc::new(signal),
        waits,
    };
    let backend = StateBackend::open(&staging, &context)?;
    backend.verify()?;
    // Only the applied id is read: the old membership is replaced, and another version may have encoded it.
    let applied = store::read_applied(&backend)?;
    let voters = members.iter().map(|member| member.id).collect();
    let nonce = nonce(&manifest);
    let nodes: BTreeMap<_, _> = members.iter().map(|member| (member.id, restored(member, nonce))).collect();
    let membership = StoredMembership::new(applied, Membership::new(vec![voters], nodes)?);
    let mut batch = backend.batch();
    batch.put(Table::Meta, store::MEMBERSHIP, &codec::encode(&membership)?);
    backend.write(batch)?;
    backend.flush()?;
    drop(backend);
    let mut directory = StateDirectory::open(&data_dir.join("state"))?;
    directory.stage(&SnapshotDir::adopt(staging))?;
    directory.commit()?;
    Ok((manifest, applied))
}
