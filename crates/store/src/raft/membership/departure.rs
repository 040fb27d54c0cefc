//! Detection of this member's own removal.
//!
//! The other members stop talking to a removed member, so it has to ask them. A member that was removed, or that lost
//! its directory, marks the directory as out of service and never starts from it again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::platform::tokio;
use crate::raft::network::client::{CallError, Lane};
use crate::raft::network::messages::{self, HelloResponse};
use crate::raft::node::Node;
use crate::raft::upkeep::integrity;

const ASK_EVERY: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let asking = async {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            if !node.leadership.borrow().is_active_leader {
                ask(&node).await;
            }
        }
    };
    let reason = tokio::select! {
        () = shutdown.cancelled() => return,
        reason = node.peers.removed() => reason,
        () = asking => return,
    };
    let name = node.own().name;
    let reason = format!(
        "{name} is no member any more: {reason}. To bring it back, let it join anew with an empty directory (`qctl \
         quorum add`)"
    );
    integrity::note_out_of_service(&node, &reason);
    node.remove(reason);
}

/// Says hello to all peers. A peer that knows of the removal refuses, and the client then notes the removal.
async fn ask(node: &Node) {
    let asked = node.peers.iter().map(async |peer| {
        let answer: Result<HelloResponse, CallError> =
            peer.call(Lane::Control, messages::HELLO, &(), ASK_TIMEOUT).await;
        if let Err(error) = answer {
            tracing::trace!(%error, "a member did not answer hello");
        }
    });
    join_all(asked).await;
}
