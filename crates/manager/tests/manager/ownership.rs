use std::collections::BTreeSet;

use quorate_api::GroupVersionResource;
use quorate_manager::ManagerConfig;
use serde_json::{Value, json};

use crate::harness::{Cluster, DEPLOYMENTS, NAMESPACES, PODS, REPLICA_SETS, is_ready, name_of, uid_of};

const CONFIG_MAPS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "configmaps");
const EVENTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "events");
const SERVICE_ACCOUNTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "serviceaccounts");

/// Returns the owner references of an object that `set` controls.
fn reference(set: &Value) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name_of(set), "uid": uid_of(set),
        "controller": true, "blockOwnerDeletion": true}])
}

fn owners(object: &Value) -> &Value {
    &object["metadata"]["ownerReferences"]
}

fn is_owned_by(pod: &Value, set: &Value) -> bool {
    owners(pod)[0]["uid"] == set["metadata"]["uid"]
}

fn uids(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(uid_of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_pods_keep_running_and_are_adopted_by_the_next_deployment() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    cluster.deploy("default", "web", 3).await;
    cluster.wait("three ready pods", || cluster.ready_pods().len() == 3).await;
    let pods = uids(&cluster.ready_pods());
    let sets = uids(&cluster.list(&REPLICA_SETS, Some("default")));
    let before = cluster.store.revision();

    let orphan = || json!({"propagationPolicy": "Orphan"});
    cluster.client.delete(&DEPLOYMENTS, Some("default"), "web", orphan()).await.expect("the deletion begins");
    cluster.wait("the deployment to be gone", || cluster.list(&DEPLOYMENTS, Some("default")).is_empty()).await;
    let left = cluster.list(&REPLICA_SETS, Some("default"));
    assert_eq!(uids(&left), sets);
    assert_eq!((owners(&left[0]), &left[0]["metadata"]["finalizers"]), (&Value::Null, &Value::Null));
    assert!(cluster.list(&PODS, Some("default")).iter().all(|pod| *owners(pod) == reference(&left[0])));

    let set = name_of(&left[0]);
    cluster.client.delete(&REPLICA_SETS, Some("default"), &set, orphan()).await.expect("the deletion begins");
    cluster.wait("the set to be gone", || cluster.list(&REPLICA_SETS, Some("default")).is_empty()).await;
    let left = cluster.list(&PODS, Some("default"));
    assert!(left.iter().all(|pod| owners(pod).is_null() && is_ready(pod)), "{left:?}");
    assert_eq!(uids(&left), pods);

    cluster.deploy("default", "web", 3).await;
    cluster
        .wait("the pods to have a set again, and it a deployment", || {
            let sets = cluster.list(&REPLICA_SETS, Some("default"));
            let deployment = cluster.object(&DEPLOYMENTS, Some("default"), "web").expect("it is there");
            let pods = cluster.list(&PODS, Some("default"));
            sets.len() == 1
                && owners(&sets[0])[0]["uid"] == deployment["metadata"]["uid"]
                && pods.iter().all(|pod| *owners(pod) == reference(&sets[0]))
                && deployment["status"]["readyReplicas"] == 3
        })
        .await;
    assert_eq!(uids(&cluster.ready_pods()), pods);
    for (key, object) in cluster.history(before).await {
        let is_one_of_them = object.as_ref().is_some_and(|object| pods.contains(&uid_of(object)));
        assert!(key.resource != "pods" || is_one_of_them, "{key:?} came or went: {object:?}");
    }
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_removes_pods_then_their_set_then_the_deployment() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    cluster.deploy("default", "web", 3).await;
    cluster.wait("three ready pods", || cluster.ready_pods().len() == 3).await;
    let pods: BTreeSet<String> = cluster.ready_pods().iter().map(name_of).collect();
    let held = pods.first().expect("three pods").clone();
    cluster.hold(&held).await;
    let before = cluster.store.revision();

    let options = json!({"propagationPolicy": "Foreground"});
    cluster.client.delete(&DEPLOYMENTS, Some("default"), "web", options).await.expect("the deletion begins");
    cluster
        .wait("one pod to be left", || {
            let left = cluster.list(&PODS, Some("default"));
            left.len() == 1 && name_of(&left[0]) == held && left[0]["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    for resource in [&DEPLOYMENTS, &REPLICA_SETS] {
        let waiting = cluster.list(resource, Some("default"));
        assert_eq!(waiting.len(), 1, "{resource}");
        let metadata = &waiting[0]["metadata"];
        assert!(metadata["deletionTimestamp"].is_string(), "{metadata}");
        assert_eq!(metadata["finalizers"], json!(["foregroundDeletion"]), "{resource}");
    }

    cluster.release(&held).await;
    cluster.wait("the deployment to be gone", || cluster.list(&DEPLOYMENTS, Some("default")).is_empty()).await;
    let history = cluster.history(before).await;
    let concerned = |resource: &str| ["pods", "replicasets", "deployments"].contains(&resource);
    let gone = history.iter().filter(|(key, object)| object.is_none() && concerned(&key.resource));
    let gone: Vec<&str> = gone.map(|(key, _)| key.resource.as_str()).collect();
    assert_eq!(gone, ["pods", "pods", "pods", "replicasets", "deployments"]);
    for (key, _) in history.iter().filter(|(key, _)| key.resource == "pods") {
        assert!(pods.contains(&key.name), "{} replaced a pod", key.name);
    }
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_adopts_matching_pods_and_releases_others() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": "web:1"}]});
    let labels = json!({"app": "web"});
    let loner =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loner", "labels": labels}, "spec": spec});
    let loner = cluster.client.create(&PODS, Some("default"), loner).await.expect("the pod is created");
    cluster.wait("the pod to run", || cluster.ready_pods().len() == 1).await;

    let before = cluster.store.revision();
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}});
    let set = cluster.client.create(&REPLICA_SETS, Some("default"), set).await.expect("the set is created");
    let owned = |cluster: &Cluster| -> Vec<Value> {
        cluster.ready_pods().into_iter().filter(|pod| is_owned_by(pod, &set)).collect()
    };
    cluster.wait("two pods of the set", || owned(&cluster).len() == 2).await;
    let adopted = cluster.object(&PODS, Some("default"), "loner").expect("the pod is there");
    assert_eq!((uid_of(&adopted), owners(&adopted)), (uid_of(&loner), &reference(&set)));
    let history = cluster.history(before).await;
    let seen = history.iter().filter(|(key, _)| key.resource == "pods").map(|(key, _)| key.name.as_str());
    let seen: BTreeSet<&str> = seen.collect();
    assert!(seen.len() == 2 && seen.contains("loner"), "one pod was missing, not two: {seen:?}");

    cluster.patch(&PODS, "loner", json!({"metadata": {"labels": {"app": "other"}}})).await;
    cluster
        .wait("another pod in its place", || {
            let owned = owned(&cluster);
            owned.len() == 2 && owned.iter().all(|pod| name_of(pod) != "loner")
        })
        .await;
    let released = cluster.object(&PODS, Some("default"), "loner").expect("the pod is there");
    assert_eq!((uid_of(&released), owners(&released)), (uid_of(&loner), &Value::Null));
    assert!(is_ready(&released) && released["metadata"]["deletionTimestamp"].is_null(), "{released}");
    assert_eq!(cluster.list(&PODS, Some("default")).len(), 3);

    // The set adopts the pod again and then has one too many, so one of the three is deleted.
    cluster.patch(&PODS, "loner", json!({"metadata": {"labels": labels}})).await;
    cluster
        .wait("two pods, both of the set", || {
            cluster.list(&PODS, Some("default")).len() == 2 && owned(&cluster).len() == 2
        })
        .await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_deleted_with_its_last_owner_and_kept_while_an_owner_is_unknown() {
    let (cluster, master) = Cluster::led(ManagerConfig::default()).await;
    let namespace = json!({"metadata": {"name": "other"}});
    let other = cluster.client.create(&NAMESPACES, None, namespace).await.expect("created");
    let create = async |namespace: &str, name: &str, owners: Value| {
        let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
        cluster.client.create(&CONFIG_MAPS, Some(namespace), map).await.expect("created")
    };
    let owner = create("default", "owner", json!([])).await;
    let reference =
        |kind: &str, name: &str, uid: &str| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid});
    let uid = uid_of(&owner);
    let right = reference("ConfigMap", "owner", &uid);
    let absent = reference("ConfigMap", "ghost", "11111111-2222-3333-4444-555555555555");
    let unserved = json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "u"});
    for (name, owners) in [
        ("right", json!([right])),
        ("clustered", json!([reference("Namespace", "other", &uid_of(&other))])),
        ("mixed", json!([right, absent])),
        ("unserved", json!([unserved])),
        ("unserved-and-absent", json!([unserved, absent])),
        ("miskinded", json!([reference("Secret", "owner", &uid)])),
        ("misnamed", json!([reference("ConfigMap", "ghost", &uid)])),
        ("absent", json!([absent])),
    ] {
        create("default", name, owners).await;
    }
    create("other", "crossed", json!([right])).await;
    let names = |namespace: &str| -> BTreeSet<String> {
        cluster.list(&CONFIG_MAPS, Some(namespace)).iter().map(name_of).collect()
    };
    let staying = ["clustered", "mixed", "owner", "right", "unserved", "unserved-and-absent"];
    let staying: BTreeSet<String> = staying.map(str::to_owned).into();
    cluster
        .wait("those without an owner to be gone", || names("default") == staying && names("other").is_empty())
        .await;
    cluster
        .wait("the dangling reference to be dropped", || {
            let mixed = cluster.object(&CONFIG_MAPS, Some("default"), "mixed").expect("it is there");
            mixed["metadata"]["ownerReferences"] == json!([right])
        })
        .await;
    cluster
        .wait("a warning about the owner in another namespace", || {
            let events = cluster.list(&EVENTS, Some("other"));
            events.iter().any(|event| event["reason"] == "OwnerRefInvalidNamespace" && event["type"] == "Warning")
        })
        .await;
    assert_eq!(names("default"), staying);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_namespace_has_an_account_and_the_authority() {
    let mut config = ManagerConfig::default();
    config.settings.root_authority = Some("PEM".to_owned());
    let (cluster, master) = Cluster::led(config).await;
    cluster.client.create(&NAMESPACES, None, json!({"metadata": {"name": "new"}})).await.expect("created");
    cluster
        .wait("both", || {
            let authority = cluster.object(&CONFIG_MAPS, Some("new"), "kube-root-ca.crt");
            let account = cluster.object(&SERVICE_ACCOUNTS, Some("new"), "default");
            authority.is_some_and(|map| map["data"] == json!({"ca.crt": "PEM"})) && account.is_some()
        })
        .await;
    // The account and the ConfigMap do not block the deletion of the namespace.
    cluster.client.delete(&NAMESPACES, None, "new", json!({})).await.expect("deleted");
    cluster.wait("the namespace to be gone", || cluster.object(&NAMESPACES, None, "new").is_none()).await;
    master.stop().await;
}
