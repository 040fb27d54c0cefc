//! Which commands may enter the log, so that every member can apply them.
//!
//! Members may be of different versions while they are upgraded one after the other. A committed command that some of them
//! cannot decode would end those for good, and perhaps a majority. So a quorum agrees through its log on a
//! [`CommandVersion`], which its leader raises once all members, voters and learners, say that they decode it; what needs
//! a newer one is refused before it is proposed, and once more by the leader, which decodes what others hand over. A member
//! that is too old for what its quorum has agreed on is not let in, or ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use quorate_mvcc::{Command, CommandVersion};
use tokio_util::sync::CancellationToken;

use super::codec::{self, CodecError};
use super::network::client::{CallError, Lane};
use super::network::messages;
use super::node::Node;
use super::proposals;
use super::roster::Roster;
use super::told::Told;
use crate::error::StoreError;
use crate::platform::tokio;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What this member can decode, and where it learns that this is not enough.
#[derive(Clone, Debug)]
pub struct Decodable {
    pub newest: CommandVersion,
    /// Why this program is too old for its quorum.
    pub outdated: Arc<Told>,
}

impl Default for Decodable {
    fn default() -> Self {
        Decodable { newest: CommandVersion::NEWEST, outdated: Arc::default() }
    }
}

impl Decodable {
    /// Checks that this program can apply what a quorum of this version commits.
    ///
    /// # Errors
    /// Why not, which is told too.
    pub fn check(&self, agreed: CommandVersion) -> Result<(), String> {
        if agreed <= self.newest {
            return Ok(());
        }
        let reason = format!(
            "the quorum has agreed on commands of version {agreed}, and this program knows them up to version {}: start \
             this member with the newer version of Quorate that it ran before, or that the other members run",
            self.newest
        );
        self.outdated.tell(&reason);
        Err(reason)
    }
}

/// Decodes the command that `bytes` begin with, as a program does that knows those up to `newest`. Returns the version
/// that it needs, and how many bytes it takes.
///
/// # Errors
/// When this program cannot decode it.
pub fn decode_prefix(bytes: &[u8], newest: CommandVersion) -> Result<(Command, CommandVersion, usize), CodecError> {
    #[cfg(test)]
    if newest >= future::VERSION && bytes.first() == Some(&future::MARK) {
        return future::decode_prefix(bytes);
    }
    let (command, used) = codec::decode_prefix::<Command>(bytes)?;
    let version = command.version();
    if version > newest { Err(CodecError::TooNew { version, newest }) } else { Ok((command, version, used)) }
}

/// The version that a quorum has agreed on, as this member has applied it.
fn agreed(node: &Node) -> Result<CommandVersion, StoreError> {
    Ok(node.instance()?.state.current().command_version())
}

/// Refuses a command of this member's own that the quorum has not agreed on yet.
///
/// # Errors
/// `Unsupported`; and while this member has no state, for what is not in every version.
pub fn check_own(node: &Node, version: CommandVersion) -> Result<(), StoreError> {
    if version <= CommandVersion::FIRST {
        return Ok(());
    }
    check_agreed(version, agreed(node)?).map_err(StoreError::Unsupported)
}

fn check_agreed(version: CommandVersion, agreed: CommandVersion) -> Result<(), String> {
    if version <= agreed {
        return Ok(());
    }
    Err(format!(
        "a command of version {version}, and the quorum has agreed on version {agreed}; that rises when all members run a \
         version of Quorate that knows it"
    ))
}

/// Decides which commands that another member hands over are taken: `None` for those, for the others why not.
///
/// # Errors
/// While this member has no state.
pub fn check_forwarded(node: &Node, commands: &[Bytes]) -> Result<Vec<Option<String>>, StoreError> {
    let (name, newest, agreed) = (&node.settings.member.name, node.decodable.newest, agreed(node)?);
    let check = |bytes: &Bytes| match decode_prefix(bytes, newest) {
        Ok((_, _, used)) if used != bytes.len() => Some("more than one command in the place of one".to_owned()),
        // What all members decode is for their leader alone to find out.
        Ok((Command::RaiseVersion { .. }, ..)) => {
            Some("the version of commands is raised by the leader alone".to_owned())
        }
        Ok((_, version, _)) => check_agreed(version, agreed).err(),
        Err(error) => Some(format!(
            "{name}, which leads, cannot decode a command, perhaps because it is of an older version of Quorate: {error}"
        )),
    };
    Ok(commands.iter().map(check).collect())
}

/// Refuses a joiner that cannot decode what the quorum commits.
///
/// # Errors
/// Why it is not let in.
pub fn check_joiner(node: &Node, name: &str, newest: CommandVersion) -> Result<Result<(), String>, StoreError> {
    // One that was proposed may be agreed on, although nobody here knows yet.
    let agreed = agreed(node)?.max(CommandVersion(node.proposed_version.load(Ordering::SeqCst)));
    if agreed <= newest {
        return Ok(Ok(()));
    }
    Ok(Err(format!(
        "the quorum has agreed on commands of version {agreed}, and {name} knows them up to version {newest}: it needs a \
         newer version of Quorate"
    )))
}

/// Raises the version while this member leads, and ends this member when that has become too high for it.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            reason = node.decodable.outdated.wait() => {
                // Its directory is sound: a newer program goes on with it.
                return node.remove(format!("{} is out of service: {reason}", node.own().name));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        match shutdown.run_until_cancelled(raise(&node)).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::info!(%error, "the version of commands was not raised; it is tried again"),
        }
    }
}

async fn raise(node: &Node) -> Result<(), StoreError> {
    let (term, leads) = {
        let leadership = node.leadership.borrow();
        (leadership.term, leadership.is_active_leader)
    };
    let newest = node.decodable.newest;
    if !leads || agreed(node)? >= newest {
        return Ok(());
    }
    // Nobody comes in while the members are asked.
    let Ok(_alone) = node.changing.try_lock() else { return Ok(()) };
    let metrics = node.instance()?.raft.server_metrics();
    node.take_roster(|| Roster::reported(&metrics.borrow_watched()));
    let others = node.roster().members.keys().copied().filter(|id| *id != node.id()).collect::<Vec<_>>();
    let asked = join_all(others.into_iter().map(async |id| {
        let peer = node.peers.get(id)?;
        match peer.call::<_, CommandVersion>(Lane::Control, messages::COMMANDS, &(), ASK_TIMEOUT).await {
            Ok(version) => Some(version),
            // A member from before there were versions does not know the question.
            Err(CallError::Refused { reason, .. }) if reason.starts_with("404") => Some(CommandVersion::FIRST),
            Err(error) => {
                tracing::debug!(%error, "a member does not say which commands it knows");
                None
            }
        }
    }));
    let Some(known) = asked.await.into_iter().collect::<Option<Vec<_>>>() else { return Ok(()) };
    let common = known.into_iter().fold(newest, CommandVersion::min);
    if common <= agreed(node)? {
        return Ok(());
    }
    node.proposed_version.fetch_max(common.0, Ordering::SeqCst);
    proposals::propose_as_leader(node, term, &Command::RaiseVersion { version: common }).await?;
    tracing::info!(version = common.0, "the quorum has agreed on a newer version of commands");
    Ok(())
}

/// A command of a version to come, which programs of today cannot decode.
#[cfg(test)]
pub mod future {
    use super::*;

    pub const VERSION: CommandVersion = CommandVersion(CommandVersion::NEWEST.0 + 1);
    /// No command of today begins with it.
    pub const MARK: u8 = 250;

    /// A command of the future, which does what `command` does.
    pub fn encode(command: &Command) -> Bytes {
        [&[MARK], &codec::encode(command).expect("it encodes")[..]].concat().into()
    }

    pub fn decode_prefix(bytes: &[u8]) -> Result<(Command, CommandVersion, usize), CodecError> {
        let (command, used) = codec::decode_prefix(&bytes[1..])?;
        Ok((command, VERSION, used + 1))
    }
}
