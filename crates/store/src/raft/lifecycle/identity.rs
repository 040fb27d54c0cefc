//! The owner of a data directory.
//!
//! A member that starts with another member's directory, or another cluster's, would vote with a log that is not its
//! own. So the directory names its owner, and a start under another name is refused.
//!
//! The directory also has a random number, its incarnation, which all members know. A member whose directory was wiped
//! has lost its votes and acknowledged entries; it comes back with another incarnation, and the others reject its
//! messages.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::membership::{Member, MemberId};
use crate::platform::{self, fs};
use crate::raft::config::check_members;

const FILE: &str = "identity";
const LOG: &str = "log";
/// Remedy for a directory that has lost data.
pub const REJOIN: &str = "remove this member from the quorum and let it join anew with an empty directory";

/// The owner of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub cluster: u32,
    /// The member as it was when the directory was created; its addresses may have changed since.
    pub member: Member,
    #[serde(default)]
    pub origin: Origin,
}

/// How the owner became a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// It was in the list of members that the quorum was founded or restored with.
    #[default]
    Founder,
    /// It has asked to join with this directory and has no answer yet.
    Joining,
    /// It joined a running quorum; lists of founders do not apply to it.
    Joined,
}

/// Reads the owner of `data_dir`, if it has one.
///
/// # Errors
/// When the file cannot be read, the log of the owner is missing, or there is data without an owner.
pub fn read(data_dir: &Path) -> Result<Option<Owner>, StoreError> {
    let (path, log) = (data_dir.join(FILE), data_dir.join(LOG));
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // An interrupted claim leaves an empty log directory.
            let is_empty = fs::read_dir(&log).map_or(true, |mut entries| entries.next().is_none());
            if !is_empty || exists(&data_dir.join("state"))? {
                return Err(StoreError::Fatal(format!("{} has data but no {FILE} file", data_dir.display())));
            }
            return Ok(None);
        }
        Err(error) => return Err(StoreError::Fatal(format!("cannot read {}: {error}", path.display()))),
    };
    let owner: Owner = serde_json::from_slice(&bytes).map_err(|error| {
        let advice = "a store of a version from before masters could join is taken over by a backup that is made there \
                      and restored here";
        StoreError::Fatal(format!("{} is unreadable ({error}); {advice}", path.display()))
    })?;
    if owner.origin != Origin::Joining && !exists(&log)? {
        return Err(StoreError::Fatal(format!(
            "{} is missing, and with it what {} has promised to the others: {REJOIN}",
            log.display(),
            owner.member.name,
        )));
    }
    Ok(Some(owner))
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    fs::exists(path).map_err(|error| StoreError::Fatal(format!("cannot look for {}: {error}", path.display())))
}

/// Locks `data_dir` for this process until the returned file is dropped.
///
/// # Errors
/// When another process has locked it.
pub fn lock(data_dir: &Path) -> Result<std::fs::File, StoreError> {
    let path = data_dir.join("lock");
    let failed = |error: &dyn std::fmt::Display| StoreError::Fatal(format!("cannot lock {}: {error}", path.display()));
    std::fs::create_dir_all(data_dir).map_err(|error| failed(&error))?;
    let file = std::fs::File::create(&path).map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(StoreError::Fatal(format!("{} is in use: its master runs", data_dir.display())))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// Checks that `data_dir` belongs to `member`. A directory without an owner is claimed for a founder of the cluster
/// that `founders` form.
///
/// # Errors
/// When it belongs to another member, its owner has not joined yet, or `founders` are not a supported quorum.
pub fn claim(data_dir: &Path, member: &Member, founders: &[Member]) -> Result<Owner, StoreError> {
    if let Some(owner) = read(data_dir)? {
        check_owner(data_dir, &owner, member, founders)?;
        return Ok(owner);
    }
    check_members(member, founders)?;
    let mut founder = member.clone();
    founder.incarnation = random_number();
    let owner = Owner { cluster: cluster_id(founders), member: founder, origin: Origin::Founder };
    write(data_dir, &owner)?;
    Ok(owner)
}

fn check_owner(data_dir: &Path, owner: &Owner, member: &Member, founders: &[Member]) -> Result<(), StoreError> {
    let Member { id, name, .. } = &owner.member;
    let is_about_it = owner.origin == Origin::Founder;
    let listed = founders.iter().find(|founder| is_about_it && founder.name == member.name);
    if *name != member.name || listed.is_some_and(|founder| founder.id != *id) {
        return Err(StoreError::Fatal(format!(
            "{} belongs to another member ({name}, id {id}), not to {} (id {})",
            data_dir.display(),
            member.name,
            listed.map_or(member.id, |founder| founder.id),
        )));
    }
    if owner.origin == Origin::Joining {
        return Err(StoreError::Fatal(format!("{name} has not joined the quorum yet; start it with its token")));
    }
    Ok(())
}

/// Writes `owner` as the owner of `data_dir`. Unless it is still joining, also creates its log directory; if that is
/// missing later, the log was lost.
///
/// # Errors
/// When the owner cannot be written.
pub fn write(data_dir: &Path, owner: &Owner) -> Result<(), StoreError> {
    let path = data_dir.join(FILE);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(data_dir)?;
        if owner.origin != Origin::Joining {
            fs::create_dir_all(data_dir.join(LOG))?;
        }
        let temporary = data_dir.join(".identity.tmp");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(owner)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(data_dir)?.sync_all()
    };
    write().map_err(|error| StoreError::Fatal(format!("cannot write {}: {error}", path.display())))
}

/// Returns the id of the cluster that `members` form; all members compute the same from the same list.
#[must_use]
pub fn cluster_id(members: &[Member]) -> u32 {
    let mut ids: Vec<MemberId> = members.iter().map(|m| m.id).collect();
    ids.sort_unstable();
    let mut hasher = crc32fast::Hasher::new();
    for id in ids {
        hasher.update(&id.to_be_bytes());
    }
    hasher.finalize()
}

/// Returns a random number that is unique in practice, and small enough to be exact in every JSON reader.
#[must_use]
pub fn random_number() -> u64 {
    (platform::random::<u64>() >> 11) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: MemberId) -> Member {
        Member { id, name: format!("m{id}"), peer: format!("host:{id}"), ..Member::default() }
    }

    #[test]
    fn a_directory_serves_one_member() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let members = [member(1), member(2), member(3)];
        let owner = claim(dir.path(), &members[0], &members).expect("a fresh directory");
        assert_ne!(owner.member.incarnation, 0);
        assert_eq!(claim(dir.path(), &members[0], &members).expect("its own directory again"), owner);
        assert_eq!(claim(dir.path(), &members[0], &[]).expect("the list was for founding"), owner);
        claim(dir.path(), &members[1], &members).expect_err("another member's directory");
        let other = Member { id: 7, ..member(1) };
        claim(dir.path(), &other, std::slice::from_ref(&other)).expect_err("another cluster's directory");
    }

    #[test]
    fn a_wiped_directory_is_another_incarnation() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("store");
        let before = claim(&path, &member(1), &[member(1)]).expect("a fresh directory");
        fs::remove_dir_all(&path).expect("wiped");
        let after = claim(&path, &member(1), &[member(1)]).expect("a fresh directory");
        assert_ne!(before.member.incarnation, after.member.incarnation);
    }

    #[test]
    fn a_directory_without_its_log_or_its_owner_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        claim(dir.path(), &member(1), &[member(1)]).expect("a fresh directory");
        fs::remove_dir_all(dir.path().join(LOG)).expect("removed");
        claim(dir.path(), &member(1), &[member(1)]).expect_err("where is the log?");
        read(dir.path()).expect_err("a read fails as well");
        fs::create_dir(dir.path().join(LOG)).expect("a directory");
        fs::write(dir.path().join(LOG).join("1"), "entries").expect("a segment");
        fs::remove_file(dir.path().join(FILE)).expect("removed");
        claim(dir.path(), &member(1), &[member(1)]).expect_err("whose log is this?");
        fs::write(dir.path().join(FILE), "member 1\ncluster 2\n").expect("a file of another version");
        let refused = claim(dir.path(), &member(1), &[member(1)]).expect_err("it cannot be read");
        assert!(refused.to_string().contains("restored here"), "{refused}");
    }

    #[test]
    fn an_interrupted_claim_can_be_repeated() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join(LOG)).expect("a directory");
        claim(dir.path(), &member(1), &[member(1)]).expect("it has no owner");
    }

    #[test]
    fn lists_of_founders_do_not_apply_to_members_that_joined() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let joined = Owner { cluster: 7, member: member(99), origin: Origin::Joined };
        write(dir.path(), &joined).expect("written");
        let same_name = Member { name: "m99".to_owned(), ..member(3) };
        assert_eq!(claim(dir.path(), &joined.member, &[member(1), member(2), same_name]).expect("its own"), joined);
        assert_eq!(claim(dir.path(), &joined.member, &[member(1)]).expect("a list without it"), joined);
    }

    #[test]
    fn only_one_process_can_lock_a_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kept = lock(dir.path()).expect("it is not locked");
        let refused = lock(dir.path()).expect_err("it is locked");
        assert!(refused.to_string().contains("is in use"), "{refused}");
        drop(kept);
        lock(dir.path()).expect("it was unlocked");
    }
}
