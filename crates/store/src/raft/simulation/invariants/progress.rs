//! When all faults are over, everything works again: writes and reads on every member, watches, the expiry of leases,
//! and every member has a vote.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_api::Revision;
use quorate_mvcc::{KeyRange, LeaseId, RangeRequest};

use crate::changes::INVITATION_TTL_SECONDS;
use crate::platform::tokio::time::sleep;
use crate::raft::simulation::clients::Client;
use crate::raft::simulation::cluster::Cluster;
use crate::raft::simulation::evidence::{Action, Answer, Evidence, Final, Watched};
use crate::raft::simulation::invariants::Invariant;

/// Time limit, which is far longer than recovery takes.
const PATIENCE: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until everything works. Anything that does not work within the time limit is a violation.
pub async fn settle(
    cluster: &Arc<Cluster>,
    evidence: &Arc<Evidence>,
    client: &mut Client,
    watchers: &[Arc<Mutex<Watched>>],
) {
    let deadline = evidence.elapsed() + PATIENCE;
    let mut newest = Revision::ZERO;
    for id in cluster.ids() {
        let mut n = 0;
        loop {
            n += 1;
            let put = Action::Put { key: "last".into(), value: format!("last.{id}.{n}").into(), lease: LeaseId::NONE };
            let written = client.call(id, put).await;
            let read = client.call(id, Action::Read { key: "last".into() }).await;
            if let (Answer::Done(reply), Answer::Read(_)) = (&written, &read) {
                newest = newest.max(reply.revision);
                break;
            }
            if evidence.elapsed() > deadline {
                let problem = format!("m{id} does not work again: {written:?}, {read:?}");
                return evidence.problem(Invariant::Progress, problem);
            }
            sleep(CHECK_INTERVAL).await;
        }
    }
    while let Some(waits_for) = unsettled(cluster, watchers, newest) {
        if evidence.elapsed() > deadline {
            return evidence.problem(Invariant::Progress, waits_for);
        }
        sleep(CHECK_INTERVAL).await;
    }
    let finals = cluster.ids().filter_map(|id| {
        let state = cluster.life(id)?.node.instance().ok()?.state.current();
        let (revision, hash) = state.hash_at(Revision::ZERO).expect("memory can be read");
        let keys = state.range(&RangeRequest::new(KeyRange::from(""))).expect("memory can be read").kvs;
        Some(Final { member: id, revision, hash, keys, leases: state.leases() })
    });
    evidence.finals.lock().extend(finals);
}

/// Returns something that has not recovered yet.
fn unsettled(cluster: &Cluster, watchers: &[Arc<Mutex<Watched>>], least: Revision) -> Option<String> {
    let mut newest = least;
    for id in cluster.ids() {
        let Some(life) = cluster.life(id) else { return Some(format!("m{id} has ended though nothing is wrong")) };
        let state = match life.node.instance() {
            Ok(instance) => instance.state.current(),
            Err(error) => return Some(format!("m{id} is out of service: {error}")),
        };
        let mut leases = state.leases();
        // An invitation whose leader was lost halfway leaves a lease of a day.
        leases.retain(|lease| lease.ttl_seconds < INVITATION_TTL_SECONDS);
        if !leases.is_empty() {
            return Some(format!("leases do not end: m{id} has {leases:?}"));
        }
        newest = newest.max(state.revision());
    }
    if !cluster.is_whole() {
        return Some("the voters are not the current members".to_owned());
    }
    for id in cluster.ids() {
        let revision = cluster.life(id).map(|life| life.store.revision());
        if revision != Some(newest) {
            return Some(format!("m{id} stays at {revision:?} of {newest}"));
        }
    }
    let behind = watchers.iter().map(|watched| watched.lock().clone()).find(|watched| watched.upto < newest)?;
    Some(format!("a watcher of m{} stays at {} of {newest}", behind.member, behind.upto))
}
