//! Tests of the subresources that change one part of a pod.

use serde_json::{Value, json};

use crate::harness::{Server, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn names(pod: &Value) -> Vec<&str> {
    let containers = pod["spec"]["ephemeralContainers"].as_array();
    containers.into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_containers_are_added_by_patch_and_by_update() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut on_create = pod("web");
    on_create["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "busybox" }]);
    admin.post(PODS, &on_create).await.expect(422);
    let created = admin.post(PODS, &pod("web")).await.expect(201);
    let path = format!("{PODS}/web/ephemeralcontainers");
    assert_eq!(admin.get(&path).await.expect(200), created, "the subresource shows the whole pod");

    // The patch that `kubectl debug` sends, with a change of another part.
    let patch = json!({ "metadata": { "labels": { "a": "b" } }, "spec": {
        "$setElementOrder/ephemeralContainers": [{ "name": "debug" }],
        "ephemeralContainers": [{ "name": "debug", "image": "busybox", "stdin": true, "targetContainerName": "main" }],
    } });
    let patched = admin.patch(&path, "strategic-merge", &patch).await.expect(200);
    assert_eq!(names(&patched), ["debug"]);
    assert_eq!((&patched["metadata"]["generation"], &patched["metadata"]["labels"]), (&json!(2), &Value::Null));

    let mut second = patched.clone();
    let added = json!({ "name": "second", "image": "busybox" });
    second["spec"]["ephemeralContainers"].as_array_mut().expect("a list").push(added);
    assert_eq!(admin.put(&format!("{PODS}/web"), &second).await.code, 422, "not through the pod itself");
    let updated = admin.put(&path, &second).await.expect(200);
    assert_eq!((names(&updated), &updated["metadata"]["generation"]), (vec!["debug", "second"], &json!(3)));
    assert_eq!(admin.put(&path, &second).await.code, 409, "the version is old");

    let mut removed = updated.clone();
    removed["spec"]["ephemeralContainers"] = json!([]);
    let (code, _, message) = admin.put(&path, &removed).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("existing ephemeral containers \"debug\" may not be removed"), "{message}");
    let labelled = json!({ "metadata": { "labels": { "a": "b" } } });
    let labelled = admin.patch(&format!("{PODS}/web"), "merge", &labelled).await.expect(200);
    assert_eq!(names(&labelled), ["debug", "second"], "a pod with such containers can still be changed");
    admin.patch(&format!("{PODS}/none/ephemeralcontainers"), "merge", &json!({})).await.expect(404);
    assert_eq!(server.node("worker").patch(&path, "merge", &json!({})).await.code, 403, "nodes add no containers");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_streams_name_ephemeral_containers() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(PODS, &pod("web")).await.expect(201);
    let log = format!("{PODS}/web/log?container=debug");
    assert_eq!(admin.get(&log).await.code, 400);
    let patch = json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": "busybox" }] } });
    admin.patch(&format!("{PODS}/web/ephemeralcontainers"), "strategic-merge", &patch).await.expect(200);
    assert_eq!(admin.get(&log).await.code, 200, "the pod is not scheduled, so its log is empty");
    let (code, _, message) = admin.get(&format!("{PODS}/web/attach?stdout=1&container=debug")).await.failure();
    assert_eq!((code, message.as_str()), (400, "Upgrade request required"), "the container is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_resized_by_patch_and_by_update() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = pod("web");
    object["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "100m", "memory": "64Mi" } });
    let created = admin.post(PODS, &object).await.expect(201);
    let path = format!("{PODS}/web/resize");
    assert_eq!(admin.get(&path).await.expect(200), created, "the subresource shows the whole pod");

    let amounts = |cpu: &str| json!({ "requests": { "cpu": cpu, "memory": "64Mi" } });
    let patch = json!({ "metadata": { "labels": { "a": "b" } }, "spec": {
        "containers": [{ "name": "main", "resources": amounts("200m"), "image": "other" }],
    } });
    let patched = admin.patch(&path, "strategic-merge", &patch).await.expect(200);
    let mut expected = created.clone();
    expected["metadata"]["generation"] = 2.into();
    expected["metadata"]["resourceVersion"] = patched["metadata"]["resourceVersion"].clone();
    expected["spec"]["containers"][0]["resources"] = amounts("200m");
    let managers = patched["metadata"]["managedFields"].as_array().expect("managers");
    assert_eq!(managers.iter().filter(|entry| entry["subresource"] == "resize").count(), 1, "{managers:?}");
    expected["metadata"]["managedFields"] = patched["metadata"]["managedFields"].clone();
    assert_eq!(patched, expected, "only the resources change");

    let mut updated = patched.clone();
    updated["spec"]["containers"][0]["resources"] = amounts("300m");
    assert_eq!(admin.put(&format!("{PODS}/web"), &updated).await.code, 422, "not through the pod itself");
    let put = admin.put(&path, &updated).await.expect(200);
    assert_eq!(put["spec"]["containers"][0]["resources"], amounts("300m"));
    let mut removed = put.clone();
    removed["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "300m" } });
    let (code, _, message) = admin.put(&path, &removed).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("resource requests cannot be removed"), "{message}");
    assert_eq!(server.node("worker").patch(&path, "merge", &json!({})).await.code, 403, "nodes resize no pods");
}
