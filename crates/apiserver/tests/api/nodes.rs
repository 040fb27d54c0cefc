//! The objects that a node's certificate may read and write.

use http::Method;
use quorate_apiserver::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Client, Server, config_map, local, pod};

const DEFAULT: &str = "/api/v1/namespaces/default";

fn secret(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "key": "value" } })
}

/// Returns a pod that refers to objects named after itself, in every way that an agent supports.
fn naming_pod(name: &str, node: Option<&str>) -> Value {
    let mut object = pod(name);
    object["spec"]["containers"][0]["envFrom"] = json!([{ "secretRef": { "name": format!("{name}-env") } }]);
    object["spec"]["volumes"] = json!([
        { "name": "s", "secret": { "secretName": format!("{name}-volume") } },
        { "name": "c", "configMap": { "name": format!("{name}-map") } },
    ]);
    object["spec"]["imagePullSecrets"] = json!([{ "name": format!("{name}-pull") }]);
    object["spec"]["serviceAccountName"] = "default".into();
    if let Some(node) = node {
        object["spec"]["nodeName"] = node.into();
    }
    object
}

async fn make_objects(admin: &Client, pod: &str) {
    for kind in ["env", "volume", "pull", "map"] {
        admin.post(&format!("{DEFAULT}/secrets"), &secret(&format!("{pod}-{kind}"))).await.expect(201);
    }
    admin.post(&format!("{DEFAULT}/configmaps"), &config_map(&format!("{pod}-map"))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_the_objects_its_pods_refer_to() {
    let server = Server::start().await;
    let (admin, node) = (server.admin(), server.node("n1"));
    for (name, on) in [("mine", Some("n1")), ("other", Some("n2")), ("waiting", None)] {
        make_objects(&admin, name).await;
        admin.post(&format!("{DEFAULT}/pods"), &naming_pod(name, on)).await.expect(201);
    }
    for path in [
        "/secrets/mine-env",
        "/secrets/mine-volume",
        "/secrets/mine-pull",
        "/configmaps/mine-map",
        "/serviceaccounts/default",
        "/pods/mine",
        "/secrets?fieldSelector=metadata.name%3Dmine-env",
        "/configmaps?fieldSelector=metadata.name%3Dmine-map",
        "/pods?fieldSelector=metadata.name%3Dmine",
    ] {
        assert_eq!(node.get(&format!("{DEFAULT}{path}")).await.code, 200, "{path}");
    }
    let mine = node.get(&format!("{DEFAULT}/secrets?fieldSelector=metadata.name%3Dmine-env")).await.json();
    assert_eq!(mine["items"].as_array().map(Vec::len), Some(1), "the selector holds: {mine}");
    let pods = node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200);
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(1));
    for path in [
        "/secrets/mine-map",
        "/configmaps/mine-env",
        "/secrets/other-env",
        "/secrets/waiting-env",
        "/secrets/absent",
        "/configmaps/other-map",
        "/serviceaccounts/other",
        "/pods/other",
        "/pods/waiting",
        "/pods",
        "/pods?fieldSelector=spec.nodeName%3Dn2",
        "/pods?fieldSelector=spec.nodeName%21%3Dn2",
        "/pods/mine/log",
        "/secrets",
        "/secrets?watch=true",
        "/secrets?fieldSelector=metadata.name%21%3Dmine-env",
        "/secrets?fieldSelector=metadata.name%3Dother-env",
        "/secrets?watch=true&fieldSelector=metadata.name%3Dother-env",
        "/secrets?labelSelector=a",
        "/configmaps",
        "/serviceaccounts",
    ] {
        assert_eq!(node.get(&format!("{DEFAULT}{path}")).await.code, 403, "{path}");
    }
    for path in ["/api/v1/secrets", "/api/v1/configmaps", "/api/v1/pods", "/api/v1/nodes", "/api/v1/nodes/n2"] {
        assert_eq!(node.get(path).await.code, 403, "{path}");
    }
    let everywhere = node.get("/api/v1/secrets?fieldSelector=metadata.name%3Dmine-env").await;
    assert_eq!(everywhere.code, 403, "the name in every namespace");
    for path in ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"] {
        assert_eq!(node.get(path).await.code, 200, "{path}");
    }
    let refused = node.get(&format!("{DEFAULT}/secrets/other-env")).await.failure();
    let expected = "secrets \"other-env\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \
                    \"\" in the namespace \"default\": no relationship found between node 'n1' and this object";
    assert_eq!((refused.1.as_str(), refused.2.as_str()), ("Forbidden", expected));
    let mut watch = node.watch(&format!("{DEFAULT}/secrets?watch=true&fieldSelector=metadata.name%3Dmine-env")).await;
    assert_eq!(watch.named().await, ("ADDED".to_owned(), "mine-env".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_no_pod_of_the_node_refers_to_the_object() {
    let server = Server::start().await;
    let (admin, node) = (server.admin(), server.node("n1"));
    make_objects(&admin, "mine").await;
    let mut second = naming_pod("mine", Some("n1"));
    second["metadata"]["name"] = "second".into();
    for pod in [naming_pod("mine", Some("n1")), second] {
        admin.post(&format!("{DEFAULT}/pods"), &pod).await.expect(201);
    }
    let path = format!("{DEFAULT}/secrets?watch=true&fieldSelector=metadata.name%3Dmine-env");
    let (mut watch, mut whole) = (node.watch(&path).await, admin.watch(&path).await);
    let added = ("ADDED".to_owned(), "mine-env".to_owned());
    assert_eq!((watch.named().await, whole.named().await), (added.clone(), added));
    let change = async |value: &str| {
        let change = json!({ "stringData": { "key": value } });
        admin.patch(&format!("{DEFAULT}/secrets/mine-env"), "merge", &change).await.expect(200)
    };
    let remove = async |pod: &str| {
        admin.delete(&format!("{DEFAULT}/pods/{pod}"), &json!({ "gracePeriodSeconds": 0 })).await.expect(200)
    };
    let modified = ("MODIFIED".to_owned(), "mine-env".to_owned());
    // A status update of a pod keeps the relation, and so does another pod.
    let status = json!({ "status": { "message": "x" } });
    admin.patch(&format!("{DEFAULT}/pods/mine/status"), "merge", &status).await.expect(200);
    remove("mine").await;
    change("1").await;
    assert_eq!((watch.named().await, whole.named().await), (modified.clone(), modified.clone()));
    remove("second").await;
    assert_eq!(watch.next().await, None, "the watch ends");
    change("2").await;
    assert_eq!(whole.named().await, modified, "the administrator's goes on");
    assert_eq!(node.get(&path).await.code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_the_references_of_a_new_pod_at_once() {
    let server = Server::start().await;
    let (admin, node) = (server.admin(), server.node("n1"));
    let client = local(&server.api);
    let pods = quorate_api::GroupVersionResource::from_static("", "v1", "pods");
    let mut watch = node.watch("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1").await;
    for number in 0..50 {
        let name = format!("p{number}");
        admin.post(&format!("{DEFAULT}/secrets"), &secret(&format!("{name}-env"))).await.expect(201);
        let created = client.create(&pods, Some("default"), naming_pod(&name, None)).await.expect("created");
        let uid = created["metadata"]["uid"].as_str().expect("a uid");
        client.bind("default", &name, uid, "n1").await.expect("bound");
        assert_eq!(watch.named().await.1, name);
        let read = node.get(&format!("{DEFAULT}/secrets/{name}-env")).await;
        assert_eq!(read.code, 200, "{name}: {}", read.text());
        let options = json!({ "gracePeriodSeconds": 0 });
        admin.delete(&format!("{DEFAULT}/pods/{name}"), &options).await.expect(200);
        assert_eq!(watch.named().await, ("DELETED".to_owned(), name.clone()));
    }
    let gone = node.get(&format!("{DEFAULT}/secrets/p0-env")).await;
    assert_eq!(gone.code, 403, "the pod that named it is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sets_only_permitted_fields_of_its_own_node() {
    let server = Server::start().await;
    let (admin, node) = (server.admin(), server.node("n1"));
    let merge = [("content-type", "application/merge-patch+json")];
    let object =
        |labels: Value| json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "labels": labels } });
    let refused = node.post("/api/v1/nodes", &object(json!({ "node-restriction.kubernetes.io/a": "b" }))).await;
    assert_eq!(
        refused.failure().2,
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: node-restriction.kubernetes.io/a"
    );
    node.post("/api/v1/nodes", &object(json!({ "kubernetes.io/os": "linux", "disk": "ssd" }))).await.expect(201);
    let role = json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "" } } });
    admin.patch("/api/v1/nodes/n1", "merge", &role).await.expect(200);
    let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" }]);
    let cases: Vec<(&str, Value, Option<&str>)> = vec![
        ("/api/v1/nodes/n1", json!({ "metadata": { "labels": { "disk": "hdd" } } }), None),
        (
            "/api/v1/nodes/n1",
            json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": null } } }),
            Some("is not allowed to modify labels: node-role.kubernetes.io/control-plane"),
        ),
        (
            "/api/v1/nodes/n1",
            json!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } }),
            Some("node \"n1\" is not allowed to modify taints"),
        ),
        (
            "/api/v1/nodes/n1",
            json!({ "metadata": { "ownerReferences": owner } }),
            Some("node \"n1\" is not allowed to modify ownerReferences"),
        ),
        ("/api/v1/nodes/n1/status", json!({ "status": { "phase": "Running" } }), None),
    ];
    for (path, patch, why) in cases {
        let answer = node.request(Method::PATCH, path, &merge, patch.to_string()).await;
        match why {
            None => assert_eq!(answer.code, 200, "{path} {patch}: {}", answer.text()),
            Some(why) => {
                assert_eq!(answer.failure().2, format!("nodes \"n1\" is forbidden: {why}"), "{patch}");
            }
        }
    }
    assert_eq!(node.get("/api/v1/nodes/n1").await.code, 200);
    assert_eq!(node.delete("/api/v1/nodes/n1", &json!({})).await.code, 403);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |kind: &str, name: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "n1", "ownerReferences": [{ "apiVersion": "v1", "kind": kind, "name": name, "uid": "u" }] },
            "spec": { "holderIdentity": "n1", "leaseDurationSeconds": 10 },
        })
    };
    for (kind, name) in [("Node", "n2"), ("Pod", "n1")] {
        assert_eq!(node.post(leases, &lease(kind, name)).await.code, 403, "{kind} {name}");
    }
    node.post(leases, &lease("Node", "n1")).await.expect(201);
    assert_eq!(node.get(&format!("{leases}/n1")).await.code, 200);
    assert_eq!(node.get(leases).await.code, 403, "no list of the leases of others");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_op_patches_of_foreign_pods_are_refused() {
    let server = Server::start().await;
    let (admin, node) = (server.admin(), server.node("n1"));
    admin.post(&format!("{DEFAULT}/pods"), &naming_pod("other", Some("n2"))).await.expect(201);
    let refused = node.patch(&format!("{DEFAULT}/pods/other/status"), "merge", &json!({})).await;
    assert_eq!(
        refused.failure().2,
        "pods \"other\" is forbidden: node \"n1\" can only update pod status for pods with spec.nodeName set to itself"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_in_process_client_is_authorized_like_others() {
    let server = Server::start().await;
    let user = UserInfo { name: "system:node:n1".to_owned(), groups: vec!["system:nodes".to_owned()] };
    let client = quorate_apiserver::LocalClient::new(server.api.clone(), user);
    let secrets = quorate_api::GroupVersionResource::from_static("", "v1", "secrets");
    let refused = client.get(&secrets, Some("default"), "x").await.expect_err("no pod names it");
    assert_eq!(refused.code, 403);
}
