use std::time::Duration;

use serde_json::{Value, json};

use crate::simulation::{Cluster, render};

fn object(name: &str, owners: &[(&str, &Value)]) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(name, uid)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true})
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owners}})
}

fn add(cluster: &mut Cluster, name: &str, owners: &[(&str, &Value)]) -> Value {
    cluster.create(object(name, owners));
    cluster.settle();
    cluster.get(&path(name)).map_or(Value::Null, |object| object["metadata"]["uid"].clone())
}

fn path(name: &str) -> String {
    format!("configmaps/default/{name}")
}

fn owners_of(cluster: &Cluster, name: &str) -> Vec<String> {
    let object = cluster.get(&path(name)).expect("there");
    let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    owners.iter().map(|owner| owner["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn dependents_go_with_their_last_owner() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let b = add(&mut cluster, "b", &[]);
    let child = add(&mut cluster, "child", &[("a", &a), ("b", &b)]);
    add(&mut cluster, "grandchild", &[("child", &child)]);
    cluster.assert_at_rest();

    cluster.delete(&path("a"), Some("Background"));
    cluster.settle();
    assert_eq!(cluster.names("configmaps"), ["b", "child", "grandchild"]);
    assert_eq!(owners_of(&cluster, "child"), ["b"]);

    cluster.delete(&path("b"), Some("Background"));
    cluster.settle();
    assert!(cluster.names("configmaps").is_empty());
}

#[test]
fn an_owner_that_never_existed_counts_as_absent() {
    let mut cluster = Cluster::new();
    add(&mut cluster, "child", &[("a", &json!("no such uid"))]);
    assert!(cluster.names("configmaps").is_empty());
}

#[test]
fn an_owner_must_match_the_kind_namespace_and_name_of_the_reference() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let mut wrong_kind = object("wrong-kind", &[("a", &a)]);
    wrong_kind["metadata"]["ownerReferences"][0]["kind"] = json!("Secret");
    cluster.create(wrong_kind);
    let mut elsewhere = object("elsewhere", &[("a", &a)]);
    elsewhere["metadata"]["namespace"] = json!("other");
    cluster.create(elsewhere);
    // A cluster-scoped dependent cannot have a namespaced owner. Such a mistaken reference must not delete it.
    cluster.create(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv",
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": a}]}}));
    let wrong_name = object("wrong-name", &[("b", &a)]);
    cluster.create(wrong_name);
    cluster.settle();
    assert_eq!(cluster.names("configmaps"), ["a"]);
    assert_eq!(cluster.names("persistentvolumes"), ["pv"]);
}

#[test]
fn an_owner_in_another_namespace_causes_a_warning() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let mut elsewhere = object("elsewhere", &[("a", &a)]);
    elsewhere["metadata"]["namespace"] = json!("other");
    cluster.create(elsewhere);
    cluster.settle();
    let uid = a.as_str().expect("a uid");
    let warning = format!(
        "OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: other, name: a, uid: {uid}] does not exist in namespace \"other\""
    );
    assert_eq!(cluster.events, [warning]);

    // A namespaced object cannot own a cluster-scoped one, whether it exists or not.
    cluster.create(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv",
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "b", "uid": "nobody"}]}}));
    cluster.settle();
    assert_eq!(cluster.names("persistentvolumes"), ["pv"]);
    let warning = "OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: , name: b, uid: nobody] does not exist in namespace \"\"";
    assert_eq!(cluster.events.last().map(String::as_str), Some(warning));
}

#[test]
fn an_owner_of_an_unserved_kind_keeps_its_dependents() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "u"});
    let mut alone = object("alone", &[]);
    alone["metadata"]["ownerReferences"] = json!([widget]);
    cluster.create(alone);
    // The reference to the absent owner stays as well, because the object's other owner is not resolved yet.
    let mut mixed = object("mixed", &[("a", &a), ("ghost", &json!("nobody"))]);
    mixed["metadata"]["ownerReferences"].as_array_mut().expect("owners").push(widget);
    cluster.create(mixed);
    cluster.settle();
    assert_eq!(cluster.names("configmaps"), ["a", "alone", "mixed"]);
    assert_eq!(owners_of(&cluster, "mixed"), ["a", "ghost", "w"]);
    cluster.assert_at_rest();
}

#[test]
fn dependents_are_retried_until_their_owners_kind_is_served() {
    let mut cluster = Cluster::new();
    cluster.unserved.insert("Secret".to_owned());
    let mut child = object("child", &[("s", &json!("nobody"))]);
    child["metadata"]["ownerReferences"][0]["kind"] = json!("Secret");
    cluster.create(child);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(cluster.names("configmaps"), ["child"]);
    cluster.unserved.clear();
    cluster.advance(Duration::from_secs(31));
    assert!(cluster.names("configmaps").is_empty());
}

#[test]
fn an_owner_missing_from_the_cache_keeps_its_dependents() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    // The cache has seen the dependents but not the owner.
    cluster.create(object("child", &[("a", &a)]));
    cluster.create(object("shared", &[("a", &a), ("ghost", &json!("nobody"))]));
    let key = quorate_api::ObjectKey::parse("/registry/core/configmaps/default/a").expect("a key");
    cluster.cache.remove(&key);
    for (name, action) in [("child", "delete"), ("shared", "delete")] {
        let key = crate::controller::WorkKey::cluster(&format!("/registry/core/configmaps/default/{name}"));
        let plan = cluster.plan("garbage-collector", &key);
        assert!(render(&plan).starts_with(action), "{}", render(&plan));
        assert!(plan.actions.iter().all(|action| cluster.act(action).is_err()), "the owner is there");
    }
    assert_eq!(cluster.names("configmaps"), ["a", "child", "shared"]);
}

#[test]
fn foreground_deletion_waits_for_blocking_dependents() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let mut held = object("held", &[("a", &a)]);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create(held);
    add(&mut cluster, "free", &[("a", &a)]);
    cluster.delete(&path("a"), Some("Foreground"));
    cluster.settle();
    assert_eq!(cluster.names("configmaps"), ["a", "held"]);
    cluster.assert_at_rest();
    cluster.patch(&path("held"), &json!({"metadata": {"finalizers": null}}));
    cluster.settle();
    assert!(cluster.names("configmaps").is_empty());
}

#[test]
fn foreground_deletion_deletes_grandchildren() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let child = add(&mut cluster, "child", &[("a", &a)]);
    add(&mut cluster, "grandchild", &[("child", &child)]);
    cluster.delete(&path("a"), Some("Foreground"));
    cluster.settle();
    assert!(cluster.names("configmaps").is_empty());
}

#[test]
fn a_dependent_with_another_owner_outlives_a_foreground_deletion() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let b = add(&mut cluster, "b", &[]);
    add(&mut cluster, "shared", &[("a", &a), ("b", &b)]);
    cluster.delete(&path("a"), Some("Foreground"));
    cluster.settle();
    assert_eq!(cluster.names("configmaps"), ["b", "shared"]);
    assert_eq!(owners_of(&cluster, "shared"), ["b"]);
}

#[test]
fn orphaned_dependents_drop_their_owner_reference() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    add(&mut cluster, "child", &[("a", &a)]);
    cluster.delete(&path("a"), Some("Orphan"));
    cluster.settle();
    assert_eq!(cluster.names("configmaps"), ["child"]);
    assert!(owners_of(&cluster, "child").is_empty());
    cluster.assert_at_rest();
}

#[test]
fn deleting_a_deployment_deletes_its_sets_and_pods() {
    for propagation in ["Background", "Foreground"] {
        let mut cluster = Cluster::new();
        cluster.add_node("n1");
        cluster.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}}));
        cluster.run(&["n1"], 1, |_| {});
        assert_eq!(cluster.names("pods").len(), 3);
        cluster.delete("apps/deployments/default/web", Some(propagation));
        cluster.settle();
        assert_eq!(cluster.names("deployments").is_empty(), propagation == "Background");
        cluster.run(&["n1"], 2, |_| {});
        for kind in ["deployments", "replicasets", "pods"] {
            assert!(cluster.names(kind).is_empty(), "{propagation}: {:?}", cluster.names(kind));
        }
        cluster.assert_at_rest();
    }
}
