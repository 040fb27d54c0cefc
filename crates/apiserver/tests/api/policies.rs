//! The admission plugins that go by other objects: priority classes, limit ranges, default classes, owners.

use quorate_api::{GroupVersionResource, Reason, Status};
use quorate_apiserver::{Api, LocalClient, bootstrap};
use quorate_store::Store;
use serde_json::{Value, json};

use crate::harness::{Server, local};

const PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");
const NODES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "nodes");
const LIMIT_RANGES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "limitranges");
const CLAIMS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "persistentvolumeclaims");
const PRIORITY_CLASSES: GroupVersionResource =
    GroupVersionResource::from_static("scheduling.k8s.io", "v1", "priorityclasses");
const STORAGE_CLASSES: GroupVersionResource =
    GroupVersionResource::from_static("storage.k8s.io", "v1", "storageclasses");
const INGRESSES: GroupVersionResource = GroupVersionResource::from_static("networking.k8s.io", "v1", "ingresses");
const INGRESS_CLASSES: GroupVersionResource =
    GroupVersionResource::from_static("networking.k8s.io", "v1", "ingressclasses");
const DEFAULT: Option<&str> = Some("default");

async fn client() -> LocalClient {
    let api = Api::new(Store::memory(), quorate_registry::builtin());
    bootstrap(&api).await.expect("the cluster's first objects");
    local(&api)
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": spec});
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    pod
}

fn refusal(result: Result<Value, Status>) -> String {
    let status = result.expect_err("it is refused");
    assert_eq!(status.reason, Reason::Forbidden, "{}", status.message);
    status.message
}

#[tokio::test]
async fn pods_get_the_priority_of_their_class() {
    let client = client().await;
    let class = |name: &str, value: i32, default: bool, policy: &str| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": policy});
    let shown = |pod: &Value| {
        let spec = &pod["spec"];
        (spec["priorityClassName"].clone(), spec["priority"].clone(), spec["preemptionPolicy"].clone())
    };
    let made = async |name: &str, spec: Value| client.create(&PODS, DEFAULT, pod(name, spec)).await;
    let plain = made("plain", json!({})).await.expect("created");
    assert_eq!(shown(&plain), (Value::Null, json!(0), json!("PreemptLowerPriority")));
    let critical = made("critical", json!({"priorityClassName": "system-node-critical"})).await.expect("created");
    assert_eq!(shown(&critical).1, 2_000_001_000);
    client.create(&PRIORITY_CLASSES, None, class("high", 7, false, "Never")).await.expect("created");
    let high = made("high", json!({"priorityClassName": "high", "priority": 7})).await.expect("created");
    assert_eq!(shown(&high), (json!("high"), json!(7), json!("Never")));
    let unknown = refusal(made("unknown", json!({"priorityClassName": "none"})).await);
    assert_eq!(unknown, "pods \"unknown\" is forbidden: no PriorityClass with name none was found");
    let other = refusal(made("other", json!({"priorityClassName": "high", "priority": 8})).await);
    let expected = "the integer value of priority (8) must not be provided in pod spec; priority admission controller \
                    computed 7 from the given PriorityClass name";
    assert!(other.ends_with(expected), "{other}");
    let other =
        refusal(made("other", json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"})).await);
    assert!(other.contains("the string value of PreemptionPolicy (PreemptLowerPriority) must not"), "{other}");

    client.create(&PRIORITY_CLASSES, None, class("usual", 3, true, "PreemptLowerPriority")).await.expect("created");
    let usual = made("usual", json!({})).await.expect("created");
    assert_eq!(shown(&usual), (json!("usual"), json!(3), json!("PreemptLowerPriority")));
    let second = refusal(client.create(&PRIORITY_CLASSES, None, class("second", 4, true, "Never")).await);
    assert!(
        second.ends_with("PriorityClass usual is already marked as default. Only one default can exist"),
        "{second}"
    );
    let again = json!({"globalDefault": true, "description": "still"});
    client.patch_merge(&PRIORITY_CLASSES, None, "usual", None, again.clone()).await.expect("it stays the default one");
    refusal(client.patch_merge(&PRIORITY_CLASSES, None, "high", None, again).await);
    let kept = refusal(client.delete(&PRIORITY_CLASSES, None, "system-cluster-critical", json!({})).await);
    assert!(kept.ends_with("this is a system priority class and cannot be deleted"), "{kept}");

    // A client that writes the pod without what admission has set keeps it.
    let mut changed = client.get(&PODS, DEFAULT, "high").await.expect("there");
    for field in ["priority", "preemptionPolicy"] {
        changed["spec"].as_object_mut().expect("a spec").remove(field);
    }
    let changed = client.update(&PODS, DEFAULT, "high", None, changed).await.expect("nothing changes");
    assert_eq!(shown(&changed), shown(&high));
}

#[tokio::test]
async fn limit_ranges_complete_and_limit_pods_and_claims() {
    let client = client().await;
    let limits = json!([
        {"type": "Container", "default": {"cpu": "500m", "memory": "64Mi"}, "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}},
    ]);
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": limits}});
    client.create(&LIMIT_RANGES, DEFAULT, range).await.expect("created");
    let made = client.create(&PODS, DEFAULT, pod("p", json!({}))).await.expect("created");
    let all = json!({"cpu": "500m", "memory": "64Mi"});
    assert_eq!(made["spec"]["containers"][0]["resources"], json!({"limits": all, "requests": all}));
    assert_eq!(made["status"]["qosClass"], "Guaranteed", "the class follows from the defaults");
    let note = "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c";
    assert_eq!(made["metadata"]["annotations"]["kubernetes.io/limit-ranger"], note);
    let large = json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]});
    let refused = refusal(client.create(&PODS, DEFAULT, pod("large", large.clone())).await);
    assert_eq!(refused, "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
    client.create(&PODS, Some("kube-system"), pod("large", large)).await.expect("another namespace has no limits");

    let claim = |size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    let refused = refusal(client.create(&CLAIMS, DEFAULT, claim("3Gi")).await);
    assert!(
        refused.ends_with("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
        "{refused}"
    );
    client.create(&CLAIMS, DEFAULT, claim("1Gi")).await.expect("created");
}

#[tokio::test]
async fn claims_and_ingresses_get_the_newest_default_class() {
    let client = client().await;
    let claim = |name: &str, class: Value, annotations: Value| {
        json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"storageClassName": class,
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let made = async |name: &str, class: Value, annotations: Value| {
        let made = client.create(&CLAIMS, DEFAULT, claim(name, class, annotations)).await.expect("created");
        made["spec"]["storageClassName"].clone()
    };
    assert_eq!(made("none", Value::Null, Value::Null).await, Value::Null, "there is no class");
    let class = |name: &str, default: &str| {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": default});
        json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": "p"})
    };
    for (name, default) in [("a", "false"), ("b", "true"), ("c", "true")] {
        client.create(&STORAGE_CLASSES, None, class(name, default)).await.expect("created");
    }
    let chosen = made("chosen", Value::Null, Value::Null).await;
    let newest = client.get(&STORAGE_CLASSES, None, "c").await.expect("there")["metadata"]["creationTimestamp"].clone();
    let other = client.get(&STORAGE_CLASSES, None, "b").await.expect("there")["metadata"]["creationTimestamp"].clone();
    assert_eq!(chosen, if newest == other { "b" } else { "c" }, "of the same second, the first by name");
    assert_eq!(made("empty", json!(""), Value::Null).await, "");
    let older = json!({"volume.beta.kubernetes.io/storage-class": "x"});
    assert_eq!(made("older", Value::Null, older).await, Value::Null);

    let mark = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "in", "annotations": mark}, "spec": {"controller": "example.com/c"}});
    client.create(&INGRESS_CLASSES, None, class).await.expect("created");
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}});
    let ingress = client.create(&INGRESSES, DEFAULT, ingress).await.expect("created");
    assert_eq!(ingress["spec"]["ingressClassName"], "in");
}

#[tokio::test]
async fn new_nodes_are_tainted_until_they_are_ready() {
    let client = client().await;
    let own = json!({"key": "own", "effect": "NoExecute"});
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    for (name, taints, expected) in [
        ("bare", Value::Null, json!([taint])),
        ("own", json!([own]), json!([own, taint])),
        ("tainted", json!([taint]), json!([taint])),
    ] {
        let node = json!({"metadata": {"name": name}, "spec": {"taints": taints}});
        let node = client.create(&NODES, None, node).await.expect("created");
        assert_eq!(node["spec"]["taints"], expected, "{name}");
    }
    let removed = client.patch_merge(&NODES, None, "bare", None, json!({"spec": {"taints": null}})).await;
    assert_eq!(removed.expect("changed")["spec"]["taints"], Value::Null, "only new nodes get the taint");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_do_not_block_the_deletion_of_owners() {
    let server = Server::start().await;
    let node = server.node("n1");
    let lease = |block: bool| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "blockOwnerDeletion": block});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "n1", "ownerReferences": [owner]}, "spec": {}})
    };
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let (code, reason, message) = node.post(path, &lease(true)).await.failure();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert!(message.contains("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set"));
    node.post(path, &lease(false)).await.expect(201);
    let change = json!({"metadata": {"ownerReferences": lease(true)["metadata"]["ownerReferences"]}});
    assert_eq!(node.patch(&format!("{path}/n1"), "merge", &change).await.code, 403);
    server.admin().patch(&format!("{path}/n1"), "merge", &change).await.expect(200);
    // The node may change an object that has the owner reference already, because it does not set it.
    node.patch(&format!("{path}/n1"), "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
}

#[tokio::test]
async fn pods_get_the_overhead_and_the_nodes_of_their_runtime_class() {
    const RUNTIME_CLASSES: GroupVersionResource =
        GroupVersionResource::from_static("node.k8s.io", "v1", "runtimeclasses");
    let client = client().await;
    let made = async |name: &str, spec: Value| client.create(&PODS, DEFAULT, pod(name, spec)).await;
    let unknown = refusal(made("unknown", json!({"runtimeClassName": "vm"})).await);
    assert_eq!(unknown, "pods \"unknown\" is forbidden: pod rejected: RuntimeClass \"vm\" not found");
    let toleration = json!({"key": "vm", "operator": "Exists"});
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "10m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [toleration]}});
    client.create(&RUNTIME_CLASSES, None, class).await.expect("created");
    let vm = made("vm", json!({"runtimeClassName": "vm", "nodeSelector": {"disk": "ssd"}})).await.expect("created");
    assert_eq!(vm["spec"]["overhead"], json!({"cpu": "10m"}));
    assert_eq!(vm["spec"]["nodeSelector"], json!({"disk": "ssd", "vm": "yes"}));
    assert!(vm["spec"]["tolerations"].as_array().expect("tolerations").contains(&toleration));
    let conflict = refusal(made("conflict", json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}})).await);
    assert!(conflict.contains("conflict: runtimeClass.scheduling.nodeSelector[vm]"), "{conflict}");
    let own = refusal(made("own", json!({"runtimeClassName": "vm", "overhead": {"cpu": "1"}})).await);
    assert!(own.contains("Pod's Overhead doesn't match RuntimeClass's defined Overhead"), "{own}");
    let none = refusal(made("none", json!({"overhead": {"cpu": "1"}})).await);
    assert!(none.contains("without corresponding RuntimeClass"), "{none}");
}
