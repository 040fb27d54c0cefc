use serde_json::{Value, json};

use crate::simulation::Cluster;

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
fn an_owner_that_never_was_counts_as_gone() {
    let mut cluster = Cluster::new();
    add(&mut cluster, "child", &[("a", &json!("no such uid"))]);
    assert!(cluster.names("configmaps").is_empty());
}

#[test]
fn the_owner_must_be_of_the_kind_and_namespace_that_the_reference_says() {
    let mut cluster = Cluster::new();
    let a = add(&mut cluster, "a", &[]);
    let mut wrong_kind = object("wrong-kind", &[("a", &a)]);
    wrong_kind["metadata"]["ownerReferences"][0]["kind"] = json!("Secret");
    cluster.create(wrong_kind);
    let mut elsewhere = object("elsewhere", &[("a", &a)]);
    elsewhere["metadata"]["namespace"] = json!("other");
    cluster.create(elsewhere);
    // A cluster-scoped dependent cannot have a namespaced owner; such a mistake must not cost it its life.
    cluster.create(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv",
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": a}]}}));
    cluster.settle();
    assert_eq!(cluster.names("configmaps"), ["a"]);
    assert_eq!(cluster.names("persistentvolumes"), ["pv"]);
}

#[test]
fn foreground_deletion_waits_for_what_blocks_it() {
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
fn foreground_deletion_reaches_through_generations() {
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
fn orphans_forget_their_owner() {
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
fn a_deployment_takes_its_sets_and_pods_with_it() {
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
