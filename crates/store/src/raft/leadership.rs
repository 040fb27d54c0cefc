//! Who leads, as this member knows it, told to whoever wants to know.

use std::sync::Arc;

use openraft::type_config::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use super::node::{Instance, Node};
use super::types::Metrics;
use crate::membership::Leadership;

/// Follows an instance until it stops or `stop` fires.
pub async fn run(node: Arc<Node>, instance: Arc<Instance>, stop: CancellationToken) {
    let mut metrics = instance.raft.metrics();
    let mut position = instance.state.position();
    loop {
        let current =
            leadership(&node, &metrics.borrow_watched(), position.borrow().log_id.map(|id| id.leader_id.term));
        node.leadership.send_if_modified(|known| {
            let is_news = *known != current;
            if is_news {
                tracing::info!(
                    term = current.term,
                    leader = current.leader.as_ref().map_or("none", |leader| &leader.name),
                    active = current.is_active_leader,
                    "leadership"
                );
                *known = current;
            }
            is_news
        });
        let ended = tokio::select! {
            () = stop.cancelled() => true,
            changed = metrics.changed() => changed.is_err(),
            changed = position.changed() => changed.is_err(),
        };
        if ended {
            break;
        }
    }
    node.leadership.send_modify(|known| {
        known.leader = None;
        known.is_active_leader = false;
    });
}

fn leadership(node: &Node, metrics: &Metrics, applied_term: Option<u64>) -> Leadership {
    let leader = metrics.current_leader.and_then(|id| node.member(id).cloned());
    let leads = metrics.state.is_leader() && metrics.current_leader == Some(node.id());
    Leadership {
        term: metrics.current_term,
        leader,
        // An entry of the own term is applied only after everything that an earlier leader has committed.
        is_active_leader: leads && applied_term == Some(metrics.current_term),
    }
}
