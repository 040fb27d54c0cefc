//! Forms a new quorum.
//!
//! The founders tell each other the incarnations of their directories, and the founder with the lowest id writes these
//! into the membership that begins the log. So every voter's directory is known from the first entry on, and all
//! founders must be present at the founding. A founder that finds the quorum formed without its directory has lost the
//! directory that the quorum was formed with.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::errors::{InitializeError, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use crate::membership::{Member, MemberId};
use crate::platform::tokio;
use crate::raft::network::client::Lane;
use crate::raft::network::messages::{self, HelloResponse};
use crate::raft::node::{Instance, Node};

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_millis(20);
const ASK_EVERY_AT_MOST: Duration = Duration::from_millis(500);
/// How long to wait before the missing founders are logged.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn run(node: Arc<Node>, instance: Arc<Instance>, stop: CancellationToken) {
    stop.run_until_cancelled(form(&node, &instance)).await;
}

async fn form(node: &Node, instance: &Instance) {
    if node.settings.founders.is_empty() || !matches!(instance.raft.is_initialized().await, Ok(false)) {
        return;
    }
    let began = tokio::time::Instant::now();
    let (mut pause, mut complained) = (ASK_EVERY, false);
    loop {
        if instance.raft.metrics().borrow_watched().membership_config.voter_ids().next().is_some() {
            return;
        }
        let answers = ask_all(node).await;
        let formed = answers.iter().flatten().find_map(|answer| answer.knows_sender);
        match formed {
            // The quorum is formed; its leader will send the log.
            Some(true) => return,
            Some(false) => {
                let reason = "the quorum is formed already, and does not know this directory";
                return node.peers.note_removed(reason.to_owned());
            }
            None => {}
        }
        let awaited: Vec<_> = others(node).zip(&answers).filter(|(_, answer)| answer.is_none()).collect();
        if awaited.is_empty() && is_first(node) {
            return initialize(node, instance, &answers).await;
        }
        if !complained && began.elapsed() > PATIENCE && !awaited.is_empty() {
            let names: Vec<_> = awaited.into_iter().map(|(member, _)| &member.name).collect();
            tracing::warn!(?names, "the quorum forms when all founders are present; these are missing");
            complained = true;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_EVERY_AT_MOST);
    }
}

fn others(node: &Node) -> impl Iterator<Item = &Member> {
    node.settings.founders.iter().filter(|founder| founder.id != node.id())
}

fn is_first(node: &Node) -> bool {
    others(node).all(|founder| node.id() < founder.id)
}

/// Asks the other founders, and returns their answers in the order of [`others`]; `None` for a founder that does not
/// answer, or whose address is another member's.
async fn ask_all(node: &Node) -> Vec<Option<HelloResponse>> {
    join_all(others(node).map(async |founder| {
        let peer = node.peers.get(founder.id)?;
        match peer.call::<_, HelloResponse>(Lane::Control, messages::HELLO, &(), ASK_TIMEOUT).await {
            Ok(answer) if answer.id == founder.id || answer.knows_sender.is_some() => Some(answer),
            Ok(answer) => {
                tracing::warn!(founder = founder.name, id = answer.id, "another member listens at a founder's address");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "a founder does not answer yet");
                None
            }
        }
    }))
    .await
}

async fn initialize(node: &Node, instance: &Instance, answers: &[Option<HelloResponse>]) {
    let incarnation = |id: MemberId| {
        let answer = answers.iter().flatten().find(|answer| answer.id == id);
        answer.map_or(node.settings.member.incarnation, |answer| answer.incarnation)
    };
    let members: std::collections::BTreeMap<_, _> = node
        .settings
        .founders
        .iter()
        .map(|founder| (founder.id, Member { incarnation: incarnation(founder.id), ..founder.clone() }))
        .collect();
    // The requests of the first election must name these directories.
    node.peers.follow(members.values());
    match instance.raft.initialize(members).await {
        Ok(()) => tracing::info!("formed the cluster"),
        // The log was initialized before a restart.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(error) => tracing::error!(%error, "cannot form the cluster"),
    }
}
