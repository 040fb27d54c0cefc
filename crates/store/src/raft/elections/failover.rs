//! Early election when the leader's process is known to be dead.
//!
//! When a process dies its connections close, and its address refuses new ones. A follower that sees this of its leader
//! need not wait for the lease that it granted: it starts an election at once, as in a transfer of leadership. At worst
//! this costs a needless election; safety does not depend on the lease, since reads confirm their leader with a quorum.
//!
//! The candidates do not start together. The one with the greatest id begins, and each other one follows `TURN` later. If
//! two of them meet in a term, the greater one has usually won by then: the lower one gives up and follows, because its
//! vote is lower. The other way round, the greater one would not follow the elected leader, and the term would be lost.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::membership::MemberId;
use crate::platform::tokio;
use crate::raft::network::client::{Lane, PeerClient};
use crate::raft::network::link::LinkState;
use crate::raft::node::Node;
use crate::raft::types::TransferRequest;

/// Delay between two candidates: long enough for an election with two fsyncs.
const TURN: Duration = Duration::from_millis(120);

/// Watches the connection to the current leader.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let mut leadership = node.leadership.subscribe();
    loop {
        let leader = leadership.borrow_and_update().leader.as_ref().map(|leader| leader.id);
        let peer = leader.filter(|leader| *leader != node.id()).and_then(|leader| node.peers.get(leader));
        let watching = async {
            match peer {
                Some(peer) => watch(&node, &peer).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = leadership.changed() => changed,
            () = watching => leadership.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Starts an election when the leader's process is gone; returns when the leader is no longer a peer.
async fn watch(node: &Node, leader: &PeerClient) {
    let mut link = leader.link(Lane::Control).state();
    loop {
        let is_dead = matches!(&*link.borrow_and_update(), LinkState::Down { refused: true, .. });
        if is_dead && node.leader() == Some(leader.peer.id) {
            elect_early(node, leader.peer.id).await;
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}

async fn elect_early(node: &Node, dead: MemberId) {
    let Ok(instance) = node.instance() else { return };
    let vote = instance.metrics().vote;
    let roster = node.roster();
    let turn = roster.voters.iter().rev().filter(|id| **id != dead).position(|id| *id == node.id());
    let Some(turn) = turn.and_then(|turn| u32::try_from(turn).ok()) else { return };
    tokio::time::sleep(TURN * turn).await;
    let is_still_leaderless = instance.metrics().vote == vote && node.leader() == Some(dead);
    if !is_still_leaderless {
        return;
    }
    tracing::info!(leader = dead, "the leader's process is gone; starting an election");
    let request = TransferRequest::new(vote, node.id(), None);
    match instance.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, "no early election"),
        Err(error) => tracing::info!(%error, "no early election"),
    }
}
