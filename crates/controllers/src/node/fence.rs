//! The time at which a silent node's fence has stopped a pod, so that a master may remove the pod on behalf of the
//! node.
//!
//! A fenced pod is stopped by its node once the node's last renewal of its Lease was sent longer ago than the fence
//! ([`quorate_api::fence`]). A renewal is sent before this process sees it, so the node stops the pod no later than one
//! fence duration after the last renewal that was seen. The removal carries a guard which confirms that no later
//! renewal exists.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_api::{ObjectKey, Revision, fence};

use super::eviction::force_delete;
use crate::controller::Input;
use crate::plan::{Action, Guard};
use crate::resource::name;

/// Grace period of a pod that names none, in seconds.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// A silent node whose agent enforces the fences of its pods.
pub(super) struct Fence {
    lease: ObjectKey,
    /// Revision of the lease's last write that the cache has seen.
    lease_revision: Revision,
    /// Time since the node's last sign of life, by this process's monotonic clock.
    silent_for: Duration,
}

/// Verdict of the fence on a pod.
pub(super) enum Fenced {
    /// The pod may still run for this long.
    In(Duration),
    /// The pod has been stopped; the action removes it.
    Stopped(Box<Action>),
}

impl Fence {
    /// Returns `None` for a node without the label that says its agent enforces fences.
    pub(super) fn of(Input { cache, uptime, .. }: Input<'_>, node: &Node) -> Option<Self> {
        let labels = node.metadata.labels.as_ref()?;
        labels.get(fence::NODE_LABEL).filter(|value| *value == "true")?;
        let lease = ObjectKey {
            group: "coordination.k8s.io".to_owned(),
            resource: "leases".to_owned(),
            namespace: Some(fence::LEASE_NAMESPACE.to_owned()),
            name: name(&node.metadata).to_owned(),
        };
        let lease_revision = cache.get(&lease).map_or(Revision::ZERO, |entry| entry.meta.resource_version);
        let silent_for = uptime.saturating_sub(cache.last_heartbeat(&lease.name)?);
        Some(Fence { lease, lease_revision, silent_for })
    }

    /// Returns `None` for a pod without a fence.
    pub(super) fn verdict(&self, pod: &Pod) -> Option<Fenced> {
        let annotations = pod.metadata.annotations.as_ref()?;
        let after = fence::parse(annotations.get(fence::ANNOTATION)?).ok()??;
        let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let grace = Duration::from_secs(u64::try_from(grace.unwrap_or(DEFAULT_GRACE_SECONDS)).unwrap_or(1));
        let stopped_after = fence::removable_after(after, grace);
        if let Some(wait) = stopped_after.checked_sub(self.silent_for).filter(|wait| !wait.is_zero()) {
            return Some(Fenced::In(wait));
        }
        let mut removal = force_delete(pod);
        if let Action::Delete { guards, .. } = &mut removal {
            guards.push(Guard::Unchanged { key: self.lease.clone(), revision: self.lease_revision });
        }
        Some(Fenced::Stopped(Box::new(removal)))
    }
}
