//! Creates the ServiceAccount `default` in each namespace, and recreates it when it is deleted.

use quorate_api::ObjectKey;
use serde_json::json;

use crate::cache::{Cache, CachedKind, Change, Object};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::plan::{Action, Plan};
use crate::resource::{SERVICE_ACCOUNTS, name};

/// Name of the account of pods that name none.
const DEFAULT: &str = "default";

/// The work key is the name of a namespace.
pub(crate) const CONTROLLER: Controller = Controller {
    name: "serviceaccount",
    reads: &[CachedKind::Namespace],
    writes: Writes::Only(&[SERVICE_ACCOUNTS]),
    triggers,
    all_keys,
    reconcile,
    resync: None,
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    cache.namespaces().iter().map(|namespace| WorkKey::cluster(name(&namespace.metadata))).collect()
}

fn triggers(_: &Cache, change: &Change) -> Vec<WorkKey> {
    let is_lost_account = change.new.is_none() && is_default_account(&change.key);
    match (&change.new, &change.key.namespace) {
        (Some(entry), _) if matches!(entry.object, Object::Namespace(_)) => vec![WorkKey::cluster(&change.key.name)],
        (None, Some(namespace)) if is_lost_account => vec![WorkKey::cluster(namespace)],
        _ => Vec::new(),
    }
}

fn is_default_account(key: &ObjectKey) -> bool {
    key.group.is_empty() && key.resource == SERVICE_ACCOUNTS.resource && key.name == DEFAULT
}

fn reconcile(Input { cache, .. }: Input<'_>, WorkKey { name: namespace, .. }: &WorkKey) -> Plan {
    let exists = cache.namespaces().get("", namespace).is_some();
    let account = ObjectKey {
        group: String::new(),
        resource: SERVICE_ACCOUNTS.resource.to_string(),
        namespace: Some(namespace.clone()),
        name: DEFAULT.to_owned(),
    };
    if !exists || cache.is_namespace_terminating(namespace) || cache.get(&account).is_some() {
        return Plan::default();
    }
    let create = Action::Create {
        resource: SERVICE_ACCOUNTS,
        namespace: Some(namespace.clone()),
        object: json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": DEFAULT, "namespace": namespace}}),
    };
    Plan { actions: vec![create], requeue_after: None }
}

#[cfg(test)]
mod tests {
    use crate::simulation::Cluster;

    const DEFAULT: &str = "serviceaccounts/default/default";

    #[test]
    fn each_namespace_has_a_default_account_that_is_recreated() {
        let mut cluster = Cluster::new();
        cluster.settle();
        let first = cluster.get(DEFAULT).expect("made with its namespace");
        cluster.assert_at_rest();
        cluster.delete(DEFAULT, None);
        cluster.settle();
        let second = cluster.get(DEFAULT).expect("recreated");
        assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    }

    #[test]
    fn a_terminating_namespace_gets_no_account() {
        let mut cluster = Cluster::new();
        cluster.settle();
        cluster.patch("namespaces/default", &serde_json::json!({"metadata": {"finalizers": ["example.com/hold"]}}));
        cluster.delete("namespaces/default", None);
        cluster.settle();
        assert!(cluster.get(DEFAULT).is_none());
        assert_eq!(cluster.refusals, 0, "no creation was attempted");
    }
}
