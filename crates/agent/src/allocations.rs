//! The resources that this node has given to its pods. The decision is pure (`plan::resize`); this is its ledger.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use quorate_scheduler::requests::PodRequests;
use quorate_scheduler::resources::Resources;
use tokio::sync::watch;

use crate::plan::{PendingResize, fit};

pub(crate) struct Allocations {
    allocatable: Resources,
    /// Requests by the pod's uid.
    pods: Mutex<BTreeMap<String, Resources>>,
    changes: watch::Sender<()>,
}

impl Allocations {
    pub(crate) fn new(allocatable: Resources) -> Self {
        Allocations { allocatable, pods: Mutex::default(), changes: watch::Sender::new(()) }
    }

    /// Returns notifications that pods may have released resources.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Notes the resources of a pod that was bound to this node.
    pub(crate) fn add(&self, uid: &str, pod: &Pod) {
        self.pods.lock().insert(uid.to_owned(), requests(pod));
    }

    pub(crate) fn remove(&self, uid: &str) {
        if self.pods.lock().remove(uid).is_some() {
            self.changes.send_replace(());
        }
    }

    /// Gives a pod the resources of its spec.
    ///
    /// # Errors
    /// When they do not fit on this node beside those of the other pods.
    pub(crate) fn resize(&self, uid: &str, pod: &Pod) -> Result<(), PendingResize> {
        let wanted = requests(pod);
        let mut pods = self.pods.lock();
        let mut others = Resources::default();
        pods.iter().filter(|(other, _)| *other != uid).for_each(|(_, resources)| others.add(resources));
        let own = pods.get(uid).cloned().unwrap_or_default();
        fit(&wanted, &own, &others, &self.allocatable)?;
        pods.insert(uid.to_owned(), wanted);
        drop(pods);
        self.changes.send_replace(());
        Ok(())
    }
}

/// Returns the requests of a pod. Validation keeps amounts that are not quantities out of the store.
fn requests(pod: &Pod) -> Resources {
    let parsed = pod.spec.as_ref().map(PodRequests::parse).transpose();
    match parsed {
        Ok(requests) => requests.unwrap_or_default().requested,
        Err(error) => {
            tracing::warn!(error = %error, "a pod's requests are not counted");
            Resources::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::PendingReason;

    fn pod(cpu: &str, memory: &str) -> Pod {
        let resources = json!({ "requests": { "cpu": cpu, "memory": memory } });
        serde_json::from_value(json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } }))
            .expect("a pod")
    }

    #[test]
    fn a_resize_fits_is_deferred_or_is_infeasible() {
        let ledger = Allocations::new(requests(&pod("2", "1Gi")));
        ledger.add("a", &pod("1", "512Mi"));
        ledger.add("b", &pod("500m", "256Mi"));
        let changes = ledger.changes();
        let refused = |cpu, memory| ledger.resize("a", &pod(cpu, memory)).expect_err("refused");
        let deferred = refused("1600m", "512Mi");
        assert_eq!(deferred.reason, PendingReason::Deferred);
        let message = "Node didn't have enough resource: cpu, requested: 1600, used: 500, capacity: 2000";
        assert_eq!(deferred.message, message);
        let infeasible = refused("1", "2Gi");
        assert_eq!(infeasible.reason, PendingReason::Infeasible);
        let message = "Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824";
        assert_eq!(infeasible.message, message);
        assert!(!changes.has_changed().expect("open"), "nothing was released");
        ledger.remove("b");
        assert!(changes.has_changed().expect("open"));
        ledger.resize("a", &pod("1600m", "512Mi")).expect("it fits now");
        ledger.add("c", &pod("3", "2Gi"));
        ledger.resize("a", &pod("1", "512Mi")).expect("less always fits");
        assert_eq!(
            ledger.resize("a", &pod("1100m", "512Mi")).expect_err("more does not").reason,
            PendingReason::Deferred
        );
    }
}
