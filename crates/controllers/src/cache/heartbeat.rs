//! Time of each node's last sign of life, as this process saw it.
//!
//! A renewed Lease or a fresh node status counts from the moment this process sees it, by the process's monotonic
//! clock. The timestamps inside the objects are only compared with each other, to detect a change. A step of the wall
//! clock therefore neither makes a node silent nor ends a fence early.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::{Change, Entry, Object};

/// The namespace of the nodes' Leases.
const NODE_LEASES: &str = "kube-node-lease";

#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    since: Option<Duration>,
    seen: HashMap<String, Duration>,
}

impl Heartbeats {
    pub(super) fn begin(&mut self, at: Duration) {
        self.since = Some(at);
    }

    pub(super) fn last(&self, node: &str) -> Option<Duration> {
        self.seen.get(node).copied().max(self.since)
    }

    pub(super) fn observe(&mut self, change: &Change, at: Duration) {
        if is_sign_of_life(change) {
            self.seen.insert(change.key.name.clone(), at);
        }
    }

    pub(super) fn forget(&mut self, change: &Change) {
        if matches!(change.old, Some(Entry { object: Object::Node(_), .. })) {
            self.seen.remove(&change.key.name);
        }
    }
}

fn is_sign_of_life(change: &Change) -> bool {
    let old = change.old.as_ref().map(|entry| &entry.object);
    match (change.new.as_ref().map(|entry| &entry.object), old) {
        (Some(Object::Lease(new)), old) if change.key.namespace.as_deref() == Some(NODE_LEASES) => {
            let renewed = new.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
            match old {
                Some(Object::Lease(old)) => {
                    renewed.is_some() && renewed != old.spec.as_ref().and_then(|spec| spec.renew_time.as_ref())
                }
                _ => renewed.is_some(),
            }
        }
        (Some(Object::Node(new)), Some(Object::Node(old))) => {
            new.metadata.uid != old.metadata.uid || reported(new) > reported(old)
        }
        (Some(Object::Node(_)), _) => true,
        _ => false,
    }
}

/// Latest `lastHeartbeatTime` of the node's conditions, by the node's own clock. Unknown conditions are skipped,
/// because a master writes them on behalf of a silent node.
fn reported(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.iter().flatten().filter(|c| c.status != "Unknown");
    conditions.filter_map(|condition| Some(condition.last_heartbeat_time.as_ref()?.0)).max()
}
