//! Configuration of a member at start.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_mvcc::CommandVersion;
use quorate_pki::LiveIdentity;

use crate::error::StoreError;
use crate::membership::Member;

/// Supported sizes of a quorum. An even size tolerates no more failures than the odd one below it.
pub(super) const QUORUM_SIZES: [usize; 4] = [1, 3, 5, 7];

/// A PEM document, or the file that holds it.
#[derive(Clone, Debug)]
pub enum Pem {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// Certificates of the peer transport. Both ends present one, and accept only certificates that `ca` has signed.
#[derive(Clone, Debug)]
pub struct PeerTls {
    pub ca: Pem,
    /// Certificate and key of this member. They may be replaced while the transport uses them.
    pub identity: Arc<LiveIdentity>,
}

/// Where this member listens for its peers.
#[derive(Debug)]
pub enum PeerListen {
    Address(SocketAddr),
    /// A bound listener, so that no other process can take a free port between its choice and its use.
    Bound(TcpListener),
}

/// Times of the Raft protocol.
///
/// A follower that hears nothing from its leader starts an election after `election_max` (the lease that it grants its
/// leader) plus a random time between `election_min` and `election_max`. Followers notice the death of the leader's
/// process at once by its closed connections, so these times may be generous: they decide how long a *silent* leader
/// holds up the quorum, and for how long a healthy leader may be starved of CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(350),
            election_max: Duration::from_millis(600),
        }
    }
}

/// Size of the log that is kept for followers that are behind. A follower that needs older entries gets a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRetention {
    /// Size of the log after a purge.
    pub keep_bytes: u64,
    /// Growth of the log beyond `keep_bytes` that triggers the next purge.
    pub slack_bytes: u64,
}

impl Default for LogRetention {
    fn default() -> Self {
        LogRetention::keeping(256 << 20)
    }
}

impl LogRetention {
    /// Keeps `keep_bytes`, and purges the log when it has grown by half as much again.
    #[must_use]
    pub fn keeping(keep_bytes: u64) -> Self {
        LogRetention { keep_bytes, slack_bytes: keep_bytes / 2 }
    }
}

/// Configuration for [`super::start`].
#[derive(Debug)]
pub struct RaftConfig {
    /// This member. When its directory has an owner already, only the name is used: it must be the owner's.
    pub member: Member,
    /// The 1, 3, 5 or 7 voters that form the quorum, this one included; the same list on each. Ignored once the quorum
    /// is formed, and empty on a member that joined later.
    pub members: Vec<Member>,
    /// Addresses at which this member reaches others, by name, where they differ from those in the membership.
    pub peer_via: BTreeMap<String, String>,
    /// Data directory of this member, created if missing.
    pub data_dir: PathBuf,
    pub peer_listen: PeerListen,
    pub tls: PeerTls,
    /// How long old revisions stay readable and watchable.
    pub retention: Duration,
    pub timing: Timing,
    pub log_retention: LogRetention,
    /// How long a proposal or a linearizable read looks for a leader before it gives up.
    pub request_timeout: Duration,
    /// Disk space that is reserved for the writes that must continue when the disk is full.
    pub reserve_bytes: u64,
    /// How often the leader has the members compare their states.
    pub integrity_interval: Duration,
    /// The newest command version that this member decodes. Tests lower it to simulate older members.
    pub commands: CommandVersion,
}

impl RaftConfig {
    /// Returns a configuration with the defaults for all other fields.
    #[must_use]
    pub fn new(
        member: Member,
        members: Vec<Member>,
        data_dir: impl Into<PathBuf>,
        peer_listen: PeerListen,
        tls: PeerTls,
    ) -> Self {
        RaftConfig {
            member,
            members,
            peer_via: BTreeMap::new(),
            data_dir: data_dir.into(),
            peer_listen,
            tls,
            retention: Duration::from_secs(600),
            timing: Timing::default(),
            log_retention: LogRetention::default(),
            request_timeout: Duration::from_secs(5),
            reserve_bytes: 64 << 20,
            integrity_interval: Duration::from_secs(600),
            commands: CommandVersion::NEWEST,
        }
    }
}

/// Checks that a list of voters is a supported quorum and includes `member`.
pub(super) fn check_members(member: &Member, members: &[Member]) -> Result<(), StoreError> {
    let refuse = |reason: String| Err(StoreError::Fatal(reason));
    let size = members.len();
    if !QUORUM_SIZES.contains(&size) {
        let why = match size {
            0 => "there are no founders; a member that joins a quorum needs a token".to_owned(),
            _ if size.is_multiple_of(2) && size < 8 => format!(
                "an even quorum survives no more failures than one of {}, and a split into halves stops it",
                size - 1
            ),
            _ => "every further member makes each write slower; past seven that outweighs what it adds".to_owned(),
        };
        return refuse(format!("{size} masters are not supported, use 1, 3, 5 or 7: {why}"));
    }
    for (i, member) in members.iter().enumerate() {
        if member.id == 0 || member.name.is_empty() {
            return refuse(format!("master {} has no id or no name", i + 1));
        }
        for other in &members[i + 1..] {
            if member.id == other.id || member.name == other.name || (member.peer == other.peer) {
                return refuse(format!(
                    "masters {} and {} share their id, name or peer address",
                    member.name, other.name
                ));
            }
        }
    }
    if !members.iter().any(|m| m.id == member.id && m.name == member.name) {
        return refuse(format!("{} (id {}) is not in the list of masters", member.name, member.id));
    }
    Ok(())
}
