//! Publishes the certificate authority of the API server in each namespace, as the ConfigMap `kube-root-ca.crt`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use quorate_api::ObjectKey;
use serde_json::json;

use crate::cache::{Cache, CachedKind, Change, Object, ROOT_AUTHORITY};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::plan::{Action, Plan};
use crate::resource::{CONFIG_MAPS, name, target, to_json};

/// Key of the bundle in the ConfigMap's data.
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// Text of the description annotation, as in Kubernetes.
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The work key is the name of a namespace.
pub(crate) const CONTROLLER: Controller = Controller {
    name: "root-ca-certificate-publisher",
    reads: &[CachedKind::Namespace, CachedKind::ConfigMap],
    writes: Writes::Only(&[CONFIG_MAPS]),
    triggers,
    all_keys,
    reconcile,
    resync: None,
};

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    cache.namespaces().iter().map(|namespace| WorkKey::cluster(name(&namespace.metadata))).collect()
}

fn triggers(_: &Cache, change: &Change) -> Vec<WorkKey> {
    let is_authority =
        change.key.group.is_empty() && change.key.resource == CONFIG_MAPS.resource && change.key.name == ROOT_AUTHORITY;
    match (&change.new, &change.key.namespace) {
        (Some(entry), _) if matches!(entry.object, Object::Namespace(_)) => vec![WorkKey::cluster(&change.key.name)],
        (_, Some(namespace)) if is_authority => vec![WorkKey::cluster(namespace)],
        _ => Vec::new(),
    }
}

fn reconcile(Input { cache, settings, .. }: Input<'_>, WorkKey { name: namespace, .. }: &WorkKey) -> Plan {
    let Some(bundle) = &settings.root_authority else { return Plan::default() };
    if cache.namespaces().get("", namespace).is_none() || cache.is_namespace_terminating(namespace) {
        return Plan::default();
    }
    let key = ObjectKey {
        group: String::new(),
        resource: CONFIG_MAPS.resource.to_string(),
        namespace: Some(namespace.clone()),
        name: ROOT_AUTHORITY.to_owned(),
    };
    let action = match cache.get(&key).map(|entry| &entry.object) {
        Some(Object::ConfigMap(map)) => repair(map, bundle),
        // The ConfigMap cannot be decoded, so its content is not overwritten.
        Some(_) => None,
        None => Some(create(namespace, bundle)),
    };
    Plan { actions: action.into_iter().collect(), requeue_after: None }
}

fn create(namespace: &str, bundle: &str) -> Action {
    Action::Create {
        resource: CONFIG_MAPS,
        namespace: Some(namespace.to_owned()),
        object: json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": ROOT_AUTHORITY, "namespace": namespace, "annotations": {DESCRIPTION: DESCRIPTION_TEXT}},
            "data": {FILE: bundle}}),
    }
}

fn repair(map: &ConfigMap, bundle: &str) -> Option<Action> {
    let data = BTreeMap::from([(FILE.to_owned(), bundle.to_owned())]);
    let description = map.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DESCRIPTION));
    let is_described = description.is_some_and(|text| !text.is_empty());
    if map.data.as_ref() == Some(&data) && is_described {
        return None;
    }
    let mut object = map.clone();
    object.data = Some(data);
    if !is_described {
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
    }
    Some(Action::Update { target: target(CONFIG_MAPS, &map.metadata), subresource: None, object: to_json(&object) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::simulation::Cluster;

    const PATH: &str = "configmaps/default/kube-root-ca.crt";

    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.settings.root_authority = Some("PEM".to_owned());
        cluster.settle();
        cluster
    }

    #[test]
    fn the_authority_is_published_and_foreign_changes_are_reverted() {
        let mut cluster = cluster();
        let published = cluster.get(PATH).expect("made with its namespace");
        assert_eq!(published["data"], json!({"ca.crt": "PEM"}));
        assert_eq!(published["metadata"]["annotations"][DESCRIPTION], DESCRIPTION_TEXT);
        cluster.assert_at_rest();

        cluster.patch(
            PATH,
            &json!({"data": {"ca.crt": "forged", "more": "x"},
            "metadata": {"annotations": {"mine": "stays", DESCRIPTION: null}}}),
        );
        cluster.settle();
        let repaired = cluster.get(PATH).expect("there");
        assert_eq!(repaired["data"], json!({"ca.crt": "PEM"}));
        assert_eq!(repaired["metadata"]["annotations"], json!({"mine": "stays", DESCRIPTION: DESCRIPTION_TEXT}));

        cluster.delete(PATH, None);
        cluster.settle();
        assert!(cluster.get(PATH).is_some());
        cluster.assert_at_rest();
    }

    #[test]
    fn the_next_leader_publishes_a_renewed_authority_in_every_namespace() {
        let mut cluster = cluster();
        cluster.settings.root_authority = Some("NEW".to_owned());
        for key in all_keys(&cluster.cache) {
            cluster.carry_out(CONTROLLER.name, &key);
        }
        assert_eq!(cluster.get(PATH).expect("there")["data"], json!({"ca.crt": "NEW"}));
    }
}
