//! Calculates the usage of quotas from the objects of their namespace: for a new or changed quota, and whenever objects
//! are deleted or pods end. Admission charges everything else in the transaction that writes the object. So the cache,
//! which is the cluster at one revision, gives the exact usage for the revision of the quota, and the write is refused if
//! admission has charged the quota since.

use std::time::Duration;

use quorate_api::ObjectKey;
use quorate_registry::quota::{self, Counted, Subject};

use crate::cache::{Cache, CachedKind, Change, Entry, Object};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::plan::{Action, Plan};
use crate::resource::{RESOURCE_QUOTAS, name, namespace, target, to_json};

/// Interval at which all quotas are calculated again. Pods that should be gone stop counting without an event, and a
/// master that did not know a new quota yet may not have charged it.
const RESYNC: Duration = Duration::from_secs(5 * 60);

pub(crate) const CONTROLLER: Controller = Controller {
    name: "resourcequota",
    reads: &[CachedKind::Pod, CachedKind::Service, CachedKind::PersistentVolumeClaim, CachedKind::ResourceQuota],
    writes: Writes::Only(&[RESOURCE_QUOTAS]),
    triggers,
    all_keys,
    reconcile,
    resync: Some(RESYNC),
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    let quotas = cache.resource_quotas().iter();
    quotas.map(|quota| WorkKey::namespaced(namespace(&quota.metadata), name(&quota.metadata))).collect()
}

fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    let Some(place) = change.key.namespace.as_deref() else { return Vec::new() };
    if let Some(Entry { object: Object::ResourceQuota(quota), .. }) = &change.new {
        let is_behind = quota::is_unmeasured(quota);
        return is_behind.then(|| WorkKey::namespaced(place, &change.key.name)).into_iter().collect();
    }
    let mut quotas = cache.resource_quotas().in_namespace(place).peekable();
    if quotas.peek().is_none() {
        return Vec::new();
    }
    let gives_back = match (&change.old, &change.new) {
        (Some(_), None) => true,
        (Some(old), Some(new)) => quota::may_change(counted(old), counted(new)),
        (None, _) => false,
    };
    let concerns = |hard: &str| quota::tracks(&change.key.group, &change.key.resource, hard);
    quotas
        .filter(|quota| {
            let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
            gives_back && hard.is_some_and(|hard| hard.keys().any(|hard| concerns(hard)))
        })
        .map(|quota| WorkKey::namespaced(place, name(&quota.metadata)))
        .collect()
}

fn reconcile(Input { cache, now, .. }: Input<'_>, key: &WorkKey) -> Plan {
    let place = key.namespace.as_deref().unwrap_or_default();
    let Some(quota) = cache.resource_quotas().get(place, &key.name) else { return Plan::default() };
    let objects = cache.in_namespace(place).map(|(key, entry)| subject(key, entry));
    let Some(status) = quota::recalculate(quota, objects, now) else { return Plan::default() };
    let mut measured = (**quota).clone();
    measured.status = Some(status);
    let update = Action::Update {
        target: target(RESOURCE_QUOTAS, &quota.metadata),
        subresource: Some("status"),
        object: to_json(&measured),
    };
    Plan { actions: vec![update], requeue_after: None }
}

fn subject<'a>(key: &'a ObjectKey, entry: &'a Entry) -> Subject<'a> {
    Subject { group: &key.group, resource: &key.resource, object: counted(entry) }
}

fn counted(entry: &Entry) -> Counted<'_> {
    match &entry.object {
        Object::Pod(pod) => Counted::Pod(pod),
        Object::Service(service) => Counted::Service(service),
        Object::PersistentVolumeClaim(claim) => Counted::Claim(claim),
        _ => Counted::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::simulation::Cluster;

    const QUOTA: &str = "resourcequotas/default/q";

    fn pod(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}})
    }

    fn limited(hard: Value) -> Cluster {
        let mut cluster = Cluster::new();
        cluster.settle();
        for name in ["a", "b"] {
            cluster.create(pod(name));
        }
        let metadata = json!({"name": "q", "namespace": "default"});
        cluster
            .create(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}));
        cluster.settle();
        cluster
    }

    fn used(cluster: &Cluster) -> Value {
        cluster.get(QUOTA).expect("the quota")["status"]["used"].clone()
    }

    #[test]
    fn usage_follows_what_is_deleted_and_what_ends() {
        let hard = json!({"pods": "5", "requests.cpu": "4", "count/configmaps": "9", "resourcequotas": "1"});
        let mut cluster = limited(hard.clone());
        let counts = |pods: &str, cpu: &str| json!({"pods": pods, "requests.cpu": cpu, "count/configmaps": "0", "resourcequotas": "1"});
        assert_eq!(used(&cluster), counts("2", "1"));
        assert_eq!(cluster.get(QUOTA).expect("the quota")["status"]["hard"], hard);
        cluster.assert_at_rest();
        cluster.patch_status("pods/default/a", &json!({"status": {"phase": "Succeeded"}}));
        cluster.settle();
        assert_eq!(used(&cluster), counts("1", "500m"));
        cluster.delete("pods/default/b", None);
        cluster.settle();
        assert_eq!(used(&cluster), counts("0", "0"));
    }

    #[test]
    fn a_changed_quota_is_calculated_at_once() {
        let mut cluster = limited(json!({"pods": "5"}));
        cluster.patch(QUOTA, &json!({"spec": {"hard": {"pods": "6", "count/pods": "7"}}}));
        cluster.settle();
        let status = cluster.get(QUOTA).expect("the quota")["status"].clone();
        assert_eq!(status, json!({"hard": {"pods": "6", "count/pods": "7"}, "used": {"pods": "2", "count/pods": "2"}}));
        // A user's change of the status does not last.
        cluster.patch_status(QUOTA, &json!({"status": {"hard": {"pods": "1"}}}));
        cluster.settle();
        assert_eq!(cluster.get(QUOTA).expect("the quota")["status"], status);
    }

    #[test]
    fn a_calculation_does_not_undo_what_admission_has_charged() {
        let mut cluster = limited(json!({"pods": "5"}));
        cluster.delete("pods/default/a", None);
        let plan = cluster.plan("resourcequota", &WorkKey::namespaced("default", "q"));
        let [action] = plan.actions.as_slice() else { panic!("less is used: {plan:?}") };
        // Admission writes another pod and its charge before the plan is carried out.
        cluster.create(pod("c"));
        cluster.patch_status(QUOTA, &json!({"status": {"used": {"pods": "3"}}}));
        assert!(cluster.act(action).is_err(), "the quota was charged meanwhile");
        cluster.settle();
        assert_eq!(used(&cluster), json!({"pods": "2"}));
    }
}
