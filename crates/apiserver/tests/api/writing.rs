//! Tests of create, update, patch, and their refusals.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Server, config_map, deployment, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test(flavor = "multi_thread")]
async fn creates_stamp_what_the_server_sets() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(PODS, &pod("web")).await.expect(201);
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
    assert!(metadata["creationTimestamp"].as_str().is_some_and(|t| t.ends_with('Z')), "{metadata}");
    assert!(metadata["resourceVersion"].as_str().is_some_and(|v| v.parse::<u64>().is_ok()), "{metadata}");
    assert_eq!(created["status"]["phase"], "Pending");
    let read = admin.get(&format!("{PODS}/web")).await.expect(200);
    assert_eq!(read, created, "the read object is the created one");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_kubernetes_codes_and_reasons() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(MAPS, &config_map("taken")).await.expect(201);
    let mut elsewhere = config_map("a");
    elsewhere["metadata"]["namespace"] = "other".into();
    let mut versioned = config_map("a");
    versioned["metadata"]["resourceVersion"] = "5".into();
    let mut wrong_type = pod("a");
    wrong_type["spec"]["containers"] = "none".into();
    let mut no_containers = pod("a");
    no_containers["spec"]["containers"] = json!([]);
    let nowhere = "/api/v1/namespaces/nowhere/configmaps";
    let modified = "Operation cannot be fulfilled on configmaps \"taken\": the object has been modified; please apply your changes to the latest version and try again";
    let mut stale = config_map("taken");
    stale["metadata"]["resourceVersion"] = "1".into();
    let cases: Vec<(Method, &str, Value, u16, &str, &str)> = vec![
        (Method::POST, MAPS, config_map("taken"), 409, "AlreadyExists", "configmaps \"taken\" already exists"),
        (
            Method::POST,
            MAPS,
            config_map("Upper"),
            422,
            "Invalid",
            "ConfigMap \"Upper\" is invalid: metadata.name: Invalid value: \"Upper\": a lowercase RFC 1123 subdomain must",
        ),
        (
            Method::POST,
            MAPS,
            config_map(""),
            422,
            "Invalid",
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            Method::POST,
            MAPS,
            elsewhere,
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            Method::POST,
            MAPS,
            versioned,
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        (Method::POST, MAPS, pod("a"), 400, "BadRequest", "Pod in version \"v1\" cannot be handled as a ConfigMap"),
        (
            Method::POST,
            MAPS,
            deployment("a"),
            400,
            "BadRequest",
            "the API version in the data (apps/v1) does not match the expected API version (v1)",
        ),
        (Method::POST, PODS, wrong_type, 400, "BadRequest", "Pod in version \"v1\" cannot be handled as a Pod"),
        (Method::POST, PODS, no_containers, 422, "Invalid", "Pod \"a\" is invalid: spec.containers: Required value"),
        (Method::POST, nowhere, config_map("a"), 404, "NotFound", "namespaces \"nowhere\" not found"),
        (
            Method::POST,
            "/api/v1/configmaps",
            config_map("a"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            Method::POST,
            "/api/v1/namespaces/default/widgets",
            config_map("a"),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (
            Method::PUT,
            "/api/v1/namespaces/default/configmaps/absent",
            config_map("absent"),
            404,
            "NotFound",
            "configmaps \"absent\" not found",
        ),
        (
            Method::PUT,
            "/api/v1/namespaces/default/configmaps/taken",
            config_map("other"),
            400,
            "BadRequest",
            "the name of the object (other) does not match the name on the URL (taken)",
        ),
        (Method::PUT, "/api/v1/namespaces/default/configmaps/taken", stale, 409, "Conflict", modified),
        (
            Method::PATCH,
            "/api/v1/namespaces/default/configmaps/taken",
            json!({}),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format",
        ),
    ];
    for (method, path, body, code, reason, message) in cases {
        let headers = [("content-type", "application/json")];
        let answer = admin.request(method.clone(), path, &headers, body.to_string()).await;
        let (got_code, got_reason, got_message) = answer.failure();
        assert_eq!((got_code, got_reason.as_str()), (code, reason), "{method} {path}: {got_message}");
        assert!(got_message.starts_with(message), "{method} {path}: {got_message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_generated() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = config_map("");
    object["metadata"] = json!({ "generateName": "web-" });
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let created = admin.post(MAPS, &object).await.expect(201);
        names.insert(created["metadata"]["name"].as_str().expect("a name").to_owned());
    }
    assert_eq!(names.len(), 5);
    assert!(names.iter().all(|name| name.starts_with("web-") && name.len() == 9), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_skips_only_the_commit() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(&format!("{MAPS}?dryRun=All"), &config_map("dry")).await.expect(201);
    assert!(created["metadata"]["uid"].is_string());
    assert!(created["metadata"].get("resourceVersion").is_none());
    assert_eq!(admin.get(&format!("{MAPS}/dry")).await.code, 404);
    let stored = admin.post(MAPS, &config_map("dry")).await.expect(201);
    assert_eq!(admin.post(&format!("{MAPS}?dryRun=All"), &config_map("dry")).await.code, 409);
    let path = format!("{MAPS}/dry?dryRun=All");
    let patched = admin.patch(&path, "merge", &json!({ "data": { "key": "new" } })).await.expect(200);
    assert_eq!(patched["data"]["key"], "new");
    assert_eq!(admin.delete(&path, &json!({})).await.code, 200);
    assert_eq!(admin.get(&format!("{MAPS}/dry")).await.expect(200), stored);
    assert_eq!(admin.post(&format!("{MAPS}?dryRun=Some"), &config_map("x")).await.failure().0, 422);
}

/// Runs every write of an existing object as a dry run: it answers like the write, and writes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_of_changes_change_nothing() {
    let server = Server::start().await;
    let admin = server.admin();
    let deployed = admin.post(DEPLOYMENTS, &deployment("dry")).await.expect(201);
    let running = admin.post(PODS, &pod("dry")).await.expect(201);
    let mut assigned = pod("assigned");
    assigned["spec"]["nodeName"] = "worker".into();
    let assigned = admin.post(PODS, &assigned).await.expect(201);
    let revision = server.api.store().revision();
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();

    let path = format!("{DEPLOYMENTS}/dry");
    let mut object = deployed.clone();
    object["spec"]["replicas"] = 5.into();
    object["status"]["replicas"] = 7.into();
    let updated = admin.put(&format!("{path}?dryRun=All"), &object).await.expect(200);
    assert_eq!((&updated["spec"]["replicas"], &updated["metadata"]["generation"]), (&json!(5), &json!(2)));
    assert_eq!((version(&updated), &updated["status"]), (version(&deployed), &deployed["status"]));
    let with_status = admin.put(&format!("{path}/status?dryRun=All"), &object).await.expect(200);
    assert_eq!((&with_status["status"]["replicas"], &with_status["spec"]["replicas"]), (&json!(7), &json!(2)));
    assert_eq!(version(&with_status), version(&deployed));
    let patch = json!({ "status": { "replicas": 8 } });
    let with_status = admin.patch(&format!("{path}/status?dryRun=All"), "merge", &patch).await.expect(200);
    assert_eq!((&with_status["status"]["replicas"], version(&with_status)), (&json!(8), version(&deployed)));

    let mut scale = admin.get(&format!("{path}/scale")).await.expect(200);
    scale["spec"]["replicas"] = 6.into();
    let scaled = admin.put(&format!("{path}/scale?dryRun=All"), &scale).await.expect(200);
    assert_eq!((&scaled["spec"]["replicas"], version(&scaled)), (&json!(6), version(&deployed)));
    let patch = json!({ "spec": { "replicas": 9 } });
    let scaled = admin.patch(&format!("{path}/scale?dryRun=All"), "merge", &patch).await.expect(200);
    assert_eq!((&scaled["spec"]["replicas"], version(&scaled)), (&json!(9), version(&deployed)));

    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "dry" }, "target": { "kind": "Node", "name": "n" },
    });
    for _ in 0..2 {
        let bound = admin.post(&format!("{PODS}/dry/binding?dryRun=All"), &binding).await.expect(201);
        assert_eq!(bound["status"], "Success");
    }
    let conflict = admin.post(&format!("{PODS}/assigned/binding?dryRun=All"), &binding).await;
    assert_eq!(conflict.failure().1, "Conflict", "a dry run is refused like the write");

    let eviction = |options: Value| {
        json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "assigned" }, "deleteOptions": options,
        })
    };
    for (query, options) in [("?dryRun=All", json!({})), ("", json!({ "dryRun": ["All"] }))] {
        let path = format!("{PODS}/assigned/eviction{query}");
        assert_eq!(admin.post(&path, &eviction(options)).await.expect(201)["status"], "Success");
    }

    assert_eq!(server.api.store().revision(), revision, "something was written");
    for (path, before) in [(path, deployed), (format!("{PODS}/dry"), running), (format!("{PODS}/assigned"), assigned)] {
        assert_eq!(admin.get(&path).await.expect(200), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_changes_nothing_writes_nothing() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(DEPLOYMENTS, &deployment("same")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/same");
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&admin.put(&path, &created).await.expect(200)), version(&created));
    let patched = admin.patch(&path, "merge", &json!({ "spec": { "replicas": 2 } })).await.expect(200);
    assert_eq!(version(&patched), version(&created));
    let scaled = admin.patch(&path, "merge", &json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_ne!(version(&scaled), version(&created));
    assert_eq!(scaled["metadata"]["generation"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_patches_work() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(DEPLOYMENTS, &deployment("patched")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/patched");
    let json_patch = json!([{ "op": "replace", "path": "/spec/replicas", "value": 4 }]);
    assert_eq!(admin.patch(&path, "json", &json_patch).await.expect(200)["spec"]["replicas"], 4);
    let merge = json!({ "metadata": { "labels": { "a": "b" } } });
    assert_eq!(admin.patch(&path, "merge", &merge).await.expect(200)["metadata"]["labels"]["a"], "b");
    let strategic =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": "other" }] } } } });
    let patched = admin.patch(&path, "strategic-merge", &strategic).await.expect(200);
    let containers = patched["spec"]["template"]["spec"]["containers"].as_array().expect("a list");
    assert_eq!((containers.len(), &containers[0]["image"]), (1, &json!("other")));
    let failing = json!([{ "op": "test", "path": "/spec/replicas", "value": 9 }]);
    assert_eq!(admin.patch(&path, "json", &failing).await.failure().0, 422);
    let stale = json!({ "metadata": { "resourceVersion": "1" } });
    assert_eq!(admin.patch(&path, "merge", &stale).await.failure().1, "Conflict");
    let renamed = json!({ "metadata": { "name": "other" } });
    assert_eq!(admin.patch(&path, "merge", &renamed).await.failure().0, 400);
    assert_eq!(admin.patch(&format!("{DEPLOYMENTS}/absent"), "merge", &merge).await.failure().0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_spec_are_written_separately() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut created = admin.post(DEPLOYMENTS, &deployment("split")).await.expect(201);
    created["status"] = json!({ "replicas": 7 });
    created["spec"]["replicas"] = 9.into();
    let path = format!("{DEPLOYMENTS}/split");
    let mut updated = admin.put(&format!("{path}/status"), &created).await.expect(200);
    assert_eq!((&updated["status"]["replicas"], &updated["spec"]["replicas"]), (&json!(7), &json!(2)));
    updated["status"] = json!({});
    updated["spec"]["replicas"] = 3.into();
    let updated = admin.put(&path, &updated).await.expect(200);
    assert_eq!((&updated["status"]["replicas"], &updated["spec"]["replicas"]), (&json!(7), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_reads_and_sets_replicas() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(DEPLOYMENTS, &deployment("scaled")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/scaled/scale");
    let mut scale = admin.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=scaled")));
    scale["spec"]["replicas"] = 5.into();
    assert_eq!(admin.put(&path, &scale).await.expect(200)["spec"]["replicas"], 5);
    assert_eq!(admin.put(&path, &scale).await.failure().1, "Conflict", "its resourceVersion is old by now");
    let patch = json!({ "spec": { "replicas": 6 } });
    assert_eq!(admin.patch(&path, "merge", &patch).await.expect(200)["spec"]["replicas"], 6);
    let negative = json!({ "spec": { "replicas": -1 } });
    assert_eq!(admin.patch(&path, "merge", &negative).await.failure().0, 422);
    let object = admin.get(&format!("{DEPLOYMENTS}/scaled")).await.expect(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(6), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(PODS, &pod("bound")).await.expect(201);
    let binding = |node: &str, uid: &str| {
        json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "bound", "uid": uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        })
    };
    let path = format!("{PODS}/bound/binding");
    assert_eq!(admin.post(&path, &binding("a", "other")).await.failure().1, "Conflict");
    assert_eq!(admin.post(&path, &binding("", "")).await.failure().0, 422);
    let uid = created["metadata"]["uid"].as_str().expect("a uid");
    assert_eq!(admin.post(&path, &binding("a", uid)).await.expect(201)["status"], "Success");
    let (code, _, message) = admin.post(&path, &binding("b", uid)).await.failure();
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Operation cannot be fulfilled on pods/binding \"bound\": pod bound is already assigned to node \"a\""
    );
    let read = admin.get(&format!("{PODS}/bound")).await.expect(200);
    assert_eq!(read["spec"]["nodeName"], "a");
    assert_eq!(read["status"]["conditions"][0]["type"], "PodScheduled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_pod_is_not_bound() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut gated = pod("gated");
    gated["spec"]["schedulingGates"] = json!([{ "name": "example.com/wait" }]);
    admin.post(PODS, &gated).await.expect(201);
    let binding =
        json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "gated" }, "target": { "name": "n1" } });
    let (code, reason, message) = admin.post(&format!("{PODS}/gated/binding"), &binding).await.failure();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(
        message,
        "Operation cannot be fulfilled on pods/binding \"gated\": pod gated has non-empty .spec.schedulingGates"
    );
    let open = json!({ "spec": { "schedulingGates": null } });
    admin.patch(&format!("{PODS}/gated"), "merge", &open).await.expect(200);
    admin.post(&format!("{PODS}/gated/binding"), &binding).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_creates_only_where_the_kind_allows_it() {
    let server = Server::start().await;
    let admin = server.admin();
    let named = |kind: &str, version: &str| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "x" } });
    let mut lease = named("Lease", "coordination.k8s.io/v1");
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/x";
    let created = admin.put(path, &lease).await.expect(201);
    assert_eq!(admin.get(path).await.expect(200), created);
    lease["spec"] = json!({ "holderIdentity": "me" });
    admin.put(path, &lease).await.expect(200);
    admin.delete(path, &json!({})).await.expect(200);
    lease["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111".into();
    assert_eq!(admin.put(path, &lease).await.failure().0, 409, "that one object is gone");

    let endpoints = named("Endpoints", "v1");
    admin.put("/api/v1/namespaces/default/endpoints/x?dryRun=All", &endpoints).await.expect(201);
    admin.put("/api/v1/namespaces/default/endpoints/x", &endpoints).await.expect(201);
    for (path, body) in [(format!("{MAPS}/x"), config_map("x")), (format!("{PODS}/x"), pod("x"))] {
        assert_eq!(admin.put(&path, &body).await.failure().0, 404, "{path}");
    }
    let user = server.user("nobody");
    assert_eq!(user.put(path, &named("Lease", "coordination.k8s.io/v1")).await.failure().0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_write_may_change_metadata() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(PODS, &pod("web")).await.expect(201);
    let note =
        json!({ "metadata": { "annotations": { "a": "b" }, "labels": { "c": "d" } }, "spec": { "nodeName": "n1" } });
    let patched = admin.patch(&format!("{PODS}/web/status"), "merge", &note).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"], json!({ "a": "b" }));
    assert_eq!(patched["metadata"]["labels"], json!({ "c": "d" }));
    assert_eq!(patched["spec"].get("nodeName"), None);
    let broken = json!({ "metadata": { "labels": { "c": "not a label!" } } });
    assert_eq!(admin.patch(&format!("{PODS}/web/status"), "merge", &broken).await.failure().0, 422);

    let binding = json!({ "target": { "name": "n1" } });
    admin.post(&format!("{PODS}/web/binding"), &binding).await.expect(201);
    let node = server.node("n1");
    let labels = json!({ "metadata": { "labels": { "c": "e" } } });
    let (code, _, message) = node.patch(&format!("{PODS}/web/status"), "merge", &labels).await.failure();
    assert_eq!(code, 403);
    assert!(message.ends_with("node \"n1\" cannot update labels through pod status"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_absent_map_in_a_patch_is_no_change() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(DEPLOYMENTS, &deployment("web")).await.expect(201);
    let patch = json!({ "spec": { "template": { "spec": { "nodeSelector": { "$patch": "delete" } } } } });
    let patched = admin.patch(&format!("{DEPLOYMENTS}/web"), "strategic-merge", &patch).await.expect(200);
    assert_eq!(patched["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_patches_all_take_effect() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(MAPS, &config_map("raced")).await.expect(201);
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..16 {
        let admin = admin.clone();
        tasks.spawn(async move {
            let patch = json!({ "data": { format!("key-{index}"): "set" } });
            admin.patch(&format!("{MAPS}/raced"), "merge", &patch).await.expect(200);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("each patch succeeds");
    }
    let data = admin.get(&format!("{MAPS}/raced")).await.expect(200)["data"].clone();
    assert_eq!(data.as_object().map(serde_json::Map::len), Some(17));
}
