//! When a pod of a silent node has been stopped by its node's fence, so that it can be removed in the node's place.
//!
//! A fenced pod is stopped by its node once the node's last renewal of its Lease was sent longer ago than the fence
//! ([`quorate_api::fence`]). A renewal is sent before this process sees it, so the node stops the pod no later than
//! the fence after the last renewal that was seen. That no later renewal exists is a guard of the removal itself.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use quorate_api::{ObjectKey, Revision, fence};

use super::eviction::force_delete;
use crate::controller::Input;
use crate::plan::{Action, Guard};
use crate::resource::name;

/// The grace of a pod that names none, in seconds.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// A node that keeps the fences of its pods and is silent.
pub(super) struct Fence {
    lease: ObjectKey,
    /// The lease's last write that the cache has seen.
    lease_revision: Revision,
    /// Time since the node's last sign of life, by this process's monotonic clock.
    silent_for: Duration,
}

/// What the fence says about a pod.
pub(super) enum Fenced {
    /// It may still run for this long.
    In(Duration),
    /// It has been stopped, which this removal relies on.
    Stopped(Box<Action>),
}

impl Fence {
    /// `None` for a node whose agent does not say that it keeps fences.
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

    /// `None` for a pod without a fence.
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
