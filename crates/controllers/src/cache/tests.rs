use serde_json::{Value, json};

use super::*;

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn key(path: &str) -> ObjectKey {
    ObjectKey::parse(&format!("/registry/{path}")).expect("a storage key")
}

fn put(cache: &mut Cache, path: &str, revision: u64, object: &Value) -> Change {
    let bytes = serde_json::to_vec(object).expect("JSON");
    cache.upsert(&key(path), &bytes, Revision(revision), at(0)).expect("decodes")
}

fn pod(name: &str, labels: Value, owner: Option<&str>, node: Option<&str>) -> Value {
    let owners = owner.map(
        |uid| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": uid, "controller": true}]),
    );
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"),
        "labels": labels, "ownerReferences": owners}, "spec": {"nodeName": node, "containers": []}})
}

fn names<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Vec<&'a str> {
    pods.into_iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

#[test]
fn indexes_follow_an_object_through_its_life() {
    let mut cache = Cache::new();
    put(&mut cache, "core/pods/a/p1", 2, &pod("p1", json!({"app": "web", "tier": "x"}), Some("rs1"), Some("n1")));
    put(&mut cache, "core/pods/a/p2", 3, &pod("p2", json!({"app": "web"}), None, Some("n1")));
    let web = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let both = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "x".to_owned())]);
    assert_eq!(names(cache.pods_matching("a", &web)), ["p1", "p2"]);
    assert_eq!(names(cache.pods_matching("a", &both)), ["p1"]);
    assert!(cache.pods_matching("b", &web).is_empty());
    assert!(cache.pods_matching("a", &BTreeMap::new()).is_empty());
    assert_eq!(names(cache.pods_on_node("n1")), ["p1", "p2"]);
    assert_eq!(names(cache.controlled_pods("rs1")), ["p1"]);
    assert_eq!(names(cache.pods().uncontrolled("a")), ["p2"]);

    let change = put(&mut cache, "core/pods/a/p1", 4, &pod("p1", json!({"app": "db"}), None, Some("n2")));
    assert_eq!(change.old.as_ref().map(|e| e.meta.resource_version), Some(Revision(2)));
    assert_eq!(names(cache.pods_matching("a", &web)), ["p2"]);
    assert_eq!(names(cache.pods_on_node("n1")), ["p2"]);
    assert_eq!(names(cache.pods_on_node("n2")), ["p1"]);
    assert_eq!(names(cache.controlled_pods("rs1")), Vec::<&str>::new());
    assert_eq!(names(cache.pods().uncontrolled("a")), ["p1", "p2"]);
    let stored = cache.pods().get("a", "p1").expect("cached");
    assert_eq!(stored.metadata.resource_version.as_deref(), Some("4"));

    for name in ["p1", "p2"] {
        assert!(cache.remove(&key(&format!("core/pods/a/{name}"))).is_some());
    }
    assert!(cache.remove(&key("core/pods/a/p1")).is_none());
    assert!(cache.entries.is_empty() && cache.by_uid.is_empty() && cache.pods().is_empty());
    assert!(cache.nodes_with_pods().next().is_none() && cache.in_namespace("a").next().is_none());
    assert!(cache.pods_matching("a", &web).is_empty());
    assert_eq!(cache.pods().uncontrolled("a").count(), 0);
}

#[test]
fn unknown_kinds_keep_their_metadata() {
    let mut cache = Cache::new();
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "a",
        "uid": "u1", "finalizers": ["example.com/x"], "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u0"}]}, "spec": {"size": 3}});
    put(&mut cache, "example.com/widgets/a/w", 7, &widget);
    let (found, entry) = cache.by_uid("u1").expect("indexed");
    assert_eq!(found, &key("example.com/widgets/a/w"));
    assert_eq!((entry.meta.kind.as_str(), entry.meta.api_version.as_str()), ("Widget", "example.com/v1"));
    assert!(entry.meta.has_finalizer("example.com/x") && entry.meta.controller().is_none());
    assert_eq!(cache.dependents("u0").count(), 1);
    assert_eq!(cache.in_namespace("a").count(), 1);
    assert_eq!(cache.revision(), Revision(7));
}

#[test]
fn an_unreadable_object_is_still_there_for_garbage_collection() {
    let mut cache = Cache::new();
    put(&mut cache, "core/pods/a/p1", 2, &pod("p1", json!({}), None, Some("n1")));
    let broken = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1", "namespace": "a", "uid": "uid-p1"},
        "spec": {"containers": 3}});
    let error = cache.upsert(&key("core/pods/a/p1"), broken.to_string().as_bytes(), Revision(3), at(0));
    assert!(matches!(error, Err(CacheError::Object { .. })), "{error:?}");
    assert!(cache.pods().is_empty() && cache.pods_on_node("n1").next().is_none());
    assert!(cache.by_uid("uid-p1").is_some());

    let error = cache.upsert(&key("core/pods/a/p1"), b"{", Revision(4), at(0));
    assert!(matches!(error, Err(CacheError::Metadata { .. })), "{error:?}");
    assert!(cache.by_uid("uid-p1").is_some());
}

#[test]
fn services_are_found_by_the_labels_they_select() {
    let mut cache = Cache::new();
    let service = |name: &str, selector: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "a", "uid": name},
            "spec": {"selector": selector}})
    };
    put(&mut cache, "core/services/a/web", 2, &service("web", json!({"app": "web"})));
    put(&mut cache, "core/services/a/front", 3, &service("front", json!({"app": "web", "tier": "front"})));
    put(&mut cache, "core/services/a/external", 4, &service("external", Value::Null));
    let found = |cache: &Cache, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let services = cache.services_selecting("a", &labels);
        services.iter().filter_map(|s| s.metadata.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(&cache, &[("app", "web")]), ["web"]);
    assert_eq!(found(&cache, &[("app", "web"), ("tier", "front")]), ["front", "web"]);
    assert!(found(&cache, &[("tier", "front")]).is_empty());
    put(&mut cache, "core/services/a/web", 5, &service("web", json!({"app": "db"})));
    assert!(found(&cache, &[("app", "web")]).is_empty());
}

#[test]
fn heartbeats_count_from_when_they_were_seen() {
    let mut cache = Cache::new();
    let lease = |renewed: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1",
            "namespace": "kube-node-lease", "uid": "l"}, "spec": {"renewTime": renewed}})
    };
    let renew = |cache: &mut Cache, revision: u64, renewed: &str, second: u64| {
        let bytes = serde_json::to_vec(&lease(renewed)).expect("JSON");
        let key = key("coordination.k8s.io/leases/kube-node-lease/n1");
        cache.upsert(&key, &bytes, Revision(revision), at(second)).expect("decodes");
    };
    assert_eq!(cache.last_heartbeat("n1"), None);
    // The node's clock is an hour ahead. Only a change of the renew time counts.
    renew(&mut cache, 2, "2026-01-01T01:00:00.000000Z", 10);
    assert_eq!(cache.last_heartbeat("n1"), Some(at(10)));
    renew(&mut cache, 3, "2026-01-01T01:00:00.000000Z", 20);
    assert_eq!(cache.last_heartbeat("n1"), Some(at(10)));
    renew(&mut cache, 4, "2026-01-01T01:00:03.000000Z", 30);
    assert_eq!(cache.last_heartbeat("n1"), Some(at(30)));
    // A condition that a master sets to Unknown is not a sign of life.
    let node = |conditions: Value| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "n"},
            "status": {"conditions": conditions}})
    };
    let report = |status: &str, second: u64| {
        let reported_at = format!("2026-01-01T00:00:{second:02}Z");
        json!([{"type": "Ready", "status": status, "lastHeartbeatTime": reported_at}])
    };
    let write = |cache: &mut Cache, revision: u64, conditions: Value, second: u64| {
        let bytes = serde_json::to_vec(&node(conditions)).expect("JSON");
        cache.upsert(&key("core/nodes/n1"), &bytes, Revision(revision), at(second)).expect("decodes");
    };
    write(&mut cache, 5, Value::Null, 31);
    write(&mut cache, 6, report("Unknown", 0), 41);
    assert_eq!(cache.last_heartbeat("n1"), Some(at(31)));
    write(&mut cache, 7, report("True", 42), 42);
    assert_eq!(cache.last_heartbeat("n1"), Some(at(42)));
    write(&mut cache, 8, report("Unknown", 42), 45);
    assert_eq!(cache.last_heartbeat("n1"), Some(at(42)));
    write(&mut cache, 9, report("True", 43), 46);
    assert_eq!(cache.last_heartbeat("n1"), Some(at(46)));

    cache.begin_observation(at(50));
    assert_eq!(cache.last_heartbeat("n1"), Some(at(50)));
    assert_eq!(cache.last_heartbeat("n2"), Some(at(50)));
}
