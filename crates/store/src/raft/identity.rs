//! Who a data directory belongs to.
//!
//! A member that comes up with another member's directory, or another cluster's, would vote with a log that is not its
//! own. So the directory names its owner, and a start that disagrees is refused.

use std::io::Write;
use std::path::Path;

use crate::error::StoreError;
use crate::membership::{Member, MemberId};
use crate::platform::fs;

const FILE: &str = "identity";

/// Says of a directory that its cluster is not the one that its members once formed, but one restored from a backup.
const RESTORED: &str = "restored";

/// Takes `data_dir` for `member` of the cluster that `members` formed, or checks that it was taken for it before.
/// Returns the number of the cluster.
pub fn claim(data_dir: &Path, member: &Member, members: &[Member]) -> Result<u32, StoreError> {
    let failed = |what: &str, error: std::io::Error| {
        StoreError::Fatal(format!("cannot {what} {}: {error}", data_dir.join(FILE).display()))
    };
    fs::create_dir_all(data_dir).map_err(|error| failed("create the directory of", error))?;
    let cluster = cluster_id(members);
    let ours = render(member.id, cluster);
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(found) if found == ours => Ok(cluster),
        Ok(found) if let Some(restored) = restored_cluster(&found, member.id) => Ok(restored),
        Ok(found) => Err(StoreError::Fatal(format!(
            "{} belongs to another member ({}), not to {} ({})",
            data_dir.display(),
            found.trim().replace('\n', ", "),
            member.name,
            ours.trim().replace('\n', ", ")
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if has_data(data_dir) {
                return Err(StoreError::Fatal(format!("{} has data but no {FILE} file", data_dir.display())));
            }
            write(data_dir, &ours).map_err(|error| failed("write", error))?;
            Ok(cluster)
        }
        Err(error) => Err(failed("read", error)),
    }
}

/// Takes `data_dir` for a member of a restored cluster.
pub fn restored(data_dir: &Path, member: MemberId, cluster: u32) -> Result<(), StoreError> {
    let text = format!("{}{RESTORED}\n", render(member, cluster));
    let path = data_dir.join(FILE);
    write(data_dir, &text).map_err(|error| StoreError::Fatal(format!("cannot write {}: {error}", path.display())))
}

fn write(data_dir: &Path, text: &str) -> std::io::Result<()> {
    let temporary = data_dir.join(".identity.tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, data_dir.join(FILE))?;
    fs::File::open(data_dir)?.sync_all()
}

/// The cluster of a restored directory of this member.
fn restored_cluster(found: &str, member: MemberId) -> Option<u32> {
    let mut lines = found.lines();
    let (owner, cluster, mark) = (lines.next()?, lines.next()?, lines.next()?);
    let is_ours = owner == format!("member {member}") && mark == RESTORED && lines.next().is_none();
    u32::from_str_radix(cluster.strip_prefix("cluster ")?, 16).ok().filter(|_| is_ours)
}

/// A number that all members compute alike from the list that formed the cluster.
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

fn render(member: MemberId, cluster: u32) -> String {
    format!("member {member}\ncluster {cluster:08x}\n")
}

fn has_data(data_dir: &Path) -> bool {
    data_dir.join("log").exists() || data_dir.join("state").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: MemberId) -> Member {
        Member { id, name: format!("m{id}"), ..Member::default() }
    }

    #[test]
    fn a_directory_serves_one_member_of_one_cluster() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let members = [member(1), member(2), member(3)];
        claim(dir.path(), &members[0], &members).expect("a fresh directory");
        claim(dir.path(), &members[0], &members).expect("its own directory again");
        claim(dir.path(), &members[1], &members).expect_err("another member's directory");
        claim(dir.path(), &members[0], &members[..1]).expect_err("another cluster's directory");
    }

    #[test]
    fn data_without_an_owner_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("log")).expect("a directory");
        claim(dir.path(), &member(1), &[member(1)]).expect_err("whose log is this?");
    }
}
