//! Deletion: immediate, graceful, held by finalizers, and of collections.

use serde_json::{Value, json};

use crate::harness::{Server, config_map, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_without_finalizers_are_removed_at_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(MAPS, &config_map("a")).await.expect(201);
    let path = format!("{MAPS}/a");
    let wrong = json!({ "preconditions": { "uid": "other" } });
    let (code, reason, message) = admin.delete(&path, &wrong).await.failure();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.contains("Precondition failed: UID in precondition: other"), "{message}");
    let stale = json!({ "preconditions": { "resourceVersion": "1" } });
    assert_eq!(admin.delete(&path, &stale).await.failure().0, 409);
    let status = admin.delete(&path, &json!({ "kind": "DeleteOptions", "apiVersion": "v1" })).await.expect(200);
    assert_eq!((&status["status"], &status["details"]["uid"]), (&json!("Success"), &created["metadata"]["uid"]));
    assert_eq!(admin.delete(&path, &json!({})).await.failure().0, 404);
    assert_eq!(admin.delete(&path, &json!({ "kind": "Pod" })).await.failure().0, 400);
    assert_eq!(admin.delete(&path, &json!({ "propagationPolicy": "Some" })).await.failure().0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_returns_the_object_where_kubernetes_does() {
    let server = Server::start().await;
    let admin = server.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "robot" } });
    admin.post(PODS, &pod("unscheduled")).await.expect(201);
    admin.post(accounts, &account).await.expect(201);
    let gone = admin.delete(&format!("{PODS}/unscheduled"), &json!({})).await.expect(200);
    assert_eq!((&gone["kind"], &gone["metadata"]["name"]), (&json!("Pod"), &json!("unscheduled")));
    let gone = admin.delete(&format!("{accounts}/robot"), &json!({})).await.expect(200);
    assert_eq!((&gone["kind"], &gone["metadata"]["name"]), (&json!("ServiceAccount"), &json!("robot")));
    admin.get(&format!("{accounts}/robot")).await.failure();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_removed_with_its_last_finalizer() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = config_map("held");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.post(MAPS, &object).await.expect(201);
    let path = format!("{MAPS}/held");
    let marked = admin.delete(&path, &json!({})).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = admin.delete(&path, &json!({})).await.expect(200);
    assert_eq!(again, marked, "a second deletion changes nothing");
    let more = json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/more"] } });
    assert_eq!(admin.patch(&path, "merge", &more).await.failure().0, 422);
    let revive = json!({ "metadata": { "deletionTimestamp": null } });
    let kept = admin.patch(&path, "merge", &revive).await.expect(200);
    assert!(kept["metadata"]["deletionTimestamp"].is_string(), "a deletion cannot be undone");
    let drop = json!({ "metadata": { "finalizers": null } });
    admin.patch(&path, "merge", &drop).await.expect(200);
    assert_eq!(admin.get(&path).await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_carry_the_propagation_policy() {
    let server = Server::start().await;
    let admin = server.admin();
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let name = policy.to_lowercase();
        admin.post(MAPS, &config_map(&name)).await.expect(201);
        let options = json!({ "propagationPolicy": policy });
        let marked = admin.delete(&format!("{MAPS}/{name}"), &options).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        let background = json!({ "propagationPolicy": "Background" });
        admin.delete(&format!("{MAPS}/{name}"), &background).await.expect(200);
        assert_eq!(admin.get(&format!("{MAPS}/{name}")).await.code, 404, "background drops the finalizer");
    }
}

async fn running_pod(server: &Server, name: &str) -> Value {
    let admin = server.admin();
    let mut object = pod(name);
    object["spec"]["nodeName"] = "worker".into();
    admin.post(PODS, &object).await.expect(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_is_removed_by_its_node() {
    let server = Server::start().await;
    let admin = server.admin();
    running_pod(&server, "graceful").await;
    let path = format!("{PODS}/graceful");
    let marked = admin.delete(&path, &json!({})).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let longer = admin.delete(&path, &json!({ "gracePeriodSeconds": 60 })).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30, "it can only become shorter");
    let shorter = admin.delete(&format!("{path}?gracePeriodSeconds=5"), &json!({})).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(shorter["metadata"]["deletionTimestamp"].as_str() < marked["metadata"]["deletionTimestamp"].as_str());
    let node = server.node("worker");
    assert_eq!(server.node("other").delete(&path, &json!({ "gracePeriodSeconds": 0 })).await.failure().0, 403);
    assert_eq!(node.delete(&path, &json!({ "gracePeriodSeconds": 0 })).await.code, 200);
    assert_eq!(admin.get(&path).await.code, 404);

    admin.post(PODS, &pod("unscheduled")).await.expect(201);
    assert_eq!(admin.delete(&format!("{PODS}/unscheduled"), &json!({})).await.code, 200);
    assert_eq!(admin.get(&format!("{PODS}/unscheduled")).await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_is_a_graceful_deletion() {
    let server = Server::start().await;
    running_pod(&server, "evicted").await;
    let admin = server.admin();
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "evicted" },
        "deleteOptions": { "gracePeriodSeconds": 7 },
    });
    let path = format!("{PODS}/evicted");
    assert_eq!(admin.post(&format!("{path}/eviction"), &eviction).await.expect(201)["status"], "Success");
    assert_eq!(admin.get(&path).await.expect(200)["metadata"]["deletionGracePeriodSeconds"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_terminates_before_it_is_removed() {
    let server = Server::start().await;
    let admin = server.admin();
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "gone" } });
    admin.post("/api/v1/namespaces", &namespace).await.expect(201);
    let mut marked = admin.delete("/api/v1/namespaces/gone", &json!({})).await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let (code, reason, message) = admin.post("/api/v1/namespaces/gone/configmaps", &config_map("late")).await.failure();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "configmaps \"late\" is forbidden: unable to create new content in namespace gone because it is being terminated"
    );
    marked["spec"]["finalizers"] = json!([]);
    admin.put("/api/v1/namespaces/gone/finalize", &marked).await.expect(200);
    assert_eq!(admin.get("/api/v1/namespaces/gone").await.code, 404);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let (code, _, message) = admin.delete(&format!("/api/v1/namespaces/{name}"), &json!({})).await.failure();
        assert_eq!(code, 403);
        assert_eq!(message, format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::start().await;
    let admin = server.admin();
    for index in 0..40 {
        let mut object = config_map(&format!("map-{index:02}"));
        object["metadata"]["labels"] = json!({ "half": (index % 2).to_string() });
        admin.post(MAPS, &object).await.expect(201);
    }
    let deleted = admin.delete(&format!("{MAPS}?labelSelector=half%3D1"), &json!({})).await.expect(200);
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(20));
    let left = admin.get(MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().map(Vec::len), Some(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_selected_part_of_a_collection_is_deleted() {
    let server = Server::start().await;
    let admin = server.admin();
    for index in 0..6 {
        admin.post(MAPS, &config_map(&format!("map-{index}"))).await.expect(201);
    }
    let left = async || names(&admin.get(MAPS).await.expect(200));
    let delete =
        async |query: &str, options: Value| admin.delete(&format!("{MAPS}?{query}"), &options).await.expect(200);
    let all = ["map-0", "map-1", "map-2", "map-3", "map-4", "map-5"];

    let revision = server.api.store().revision();
    for (query, options) in [("dryRun=All", json!({})), ("", json!({ "dryRun": ["All"] }))] {
        assert_eq!(names(&delete(query, options).await), all, "a dry run answers as if they were deleted");
    }
    assert_eq!((left().await, server.api.store().revision()), (all.map(str::to_owned).to_vec(), revision));

    assert_eq!(names(&delete("fieldSelector=metadata.name%3Dmap-1", json!({})).await), ["map-1"]);
    assert_eq!(left().await, ["map-0", "map-2", "map-3", "map-4", "map-5"]);
    let page = delete("limit=2", json!({})).await;
    assert_eq!(names(&page), ["map-0", "map-2"]);
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    assert_eq!(left().await, ["map-3", "map-4", "map-5"]);
    let limited = delete("limit=1&fieldSelector=metadata.name!%3Dmap-3", json!({})).await;
    assert_eq!(names(&limited), ["map-4"]);
    assert_eq!(left().await, ["map-3", "map-5"]);
    let (code, ..) = admin.delete(&format!("{MAPS}?fieldSelector=data.key%3Dvalue"), &json!({})).await.failure();
    assert_eq!((code, left().await.len()), (400, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_node_are_deleted_together() {
    let server = Server::start().await;
    let admin = server.admin();
    running_pod(&server, "bound").await;
    admin.post(PODS, &pod("free")).await.expect(201);
    let path = format!("{PODS}?fieldSelector=spec.nodeName%3Dworker");
    let deleted = admin.delete(&path, &json!({ "gracePeriodSeconds": 9 })).await.expect(200);
    assert_eq!(names(&deleted), ["bound"]);
    let marked = admin.get(&format!("{PODS}/bound")).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 9, "its node removes it");
    let free = admin.get(&format!("{PODS}/free")).await.expect(200);
    assert!(free["metadata"].get("deletionTimestamp").is_none(), "{free}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_keep_objects_of_a_deleted_collection() {
    let server = Server::start().await;
    let admin = server.admin();
    for name in ["a", "held", "z"] {
        let mut object = config_map(name);
        if name == "held" {
            object["metadata"]["finalizers"] = json!(["example.com/hold"]);
        }
        admin.post(MAPS, &object).await.expect(201);
    }
    let deleted = admin.delete(MAPS, &json!({})).await.expect(200);
    assert_eq!(names(&deleted), ["a", "held", "z"]);
    let left = admin.get(MAPS).await.expect(200);
    assert_eq!(names(&left), ["held"]);
    let marked = &left["items"][0]["metadata"];
    assert!(marked["deletionTimestamp"].is_string(), "{marked}");
    let drop = json!({ "metadata": { "finalizers": null } });
    admin.patch(&format!("{MAPS}/held"), "merge", &drop).await.expect(200);
    assert_eq!(admin.get(&format!("{MAPS}/held")).await.code, 404);
}
