//! The scheduler's view: the nodes with their used resources, and the pods that wait.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_controllers::Change;
use quorate_controllers::cache::Object;
use quorate_scheduler::{Backoff, ClusterEvents, Cursor, Footprint, NodeSpec, PodInfo, PodKey, Queue, Snapshot};

/// `schedulerName` of the pods that this scheduler handles.
const DEFAULT_SCHEDULER: &str = "default-scheduler";

pub(crate) struct Scheduling {
    pub(crate) snapshot: Snapshot,
    pub(crate) queue: Queue,
    pub(crate) cursor: Cursor,
}

impl Scheduling {
    /// Creates an empty view. `seed` makes each process break ties differently.
    pub(crate) fn new(seed: u64) -> Scheduling {
        Scheduling {
            snapshot: Snapshot::new(),
            queue: Queue::new(Backoff::default()),
            cursor: Cursor { start: 0, seed },
        }
    }

    /// Applies a change of the store. Returns whether there may be new scheduling work.
    pub(crate) fn apply(&mut self, change: &Change, now: Duration) -> bool {
        let events = match (change.key.group.as_str(), change.key.resource.as_str()) {
            ("", "nodes") => self.apply_node(change),
            ("", "pods") => self.apply_pod(change),
            _ => return false,
        };
        self.queue.wake(events, now);
        self.queue.active() > 0 || !events.is_empty()
    }

    fn apply_node(&mut self, change: &Change) -> ClusterEvents {
        match change.new.as_ref().map(|entry| &entry.object) {
            Some(Object::Node(node)) => self.upsert_node(node),
            _ => {
                self.snapshot.remove_node(&change.key.name);
                ClusterEvents::NONE
            }
        }
    }

    fn upsert_node(&mut self, node: &Node) -> ClusterEvents {
        match NodeSpec::parse(node) {
            Ok(spec) => self.snapshot.upsert_node(spec),
            Err(error) => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                tracing::error!(node = name, %error, "no pod can be scheduled to the node, because it cannot be parsed");
                self.snapshot.remove_node(name);
                ClusterEvents::NONE
            }
        }
    }

    fn apply_pod(&mut self, change: &Change) -> ClusterEvents {
        let key = PodKey::new(change.key.namespace.as_deref().unwrap_or_default(), &change.key.name);
        match change.new.as_ref().map(|entry| &entry.object) {
            Some(Object::Pod(pod)) if !has_ended(pod) => match node_of(pod) {
                Some(node) => {
                    self.queue.remove(&key);
                    self.add_placed(key, pod, node)
                }
                None => self.add_waiting(key, pod),
            },
            _ => {
                self.queue.remove(&key);
                self.snapshot.remove_pod(&key)
            }
        }
    }

    fn add_placed(&mut self, key: PodKey, pod: &Pod, node: &str) -> ClusterEvents {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match Footprint::parse(pod) {
            Ok(footprint) => self.snapshot.add_pod(key, Arc::from(uid), node, footprint),
            Err(error) => {
                tracing::error!(pod = %key, %error, "the resources that the pod uses cannot be parsed");
                self.snapshot.remove_pod(&key)
            }
        }
    }

    fn add_waiting(&mut self, key: PodKey, pod: &Pod) -> ClusterEvents {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut events = ClusterEvents::NONE;
        if let Some(placed) = self.snapshot.pod(&key) {
            if placed.uid.as_ref() == uid && placed.assumed {
                // The pod's binding is in progress; this change is an older state or a status update.
                return events;
            }
            events = self.snapshot.remove_pod(&key);
        }
        let ours = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        if pod.metadata.deletion_timestamp.is_some() || ours.is_some_and(|name| name != DEFAULT_SCHEDULER) {
            self.queue.remove(&key);
            return events;
        }
        match PodInfo::parse(pod) {
            Ok(info) => self.queue.upsert(Arc::new(info)),
            Err(error) => {
                tracing::error!(pod = %key, %error, "the pod cannot be scheduled");
                self.queue.remove(&key);
            }
        }
        events
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}
