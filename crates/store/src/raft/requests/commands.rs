//! The command version: which commands may enter the log, so that every member can apply them.
//!
//! Members may run different versions of Quorate while they are upgraded one after the other. A committed command that
//! a member cannot decode ends that member for good, and may end a majority. So a quorum agrees through its log on a
//! [`CommandVersion`]. The leader raises it once all members, voters and learners, report that they decode it. A
//! command that needs a newer version is refused before it is proposed; the leader also decodes forwarded commands and
//! refuses those. A member that is too old for the agreed version may not join; if it is a member already, it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use quorate_mvcc::{Command, CommandVersion};
use tokio_util::sync::CancellationToken;

use super::proposals;
use crate::error::StoreError;
use crate::platform::tokio;
use crate::raft::codec::{self, CodecError};
use crate::raft::lifecycle::first_reason::FirstReason;
use crate::raft::membership::roster::Roster;
use crate::raft::network::client::{CallError, Lane, PeerClient};
use crate::raft::network::messages;
use crate::raft::node::Node;
use crate::raft::state::store::StateStore;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The commands that this member can decode.
#[derive(Clone, Debug)]
pub struct Decodable {
    pub newest: CommandVersion,
    /// Why this program is too old for its quorum, once that is known.
    pub outdated: Arc<FirstReason>,
}

impl Default for Decodable {
    fn default() -> Self {
        Decodable { newest: CommandVersion::NEWEST, outdated: Arc::default() }
    }
}

impl Decodable {
    /// Checks that this program can apply the commands of the version that the quorum has agreed on.
    ///
    /// # Errors
    /// When the program is too old. The reason is also stored in [`Decodable::outdated`].
    pub fn check(&self, agreed: CommandVersion) -> Result<(), String> {
        if agreed <= self.newest {
            return Ok(());
        }
        let reason = format!(
            "the quorum has agreed on commands of version {agreed}, and this program knows them up to version {}: start \
             this member with the newer version of Quorate that it ran before, or that the other members run",
            self.newest
        );
        self.outdated.set(&reason);
        Err(reason)
    }
}

/// Decodes the command that `bytes` begin with, as a program that knows versions up to `newest`. Returns the command,
/// its version and its length in bytes.
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

/// Returns the version that the quorum has agreed on, as far as this member has applied.
fn agreed(node: &Node) -> Result<CommandVersion, StoreError> {
    Ok(node.instance()?.state.current().command_version())
}

/// Checks that the quorum has agreed on the version of a command that this member proposes.
///
/// # Errors
/// `Unsupported` when it has not. Commands newer than the first version also fail while no state is open.
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

/// Checks the commands that another member forwards. Returns `None` for an accepted command, and the reason for a
/// refused one.
///
/// # Errors
/// While no state is open.
pub fn check_forwarded(node: &Node, commands: &[Bytes]) -> Result<Vec<Option<String>>, StoreError> {
    let (name, newest, agreed) = (&node.settings.member.name, node.decodable.newest, agreed(node)?);
    let check = |bytes: &Bytes| match decode_prefix(bytes, newest) {
        Ok((_, _, used)) if used != bytes.len() => Some("more than one command in the place of one".to_owned()),
        // Only the leader asks all members what they decode, so only it may raise the version.
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

/// Checks that a joining member can decode the commands of the quorum, whose `state` was read linearizably.
///
/// # Errors
/// The reason to refuse it.
pub fn check_joiner(node: &Node, state: &StateStore, name: &str, newest: CommandVersion) -> Result<(), String> {
    // A proposed version may be committed before this member has applied it.
    let proposed = CommandVersion(node.proposed_version.load(Ordering::SeqCst));
    let agreed = state.current().command_version().max(proposed);
    if agreed <= newest {
        return Ok(());
    }
    Err(format!(
        "the quorum has agreed on commands of version {agreed}, and {name} knows them up to version {newest}: it needs a \
         newer version of Quorate"
    ))
}

/// The newest command version that a member decodes; `None` when it has not answered.
type Known = Option<CommandVersion>;

/// Asks a member for the newest command version that it decodes.
pub async fn ask(peer: &PeerClient) -> Known {
    match peer.call::<_, CommandVersion>(Lane::Control, messages::COMMANDS, &(), ASK_TIMEOUT).await {
        Ok(version) => Some(version),
        // A member from before command versions does not know this request.
        Err(CallError::Refused { reason, .. }) if reason.starts_with("404") => Some(CommandVersion::FIRST),
        Err(error) => {
            tracing::debug!(%error, "a member did not report its command version");
            None
        }
    }
}

/// Describes the members that keep the quorum from agreeing on `newest`; `None` when there are none.
fn describe_holdouts(members: &[(String, Known)], newest: CommandVersion) -> Option<String> {
    let holdouts = members.iter().filter_map(|(name, known)| match known {
        None => Some(format!("{name} has not reported its version")),
        Some(version) if *version < newest => Some(format!("{name} knows commands up to version {version}")),
        Some(_) => None,
    });
    let holdouts: Vec<_> = holdouts.collect();
    (!holdouts.is_empty()).then(|| holdouts.join(", "))
}

/// Raises the version while this member leads, and ends this member when the agreed version is too new for it.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let mut holdouts = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            reason = node.decodable.outdated.wait() => {
                // The directory is sound and not marked: a newer program can start from it.
                return node.remove(format!("{} is out of service: {reason}", node.own().name));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        match shutdown.run_until_cancelled(raise(&node, &mut holdouts)).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::info!(%error, "the command version was not raised; will retry"),
        }
    }
}

/// Raises the version while this member leads. `holdouts` describes the members that held it back before; a change is
/// logged once.
async fn raise(node: &Node, holdouts: &mut Option<String>) -> Result<(), StoreError> {
    let (term, leads) = {
        let leadership = node.leadership.borrow();
        (leadership.term, leadership.is_active_leader)
    };
    let newest = node.decodable.newest;
    if !leads || agreed(node)? >= newest {
        *holdouts = None;
        return Ok(());
    }
    // No member may join while the members are asked.
    let Ok(_alone) = node.changing.try_lock() else { return Ok(()) };
    let metrics = node.instance()?.raft.server_metrics();
    node.store_roster(|| Roster::reported(&metrics.borrow_watched()));
    let roster = node.roster();
    let others = roster.members.values().filter(|member| member.id != node.id());
    let asked = join_all(others.map(async |member| {
        let known = match node.peers.get(member.id) {
            Some(peer) => ask(&peer).await,
            None => None,
        };
        (member.name.clone(), known)
    }));
    let members = asked.await;
    let found = describe_holdouts(&members, newest);
    if *holdouts != found {
        if let Some(holdouts) = &found {
            let agreed = agreed(node)?.0;
            tracing::info!(agreed, newest = newest.0, holdouts, "the command version cannot rise yet");
        }
        *holdouts = found;
    }
    let Some(known) = members.into_iter().map(|(_, known)| known).collect::<Option<Vec<_>>>() else { return Ok(()) };
    let common = known.into_iter().fold(newest, CommandVersion::min);
    if common <= agreed(node)? {
        return Ok(());
    }
    node.proposed_version.fetch_max(common.0, Ordering::SeqCst);
    proposals::propose_as_leader(node, term, &Command::RaiseVersion { version: common }).await?;
    tracing::info!(version = common.0, "the quorum has agreed on a newer version of commands");
    Ok(())
}

/// A command of a future version, which the current program cannot decode.
#[cfg(test)]
pub mod future {
    use super::*;

    pub const VERSION: CommandVersion = CommandVersion(CommandVersion::NEWEST.0 + 1);
    /// First byte of a future command; no current command begins with it.
    pub const MARK: u8 = 250;

    /// Encodes `command` as a command of the future version.
    pub fn encode(command: &Command) -> Bytes {
        [&[MARK], &codec::encode(command).expect("it encodes")[..]].concat().into()
    }

    pub fn decode_prefix(bytes: &[u8]) -> Result<(Command, CommandVersion, usize), CodecError> {
        let (command, used) = codec::decode_prefix(&bytes[1..])?;
        Ok((command, VERSION, used + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_hold_back_the_version_are_named() {
        let member = |name: &str, known: Option<u32>| (name.to_owned(), known.map(CommandVersion));
        let newest = CommandVersion(3);
        assert_eq!(describe_holdouts(&[member("m2", Some(3)), member("m3", Some(4))], newest), None);
        let described = describe_holdouts(&[member("m2", Some(1)), member("m3", Some(3)), member("m4", None)], newest);
        let expected = "m2 knows commands up to version 1, m4 has not reported its version";
        assert_eq!(described.as_deref(), Some(expected));
    }
}
