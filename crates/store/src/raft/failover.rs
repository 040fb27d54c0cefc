//! Not waiting for a leader that is known to be dead.
//!
//! When a process dies its connections close, and nobody listens at its address any more. A follower that sees this of
//! its leader need not wait for the lease that it granted: it elects at once, the way a leader's own hand-over makes
//! it. This costs a needless election at worst; safety never rests on the lease, since reads confirm their leader with
//! a quorum.
//!
//! Not everyone at once: the candidates go in the order of their ids, each a little later than the one before it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::network::client::{Lane, PeerClient};
use super::network::link::LinkState;
use super::node::Node;
use super::types::TransferRequest;
use crate::membership::MemberId;
use crate::platform::tokio;

/// Long enough for an election with two fsyncs.
const TURN: Duration = Duration::from_millis(120);

/// Watches one peer.
pub async fn run(node: Arc<Node>, peer: PeerClient, shutdown: CancellationToken) {
    let mut link = peer.link(Lane::Control).state();
    loop {
        let is_dead = matches!(&*link.borrow_and_update(), LinkState::Down { refused: true, .. });
        if is_dead
            && node.leader() == Some(peer.peer.id)
            && shutdown.run_until_cancelled(succeed(&node, peer.peer.id)).await.is_none()
        {
            return;
        }
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = link.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn succeed(node: &Node, dead: MemberId) {
    let Ok(instance) = node.instance() else { return };
    let vote = instance.metrics().vote;
    let mut candidates: Vec<MemberId> = node.settings.members.iter().map(|m| m.id).filter(|id| *id != dead).collect();
    candidates.sort_unstable();
    let Some(turn) = candidates.iter().position(|id| *id == node.id()).and_then(|turn| u32::try_from(turn).ok()) else {
        return;
    };
    tokio::time::sleep(TURN * turn).await;
    let is_still_leaderless = instance.metrics().vote == vote && node.leader() == Some(dead);
    if !is_still_leaderless {
        return;
    }
    tracing::info!(leader = dead, "the leader's process is gone; electing");
    let request = TransferRequest::new(vote, node.id(), None);
    match instance.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, "no early election"),
        Err(error) => tracing::info!(%error, "no early election"),
    }
}
