//! Publishes the leader and the membership that an instance reports.

use std::sync::Arc;

use openraft::type_config::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use crate::membership::{Leadership, MemberId};
use crate::platform::tokio;
use crate::raft::membership::roster::Roster;
use crate::raft::network::client::Lane;
use crate::raft::node::{Instance, Node};
use crate::raft::types::{Metrics, ServerMetrics};

/// Follows an instance until it stops or `stop` fires.
pub async fn run(node: Arc<Node>, instance: Arc<Instance>, stop: CancellationToken) {
    // Server metrics only: the full metrics change with every entry.
    let mut metrics = instance.raft.server_metrics();
    let mut position = instance.state.position();
    loop {
        let applied_term = position.borrow_and_update().log_id.map(|id| id.leader_id.term);
        node.store_roster(|| Roster::reported(&metrics.borrow_watched()));
        let current = leadership(&node, &metrics.borrow_watched(), applied_term);
        let awaits_own_entry =
            current.leader.as_ref().is_some_and(|leader| leader.id == node.id()) && !current.is_active_leader;
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
            changed = position.changed(), if awaits_own_entry => changed.is_err(),
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

fn leadership(node: &Node, metrics: &ServerMetrics, applied_term: Option<u64>) -> Leadership {
    let term = metrics.vote.leader_id.term;
    let leader = metrics.current_leader.and_then(|id| node.member(id));
    let leads = metrics.state.is_leader() && metrics.current_leader == Some(node.id());
    Leadership {
        term,
        leader,
        // An entry of its own term is applied only after all entries that earlier leaders committed.
        is_active_leader: leads && applied_term == Some(term),
    }
}

/// Returns the best voter to transfer leadership to, if this member leads: one that is connected, is not leaving, and
/// has most of the log.
#[must_use]
pub fn heir(node: &Node, metrics: &Metrics) -> Option<MemberId> {
    if !metrics.state.is_leader() {
        return None;
    }
    let roster = node.roster();
    let stays = |id: MemberId| {
        let is_voter = roster.voters.contains(&id);
        is_voter && roster.members.get(&id).is_some_and(|member| !roster.is_to_go(member))
    };
    let answers = |id: MemberId| node.peers.get(id).is_some_and(|peer| peer.link(Lane::Control).is_up());
    let progress = metrics.replication.iter().flatten();
    let candidates = progress.filter_map(|(id, matched)| Some((*id, (*matched)?)));
    let (heir, _) = candidates.filter(|(id, _)| stays(*id) && answers(*id)).max_by_key(|(_, matched)| *matched)?;
    Some(heir)
}
