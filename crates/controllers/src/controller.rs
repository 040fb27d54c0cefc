//! How a controller is described to the shell that runs it, and the list of all of them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::cache::{Cache, Change};
use crate::kinds::Kinds;
use crate::plan::{Failure, Plan};
use crate::{deployment, garbage, namespace, node, pod_gc, replicaset, root_authority, service, service_account};

/// What a controller's queue holds: the name of the object to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkKey {
    /// `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    pub name: String,
}

impl WorkKey {
    #[must_use]
    pub fn namespaced(namespace: &str, name: &str) -> Self {
        WorkKey { namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }

    #[must_use]
    pub fn cluster(name: &str) -> Self {
        WorkKey { namespace: None, name: name.to_owned() }
    }
}

impl fmt::Display for WorkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What an operator may tune.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// A node that gave no sign of life for this long is Unknown.
    pub node_monitor_grace: Duration,
    /// How long pods without a toleration of their own stay bound to a node that is not ready. Admission gives each
    /// new pod tolerations with this time, so this counts for pods from before only.
    pub eviction_after: Duration,
    /// How fast nodes of a zone lose their pods when they fail.
    pub eviction_rate: EvictionRate,
    /// How old a pod must be that is bound to a node that does not exist, before it is removed.
    pub orphan_grace: Duration,
    /// The authority that clients inside the cluster trust, PEM; none is published without it.
    pub root_authority: Option<String>,
}

/// Limits of the eviction from failed nodes, for each zone (the node labels `topology.kubernetes.io/region` and
/// `topology.kubernetes.io/zone`). The names and defaults are those of Kubernetes' controller manager.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionRate {
    /// Nodes of a zone that begin to lose their pods, in each second.
    pub nodes_per_second: f64,
    /// The same in a large zone most of whose nodes have failed. In a small one nobody is evicted then.
    pub secondary_nodes_per_second: f64,
    /// Part of a zone's nodes that must have failed, at least three, for the secondary rate to count.
    pub unhealthy_zone_threshold: f64,
    /// A zone with more nodes than this is large.
    pub large_zone_size: usize,
}

impl Default for EvictionRate {
    fn default() -> Self {
        EvictionRate {
            nodes_per_second: 0.1,
            secondary_nodes_per_second: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_zone_size: 50,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            node_monitor_grace: Duration::from_secs(10),
            eviction_after: Duration::from_secs(10),
            eviction_rate: EvictionRate::default(),
            orphan_grace: Duration::from_secs(20),
            root_authority: None,
        }
    }
}

/// All that a plan is made from, besides the key.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub cache: &'a Cache,
    /// The executing process's wall clock.
    pub now: Timestamp,
    /// The executing process's monotonic clock, which dates what the cache observed.
    pub uptime: Duration,
    pub kinds: &'a dyn Kinds,
    pub settings: &'a Settings,
    /// Why the last plan for this key failed, if it did.
    pub failure: Option<&'a Failure>,
}

/// One controller, as plain functions over the [`Cache`].
#[derive(Clone, Copy, Debug)]
pub struct Controller {
    pub name: &'static str,
    /// Which keys a change wakes; called after the change is in the cache.
    pub triggers: fn(&Cache, &Change) -> Vec<WorkKey>,
    /// Every key there is work for: on gaining leadership, and for the periodic resync.
    pub all_keys: fn(&Cache) -> Vec<WorkKey>,
    /// What to do about one key.
    pub reconcile: for<'a> fn(Input<'a>, &WorkKey) -> Plan,
    /// How often all keys are looked at again although nothing changed.
    pub resync: Option<Duration>,
}

/// All controllers.
#[must_use]
pub fn controllers() -> &'static [Controller] {
    &[
        deployment::CONTROLLER,
        replicaset::CONTROLLER,
        node::CONTROLLER,
        pod_gc::CONTROLLER,
        service::endpoints::CONTROLLER,
        service::slices::CONTROLLER,
        garbage::CONTROLLER,
        namespace::CONTROLLER,
        service_account::CONTROLLER,
        root_authority::CONTROLLER,
    ]
}
