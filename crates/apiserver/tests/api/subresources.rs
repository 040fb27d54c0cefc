//! Tests of the subresources that change one part of an object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
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

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Returns a request with a new key that claims to be from another user.
pub fn signing_request(name: &str) -> Value {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["agent.example".to_owned()]).expect("parameters");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    json!({ "metadata": { "name": name }, "spec": {
        "request": STANDARD.encode(pem), "signerName": "example.com/agents", "usages": ["client auth"],
        "username": "somebody-else", "groups": ["system:masters"],
    } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_request_names_its_user_and_is_decided_through_approval() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(REQUESTS, &signing_request("agent")).await.expect(201);
    assert_ne!(created["spec"]["username"], "somebody-else", "the server says who asks");
    let path = format!("{REQUESTS}/agent");

    let approved =
        json!({ "status": { "conditions": [{ "type": "Approved", "status": "True", "reason": "Checked" }] } });
    let refused = admin.patch(&format!("{path}/status"), "merge", &approved).await.failure();
    assert_eq!(refused.0, 422);
    assert!(refused.2.contains("updates may not add a condition of type \"Approved\""), "{}", refused.2);
    admin.patch(&path, "merge", &approved).await.expect(200);
    assert_eq!(admin.get(&path).await.expect(200)["status"], created["status"], "not through the object itself");

    let mut other = approved.clone();
    other["status"]["certificate"] = "eA==".into();
    other["spec"] = json!({ "signerName": "example.com/other" });
    let decided = admin.patch(&format!("{path}/approval"), "merge", &other).await.expect(200);
    let condition = &decided["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("Approved"), &json!("Checked")));
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string(), "{condition}");
    assert_eq!((decided["status"].get("certificate"), &decided["spec"]), (None, &created["spec"]), "nothing else");

    let both =
        json!([{ "op": "add", "path": "/status/conditions/-", "value": { "type": "Denied", "status": "True" } }]);
    let (code, _, message) = admin.patch(&format!("{path}/approval"), "json", &both).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("mutually exclusive"), "{message}");
    let (code, _, message) =
        admin.patch(&format!("{path}/approval"), "merge", &json!({ "status": { "conditions": [] } })).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("may not remove a condition of type \"Approved\""), "{message}");

    let issued = json!({ "status": { "certificate": "eA==" } });
    let issued = admin.patch(&format!("{path}/status"), "merge", &issued).await.expect(200);
    assert_eq!(issued["status"]["conditions"], decided["status"]["conditions"], "the decision stays");
    let again = json!({ "status": { "certificate": "eQ==" } });
    assert_eq!(admin.patch(&format!("{path}/status"), "merge", &again).await.code, 422, "a certificate is final");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_request_must_be_signed_by_its_key() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut request = signing_request("agent");
    let pem = STANDARD.decode(request["spec"]["request"].as_str().expect("text")).expect("base64");
    let pem = String::from_utf8(pem).expect("PEM");
    for (bad, why) in [
        (pem.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "PEM block type must be CERTIFICATE REQUEST"),
        ("no PEM".to_owned(), "PEM block type must be CERTIFICATE REQUEST"),
    ] {
        request["spec"]["request"] = STANDARD.encode(bad).into();
        let (code, _, message) = admin.post(REQUESTS, &request).await.failure();
        assert_eq!(code, 422);
        assert!(message.contains("spec.request: Invalid value") && message.contains(why), "{message}");
    }
    let body: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let mut der = STANDARD.decode(body).expect("base64");
    *der.last_mut().expect("a signature") ^= 1;
    let forged =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(der),);
    request["spec"]["request"] = STANDARD.encode(forged).into();
    assert_eq!(admin.post(REQUESTS, &request).await.code, 422, "the signature is of another request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_through_bindings_as_well() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(PODS, &pod("web")).await.expect(201);
    let bindings = "/api/v1/namespaces/default/bindings";
    let binding = json!({ "metadata": { "name": "web" }, "target": { "kind": "Node", "name": "worker" } });
    assert_eq!(admin.post(bindings, &binding).await.expect(201)["status"], "Success");
    assert_eq!(admin.get(&format!("{PODS}/web")).await.expect(200)["spec"]["nodeName"], "worker");
    assert_eq!(admin.post(bindings, &binding).await.code, 409, "once");
    assert_eq!(admin.get(bindings).await.code, 405);
}
