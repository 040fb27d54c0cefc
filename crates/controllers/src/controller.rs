//! How a controller is described to the shell that runs it, and the list of all of them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::cache::{Cache, Change};
use crate::plan::{Failure, Plan};
use crate::{deployment, garbage, namespace, node, pod_gc, replicaset, service};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A node that gave no sign of life for this long is Unknown.
    pub node_monitor_grace: Duration,
    /// How long pods stay bound to a node that is not ready, unless they tolerate its taint for a time of their own.
    pub eviction_after: Duration,
    /// How long after its `deletionTimestamp` (which includes the grace period) a pod on an unreachable node is
    /// removed without the node's confirmation; `None` waits for the node or for its Node object to be deleted.
    pub force_delete_after: Option<Duration>,
    /// How old a pod must be that is bound to a node that does not exist, before it is removed.
    pub orphan_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            node_monitor_grace: Duration::from_secs(10),
            eviction_after: Duration::from_secs(10),
            force_delete_after: Some(Duration::from_secs(10)),
            orphan_grace: Duration::from_secs(20),
        }
    }
}

/// All that a plan is made from, besides the key.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub cache: &'a Cache,
    /// The executing process's wall clock.
    pub now: Timestamp,
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
    ]
}
