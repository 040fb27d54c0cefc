//! The description of a controller for the shell that runs it, and the list of all controllers.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use quorate_api::GroupVersionResource;

use crate::cache::{Cache, CachedKind, Change};
use crate::kinds::Kinds;
use crate::plan::{Failure, Plan};
use crate::{
    deployment, garbage, namespace, node, pod_gc, replicaset, resource_quota, root_authority, service, service_account,
};

/// Name of the object to reconcile, as a controller's work queue holds it.
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

/// Settings that an operator may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Time without a sign of life after which a node's conditions become Unknown.
    pub node_monitor_grace: Duration,
    /// Time that pods without a matching toleration stay bound to a node that is not ready. Admission adds tolerations
    /// with this time to each new pod, so the setting applies only to pods stored without them.
    pub eviction_after: Duration,
    /// Rate at which the failed nodes of a zone lose their pods.
    pub eviction_rate: EvictionRate,
    /// Minimum age of a pod bound to a missing node before the pod is removed.
    pub orphan_grace: Duration,
    /// Number of terminated pods in the cluster above which the oldest are deleted; zero keeps all.
    pub terminated_pods: usize,
    /// Number of failed pods of one ReplicaSet above which the oldest are deleted; zero keeps all. At least ten are kept,
    /// because they determine the backoff.
    pub failed_pods_per_replica_set: usize,
    /// Certificate authority that clients inside the cluster trust, as PEM. `None` publishes no authority.
    pub root_authority: Option<String>,
}

/// Limits on the eviction from failed nodes, for each zone (the node labels `topology.kubernetes.io/region` and
/// `topology.kubernetes.io/zone`). The names and defaults are those of Kubernetes' controller manager.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionRate {
    /// Number of nodes in a zone that may begin to lose their pods in each second.
    pub nodes_per_second: f64,
    /// The same rate for a large zone most of whose nodes have failed. In a small zone, such a failure stops eviction.
    pub secondary_nodes_per_second: f64,
    /// Fraction of a zone's nodes that must have failed (and at least three nodes) for the secondary rate to apply.
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
            terminated_pods: 12_500,
            failed_pods_per_replica_set: 20,
            root_authority: None,
        }
    }
}

/// Everything a plan is made from, besides the key.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub cache: &'a Cache,
    /// Wall clock of the executing process.
    pub now: Timestamp,
    /// Monotonic clock of the executing process, which also dates the cache's observations.
    pub uptime: Duration,
    pub kinds: &'a dyn Kinds,
    pub settings: &'a Settings,
    /// Failure of the last plan for this key, if it failed.
    pub failure: Option<&'a Failure>,
}

/// The resources that a controller writes, besides Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    Only(&'static [GroupVersionResource]),
    /// Objects of every kind.
    Anything,
}

impl Writes {
    #[must_use]
    pub fn contains(&self, resource: &GroupVersionResource) -> bool {
        match self {
            Writes::Only(resources) => resources.contains(resource),
            Writes::Anything => true,
        }
    }
}

/// A controller, as plain functions over the [`Cache`].
#[derive(Clone, Copy, Debug)]
pub struct Controller {
    pub name: &'static str,
    /// The kinds whose objects it reads from the cache. It may read the metadata of all others.
    pub reads: &'static [CachedKind],
    pub writes: Writes,
    /// Returns the keys to reconcile because of a change. It is called after the change is in the cache.
    pub triggers: fn(&Cache, &Change) -> Vec<WorkKey>,
    /// Returns every key that may need work. It is called when leadership is gained, and at each periodic resync.
    pub all_keys: fn(&Cache) -> Vec<WorkKey>,
    /// Plans the actions for one key.
    pub reconcile: for<'a> fn(Input<'a>, &WorkKey) -> Plan,
    /// Interval at which all keys are reconciled even though nothing changed.
    pub resync: Option<Duration>,
}

/// All controllers.
#[must_use]
pub fn controllers() -> &'static [Controller] {
    &[
        deployment::CONTROLLER,
        replicaset::CONTROLLER,
        replicaset::REPLICATION_CONTROLLER,
        node::CONTROLLER,
        pod_gc::CONTROLLER,
        pod_gc::terminated::CONTROLLER,
        service::endpoints::CONTROLLER,
        service::slices::CONTROLLER,
        garbage::CONTROLLER,
        namespace::CONTROLLER,
        service_account::CONTROLLER,
        root_authority::CONTROLLER,
        resource_quota::CONTROLLER,
    ]
}
