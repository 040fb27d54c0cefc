//! Who a data directory belongs to.
//!
//! A member that comes up with another member's directory, or another cluster's, would vote with a log that is not its
//! own. So the directory names its owner, and a start that disagrees is refused.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::StoreError;
use crate::membership::{Member, MemberId};

const FILE: &str = "identity";

/// Takes `data_dir` for `member` of the cluster that `members` formed, or checks that it was taken for it before.
pub fn claim(data_dir: &Path, member: &Member, members: &[Member]) -> Result<(), StoreError> {
    let failed = |what: &str, error: std::io::Error| {
        StoreError::Fatal(format!("cannot {what} {}: {error}", data_dir.join(FILE).display()))
    };
    fs::create_dir_all(data_dir).map_err(|error| failed("create the directory of", error))?;
    let ours = render(member.id, cluster_id(members));
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(found) if found == ours => Ok(()),
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
            let temporary = data_dir.join(".identity.tmp");
            fs::File::create(&temporary)
                .and_then(|mut file| file.write_all(ours.as_bytes()).and_then(|()| file.sync_all()))
                .and_then(|()| fs::rename(&temporary, &path))
                .and_then(|()| fs::File::open(data_dir)?.sync_all())
                .map_err(|error| failed("write", error))
        }
        Err(error) => Err(failed("read", error)),
    }
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
