//! Authentication, authorization, and limits that apply to every request.

use bytes::Bytes;
use http::Method;
use quorate_apiserver::{Build, Deadlines};
use quorate_mvcc::{Command, DeleteRequest, KeyRange, Op, Txn};
use serde_json::{Value, json};

use crate::harness::{Server, config_map, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_users_get_health_and_version() {
    let server = Server::start().await;
    let anonymous = server.anonymous();
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(anonymous.get(path).await.code, 200, "{path}");
    }
    let verbose = anonymous.get("/readyz?verbose").await.text();
    let namespaces = "poststarthook/start-system-namespaces-controller";
    assert_eq!(verbose, format!("[+]ping ok\n[+]etcd ok\n[+]{namespaces} ok\nreadyz check passed\n"));
    assert_eq!(anonymous.get(&format!("/readyz/{namespaces}")).await.text(), "ok");
    assert_eq!(anonymous.get("/readyz/ping").await.text(), "ok");
    for path in ["/api", "/apis", PODS, "/nowhere", "/openapi/v3", "/quorum"] {
        let (code, reason, message) = anonymous.get(path).await.failure();
        assert_eq!((code, reason.as_str(), message.as_str()), (401, "Unauthorized", "Unauthorized"), "{path}");
    }
    assert_eq!(anonymous.post(PODS, &pod("p")).await.failure().0, 401);
    let version = anonymous.get("/version").await.json();
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    assert!(version["gitVersion"].as_str().is_some_and(|v| v.starts_with("v1.36.0+quorate")), "{version}");
    assert_eq!((&version["gitTreeState"], &version["buildDate"]), (&json!("archive"), &json!("1970-01-01T00:00:00Z")));
    let build = Build { commit: "0123abc", tree_state: "clean", date_seconds: 1_767_225_600 };
    server.api.set_build(build).expect("it was not set before");
    let version = anonymous.get("/version").await.json();
    assert_eq!((&version["gitCommit"], &version["gitTreeState"]), (&json!("0123abc"), &json!("clean")));
    assert_eq!(version["buildDate"], "2026-01-01T00:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_ready_before_its_namespaces_exist() {
    let server = Server::start().await;
    let range = KeyRange::key(Bytes::from_static(b"/registry/core/namespaces/kube-public"));
    let gone = Op::Delete(DeleteRequest { range, prev_kv: false });
    let gone = Command::Txn(Txn { compare: Vec::new(), success: vec![gone], failure: Vec::new() });
    server.api.store().propose(gone).await.expect("the store deletes");
    let anonymous = server.anonymous();
    assert_eq!(anonymous.get("/livez").await.code, 200);
    for path in ["/readyz", "/readyz/poststarthook/start-system-namespaces-controller"] {
        assert_eq!(anonymous.get(path).await.code, 500, "{path}");
    }
    quorate_apiserver::bootstrap(&server.api).await.expect("missing namespaces are created again");
    assert_eq!(anonymous.get("/readyz").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthorized_users_are_refused_in_kubernetes_words() {
    let server = Server::start().await;
    let user = server.user("jane");
    let cases = [
        (
            "/api/v1/namespaces/default/pods",
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ),
        (
            "/api/v1/nodes/a",
            "nodes \"a\" is forbidden: User \"jane\" cannot get resource \"nodes\" in API group \"\" at the cluster scope",
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments/web/status",
            "deployments.apps \"web\" is forbidden: User \"jane\" cannot get resource \"deployments/status\" in API group \"apps\" in the namespace \"default\"",
        ),
    ];
    for (path, expected) in cases {
        let (code, reason, message) = user.get(path).await.failure();
        assert_eq!((code, reason.as_str(), message.as_str()), (403, "Forbidden", expected));
    }
    assert_eq!(user.get("/apis").await.code, 200, "authenticated users may read discovery");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_writes_only_its_own_objects() {
    let server = Server::start().await;
    let (admin, node) = (server.admin(), server.node("a"));
    let node_object = |name: &str| json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
    let lease = |name: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
            "spec": { "holderIdentity": name, "leaseDurationSeconds": 10 },
        })
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "reason": "Started", "message": "m", "type": "Normal",
        "involvedObject": { "kind": "Pod", "name": "mine", "namespace": "default" },
    });
    for (name, on) in [("mine", "a"), ("other", "b")] {
        let mut object = pod(name);
        object["spec"]["nodeName"] = on.into();
        admin.post(PODS, &object).await.expect(201);
    }
    admin.post("/api/v1/nodes", &node_object("b")).await.expect(201);
    let status = json!({ "status": { "phase": "Running" } });
    let merge = [("content-type", "application/merge-patch+json")];
    let cases: Vec<(Method, String, Value, u16)> = vec![
        (Method::POST, "/api/v1/nodes".to_owned(), node_object("a"), 201),
        (Method::POST, "/api/v1/nodes".to_owned(), node_object("c"), 403),
        (Method::PATCH, "/api/v1/nodes/a/status".to_owned(), json!({ "status": {} }), 200),
        (Method::PATCH, "/api/v1/nodes/b/status".to_owned(), json!({ "status": {} }), 403),
        (Method::POST, leases.to_owned(), lease("a"), 201),
        (Method::POST, leases.to_owned(), lease("b"), 403),
        (Method::PATCH, format!("{leases}/a"), json!({ "spec": { "leaseDurationSeconds": 11 } }), 200),
        (Method::PATCH, format!("{PODS}/mine/status"), status.clone(), 200),
        (Method::PATCH, format!("{PODS}/other/status"), status.clone(), 403),
        (Method::PATCH, format!("{PODS}/mine"), json!({}), 403),
        (Method::POST, PODS.to_owned(), pod("new"), 403),
        (Method::POST, "/api/v1/namespaces/default/events".to_owned(), event, 201),
        (Method::POST, "/api/v1/namespaces/default/configmaps".to_owned(), config_map("x"), 403),
        (Method::DELETE, format!("{PODS}/other"), json!({ "gracePeriodSeconds": 0 }), 403),
        (Method::DELETE, format!("{PODS}/mine"), json!({ "gracePeriodSeconds": 0 }), 200),
        (Method::DELETE, PODS.to_owned(), json!({}), 403),
    ];
    for (method, path, body, code) in cases {
        let headers = if method == Method::PATCH { merge } else { [("content-type", "application/json")] };
        let answer = node.request(method.clone(), &path, &headers, body.to_string()).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text());
    }
    assert_eq!(node.get("/apis/apps/v1/deployments").await.code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_bounded_and_watches_do_not_count() {
    let server = Server::start_with(0, Deadlines::default()).await;
    let admin = server.admin();
    let refused = admin.get(PODS).await;
    assert_eq!(refused.failure().1, "TooManyRequests");
    for query in ["?watch=false", "?watchful=1"] {
        assert_eq!(admin.get(&format!("{PODS}{query}")).await.code, 429, "{query}: a list");
    }
    // The parameter makes no watch of other requests.
    assert_eq!(admin.get(&format!("{PODS}/a?watch=true")).await.code, 429);
    assert_eq!(admin.get("/api/v1/namespaces/default/configmaps/log").await.code, 429);
    assert_eq!(admin.get("/openapi/v2?watch=true").await.code, 429);
    assert_eq!(admin.post(&format!("{PODS}?watch=1"), &json!({})).await.code, 429);
    assert_eq!(refused.headers.get("retry-after").map(|v| v.as_bytes()), Some(b"1".as_slice()));
    assert_eq!(admin.get("/healthz").await.code, 200);
    drop(admin.watch(&format!("{PODS}?watch=1")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_get_a_status() {
    let server = Server::start().await;
    let admin = server.admin();
    for path in [
        "//",
        "/api/v1/namespaces/%ff/pods",
        "/api/v1/namespaces/default/pods/a/b/c/d",
        "/api/v1/namespaces/a%2fb/pods/x",
        "/api/v1/namespaces/default/pods?limit=-1",
        "/api/v1/namespaces/default/pods?labelSelector=%ff",
        "/api/v1/namespaces/default/pods?continue=%00",
        "/api/v2/pods",
        "/apis/nowhere/v1",
        "/openapi/v3/apis/nowhere/v1",
    ] {
        let (code, reason, _) = admin.get(path).await.failure();
        assert!((400..500).contains(&code) && !reason.is_empty(), "{path}: {code} {reason}");
    }
    assert_eq!(admin.request(Method::OPTIONS, PODS, &[], "").await.failure().1, "MethodNotAllowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quorum_is_shown() {
    let server = Server::start().await;
    let admin = server.admin();
    let quorum = admin.get("/quorum").await.expect(200);
    assert_eq!((&quorum["leader"], &quorum["members"][0]["role"]), (&json!("memory"), &json!("leader")));
    let hash = admin.get("/quorum/hash").await.expect(200);
    assert_eq!(hash["hash"].as_str().map(str::len), Some(16));
    assert_eq!(hash["revision"].as_u64(), Some(server.api.store().revision().0));
}
