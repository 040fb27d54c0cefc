//! Tests of server-side apply, and of the managed fields that all writes keep.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Server, config_map, deployment, local, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Applies a configuration; `query` names the manager.
pub async fn apply(client: &Client, path: &str, query: &str, configuration: &Value) -> Answer {
    let path = format!("{path}?{query}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    client.request(Method::PATCH, &path, &headers, configuration.to_string()).await
}

fn map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": data })
}

/// Returns the manager, operation, subresource and fields of each entry.
fn entries(object: &Value) -> Vec<(String, String, String, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|entry| {
            assert_eq!(entry["fieldsType"], "FieldsV1", "{entry}");
            assert!(entry["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{entry}");
            assert!(!text(entry, "apiVersion").is_empty(), "{entry}");
            let subresource = text(entry, "subresource");
            (text(entry, "manager"), text(entry, "operation"), subresource, entry["fieldsV1"].clone())
        })
        .collect()
}

/// Returns the writers of an object, sorted by their names.
fn managers(object: &Value) -> Vec<String> {
    let mut managers: Vec<String> = entries(object)
        .into_iter()
        .map(|(manager, operation, subresource, _)| format!("{manager} {operation} {subresource}").trim().to_owned())
        .collect();
    managers.sort();
    managers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_creates_changes_and_removes() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{MAPS}/settings");
    let created = apply(&admin, &path, "fieldManager=me", &map(json!({ "a": "1", "b": "1" }))).await.expect(201);
    let fields = json!({ "f:data": { "f:a": {}, "f:b": {} } });
    assert_eq!(entries(&created), [("me".to_owned(), "Apply".to_owned(), String::new(), fields)]);
    assert_eq!(admin.get(&path).await.expect(200), created);

    let again = apply(&admin, &path, "fieldManager=me", &map(json!({ "a": "1", "b": "1" }))).await.expect(200);
    assert_eq!(again, created, "nothing is written when nothing changes");
    let less = apply(&admin, &path, "fieldManager=me", &map(json!({ "a": "2" }))).await.expect(200);
    assert_eq!(less["data"], json!({ "a": "2" }));
    assert_ne!(less["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);

    let dry = apply(&admin, &path, "fieldManager=me&dryRun=All", &map(json!({ "a": "3" }))).await.expect(200);
    assert_eq!(dry["data"], json!({ "a": "3" }));
    assert_eq!(admin.get(&path).await.expect(200), less);
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_name_the_managers_and_the_fields() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{MAPS}/settings");
    apply(&admin, &path, "fieldManager=one", &map(json!({ "a": "1", "b": "1" }))).await.expect(201);
    let refused = apply(&admin, &path, "fieldManager=two", &map(json!({ "a": "2" }))).await;
    assert_eq!(
        refused.json()["details"]["causes"],
        json!([
            { "reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a" },
        ])
    );
    let (code, reason, message) = refused.failure();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let refused = apply(&admin, &path, "fieldManager=two", &map(json!({ "a": "2", "b": "2" }))).await;
    let lines = "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b";
    assert_eq!(refused.failure().2, lines);

    let shared = apply(&admin, &path, "fieldManager=two", &map(json!({ "a": "1" }))).await.expect(200);
    assert_eq!(managers(&shared), ["one Apply", "two Apply"]);
    // The first manager gives both up; the shared field stays with the second.
    let mut bare = map(json!({}));
    bare.as_object_mut().expect("an object").remove("data");
    let left = apply(&admin, &path, "fieldManager=one", &bare).await.expect(200);
    assert_eq!((managers(&left), &left["data"]), (vec!["two Apply".to_owned()], &json!({ "a": "1" })));
    let forced = apply(&admin, &path, "fieldManager=three&force=true", &map(json!({ "a": "3" }))).await.expect(200);
    assert_eq!((managers(&forced), &forced["data"]), (vec!["three Apply".to_owned()], &json!({ "a": "3" })));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_applies_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{MAPS}/settings");
    let with = |field: &str, value: Value| {
        let mut object = map(json!({}));
        object[field] = value;
        object
    };
    let managed = json!({ "name": "settings", "managedFields": [] });
    let cases = [
        ("", map(json!({})), 422, "fieldManager: Required value: is required for apply patch"),
        ("fieldManager=me", with("kind", "Secret".into()), 400, "invalid object type: v1, Kind=Secret"),
        ("fieldManager=me", with("metadata", json!({ "name": "x" })), 400, "does not match the name on the URL"),
        ("fieldManager=me", with("metadata", managed), 400, "metadata.managedFields must be nil"),
        ("fieldManager=me", with("dataa", json!({})), 500, "(default/settings; v1, Kind=ConfigMap): .dataa: field not"),
        ("fieldManager=me", with("data", json!({ "a": 1 })), 500, "failed to create typed patch object"),
    ];
    for (query, configuration, code, message) in cases {
        let refused = apply(&admin, &path, query, &configuration).await.failure();
        assert_eq!(refused.0, code, "{refused:?}");
        assert!(refused.2.contains(message), "{refused:?}");
    }
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  a: b\n  a: c\n";
    let send = |media: &'static str, query: &'static str, body: &'static str| {
        let (admin, path) = (admin.clone(), format!("{path}?fieldManager=me&{query}"));
        async move { admin.request(Method::PATCH, &path, &[("content-type", media)], body).await }
    };
    let yaml = "application/apply-patch+yaml";
    let refused = send(yaml, "fieldValidation=Strict", twice).await.failure();
    assert!(refused.0 == 400 && refused.2.starts_with("error strict decoding YAML: "), "{refused:?}");
    let warned = send(yaml, "fieldValidation=Warn", twice).await;
    assert!(warned.headers.contains_key("warning"));
    assert_eq!(warned.expect(201)["data"]["a"], "c");
    assert_eq!(send(yaml, "", "[1]").await.failure().0, 400);
    assert_eq!(send(yaml, "", "a: [").await.failure().0, 400);
    assert_eq!(send("application/apply-patch+cbor", "", "").await.failure().0, 400);
    let (code, _, message) = send("application/apply-patch+json", "", "").await.failure();
    assert_eq!(code, 415);
    assert!(message.contains("application/apply-patch+yaml, application/apply-patch+cbor"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_can_demand_a_uid_and_a_version() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{MAPS}/settings");
    let with = |field: &str, value: &Value, data: &str| {
        let mut configuration = map(json!({ "a": data }));
        configuration["metadata"][field] = value.clone();
        configuration
    };
    let uid = "2fa1c4f4-0000-4000-8000-000000000000".into();
    let refused = apply(&admin, &path, "fieldManager=me", &with("uid", &uid, "1")).await;
    assert_eq!(refused.code, 409, "an absent object has no uid");
    let created = apply(&admin, &path, "fieldManager=me", &map(json!({ "a": "1" }))).await.expect(201);
    assert_eq!(apply(&admin, &path, "fieldManager=me", &with("uid", &uid, "2")).await.code, 409);
    let (uid, version) = (&created["metadata"]["uid"], &created["metadata"]["resourceVersion"]);
    let changed = apply(&admin, &path, "fieldManager=me", &with("uid", uid, "2")).await.expect(200);
    assert_eq!(apply(&admin, &path, "fieldManager=me", &with("resourceVersion", version, "3")).await.code, 409);
    let version = &changed["metadata"]["resourceVersion"];
    let changed = apply(&admin, &path, "fieldManager=me", &with("resourceVersion", version, "3")).await.expect(200);
    assert_eq!(changed["data"], json!({ "a": "3" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_in_a_configuration_removes_a_field() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{DEPLOYMENTS}/web");
    let mut configuration = deployment("web");
    let created = apply(&admin, &path, "fieldManager=me", &configuration).await.expect(201);
    assert_eq!(created["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%", "the default");
    configuration["spec"]["strategy"] = json!({ "type": "Recreate" });
    let refused = apply(&admin, &path, "fieldManager=me", &configuration).await;
    assert_eq!(refused.code, 422, "nobody has removed the default of the other type");
    configuration["spec"]["strategy"]["rollingUpdate"] = Value::Null;
    configuration["metadata"]["creationTimestamp"] = Value::Null;
    let changed = apply(&admin, &path, "fieldManager=me", &configuration).await.expect(200);
    assert_eq!(changed["spec"]["strategy"], json!({ "type": "Recreate" }));
    assert_eq!(changed["metadata"]["creationTimestamp"], created["metadata"]["creationTimestamp"]);
    assert_eq!(apply(&admin, &path, "fieldManager=me", &configuration).await.expect(200), changed);
    admin.delete(&path, &json!({})).await.expect(200);
    let created = apply(&admin, &path, "fieldManager=me", &configuration).await.expect(201);
    assert_eq!(created["spec"]["strategy"], json!({ "type": "Recreate" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{PODS}/web");
    let created = admin.post(PODS, &pod("web")).await.expect(201);
    assert_eq!(admin.put(&path, &created).await.expect(200), created);
    let other = format!("{path}?fieldManager=other");
    for (kind, patch) in [
        ("merge", json!({ "metadata": { "labels": created["metadata"]["labels"] } })),
        ("strategic-merge", json!({ "spec": { "containers": created["spec"]["containers"] } })),
        ("json", json!([{ "op": "test", "path": "/metadata/name", "value": "web" }])),
    ] {
        assert_eq!(admin.patch(&other, kind, &patch).await.expect(200), created, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_a_service_is_removed_by_its_protocol() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{SERVICES}/dns");
    let service = |ports: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "dns" },
            "spec": { "selector": { "app": "dns" }, "ports": ports },
        })
    };
    let (udp, tcp) = (
        json!({ "name": "udp", "port": 53, "protocol": "UDP" }),
        json!({ "name": "tcp", "port": 53, "protocol": "TCP" }),
    );
    let both = apply(&admin, &path, "fieldManager=me", &service(json!([udp, tcp]))).await.expect(201);
    assert!(both["spec"]["clusterIP"].as_str().is_some_and(|address| !address.is_empty()), "{both}");
    let one = apply(&admin, &path, "fieldManager=me", &service(json!([tcp]))).await.expect(200);
    assert_eq!(one["spec"]["ports"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(one["spec"]["ports"][0]["name"], "tcp");
    assert_eq!(one["spec"]["clusterIP"], both["spec"]["clusterIP"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_writer_is_tracked() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{DEPLOYMENTS}/web");
    let created = admin.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), &deployment("web")).await.expect(201);
    let (manager, operation, subresource, fields) = entries(&created).remove(0);
    assert_eq!((manager.as_str(), operation.as_str(), subresource.as_str()), ("maker", "Update", ""));
    assert_eq!(fields["f:spec"]["f:replicas"], json!({}));
    assert_eq!(fields["f:spec"]["f:template"]["f:metadata"], json!({ "f:labels": { ".": {}, "f:app": {} } }));
    assert_eq!(fields.get("f:status"), None);
    assert_eq!(fields.get("f:metadata"), None, "the name belongs to nobody");

    let scaled = json!({ "spec": { "replicas": 5 } });
    let headers = [("content-type", "application/merge-patch+json"), ("user-agent", "scaler/1.0 (linux)")];
    admin.request(Method::PATCH, &format!("{path}/scale"), &headers, scaled.to_string()).await.expect(200);
    let status = json!({ "status": { "replicas": 1 } });
    admin.patch(&format!("{path}/status?fieldManager=watcher"), "merge", &status).await.expect(200);
    let now = admin.get(&path).await.expect(200);
    assert_eq!(managers(&now), ["maker Update", "scaler Update scale", "watcher Update status"]);
    let entries = entries(&now);
    assert_eq!(entries[0].3["f:spec"].get("f:replicas"), None, "the scaler has taken it");
    assert_eq!(entries[1].3, json!({ "f:spec": { "f:replicas": {} } }));
    assert_eq!(entries[2].3, json!({ "f:status": { "f:replicas": {} } }));

    let applied = apply(&admin, &path, "fieldManager=me", &deployment("web")).await;
    assert!(
        applied
            .failure()
            .2
            .contains("conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas")
    );

    let scale = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "web" }, "spec": { "replicas": 7 } });
    let shown = apply(&admin, &format!("{path}/scale"), "fieldManager=hpa&force=true", &scale).await.expect(200);
    assert_eq!((&shown["kind"], &shown["spec"]["replicas"]), (&json!("Scale"), &json!(7)));
    let now = admin.get(&path).await.expect(200);
    assert!(managers(&now).contains(&"hpa Apply scale".to_owned()), "{now}");

    let maps = quorate_api::GroupVersionResource::from_static("", "v1", "configmaps");
    let made = local(&server.api).create(&maps, Some("default"), config_map("local")).await.expect("created");
    assert_eq!(managers(&made), ["test Update"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_applied_without_the_rest() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(PODS, &pod("web")).await.expect(201);
    let condition = json!({ "type": "example.com/gate", "status": "True" });
    let configuration = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" },
        "spec": { "hostname": "ignored" }, "status": { "conditions": [condition] },
    });
    let path = format!("{PODS}/web/status");
    let applied = apply(&admin, &path, "fieldManager=gate", &configuration).await.expect(200);
    assert_eq!(applied["spec"].get("hostname"), None);
    assert_eq!(applied["status"]["conditions"][0]["type"], "example.com/gate");
    let entries = entries(&applied);
    let gate = entries.iter().find(|entry| entry.0 == "gate").expect("an entry");
    assert_eq!(gate.2, "status");
    assert_eq!(gate.3.as_object().map(|fields| fields.keys().collect::<Vec<_>>()), Some(vec![&"f:status".to_owned()]));
    let mut absent = configuration;
    absent["metadata"]["name"] = "none".into();
    let absent = apply(&admin, &format!("{PODS}/none/status"), "fieldManager=gate", &absent).await;
    assert_eq!(absent.code, 404, "a status alone is no object");
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_can_be_reset_and_replaced() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{MAPS}/settings");
    apply(&admin, &path, "fieldManager=me", &map(json!({ "a": "1" }))).await.expect(201);
    // A client that does not know managed fields does not delete them.
    let kept = admin.put(&format!("{path}?fieldManager=editor"), &map(json!({ "a": "1", "b": "1" }))).await.expect(200);
    assert_eq!(managers(&kept), ["editor Update", "me Apply"]);
    // kubectl replaces the entries by a JSON patch when an object changes to server-side apply.
    let mut renamed = kept["metadata"]["managedFields"].clone();
    renamed[1]["operation"] = "Apply".into();
    let migrate = json!([{ "op": "replace", "path": "/metadata/managedFields", "value": renamed }]);
    let migrated = admin.patch(&path, "json", &migrate).await.expect(200);
    assert_eq!(managers(&migrated), ["editor Apply", "me Apply"]);
    let reset = json!({ "metadata": { "managedFields": [{}] }, "data": { "c": "1" } });
    let reset = admin.patch(&path, "merge", &reset).await.expect(200);
    assert_eq!((reset["metadata"].get("managedFields"), &reset["data"]["c"]), (None, &json!("1")));
    for (entry, message) in [
        (json!({ "manager": "x".repeat(129) }), "metadata.managedFields[0].manager: Too long"),
        (json!({ "manager": "a\nb" }), "should only contain printable characters"),
        (json!({ "subresource": "x".repeat(257) }), "metadata.managedFields[0].subresource: Too long"),
    ] {
        let valid = json!({ "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {} });
        let mut named = map(json!({ "c": "1" }));
        named["metadata"]["managedFields"] = json!([valid]);
        for (field, value) in entry.as_object().expect("an object") {
            named["metadata"]["managedFields"][0][field] = value.clone();
        }
        let (code, _, refused) = admin.put(&path, &named).await.failure();
        assert!(code == 422 && refused.contains(message), "{refused}");
        named["metadata"]["name"] = "other".into();
        let (code, _, refused) = admin.post(MAPS, &named).await.failure();
        assert!(code == 422 && refused.contains(message), "{refused}");
    }
    let mistyped = json!([{ "op": "add", "path": "/metadata/managedFields", "value": "all" }]);
    assert_eq!(admin.patch(&path, "json", &mistyped).await.code, 400);
    // The first apply begins to track again.
    let refused = apply(&admin, &path, "fieldManager=me", &map(json!({ "a": "2" }))).await.failure();
    assert!(refused.2.contains("\"before-first-apply\" using v1"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_takes_over_its_own_client_side_applies() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{MAPS}/settings");
    let mut object = map(json!({ "a": "1" }));
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    object["metadata"]["annotations"] = json!({ annotation: object.to_string() });
    admin.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &object).await.expect(201);
    let other = apply(&admin, &path, "fieldManager=other", &map(json!({ "a": "2" }))).await;
    assert_eq!(other.code, 409);
    admin.patch(&format!("{path}?fieldManager=other"), "merge", &json!({ "data": { "b": "1" } })).await.expect(200);
    let partly = apply(&admin, &path, "fieldManager=kubectl", &map(json!({ "a": "2", "b": "2" }))).await.failure();
    assert_eq!(partly.2, "Apply failed with 1 conflict: conflict with \"other\" using v1: .data.b");
    let taken = apply(&admin, &path, "fieldManager=kubectl", &map(json!({ "a": "2" }))).await.expect(200);
    assert_eq!(taken["data"], json!({ "a": "2", "b": "1" }));
    let last: Value =
        serde_json::from_str(taken["metadata"]["annotations"][annotation].as_str().expect("an annotation"))
            .expect("JSON");
    assert_eq!(last["data"], json!({ "a": "2" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_may_be_cbor() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{MAPS}/settings");
    let apply_cbor = |configuration: Vec<u8>| {
        let (admin, path) = (admin.clone(), format!("{path}?fieldManager=me"));
        let headers = [("content-type", "application/apply-patch+cbor"), ("accept", "application/json")];
        async move { admin.request(Method::PATCH, &path, &headers, configuration).await }
    };
    let cbor = |value: &Value| quorate_schema::cbor::encode(value).expect("CBOR");
    let created = apply_cbor(cbor(&map(json!({ "a": "1", "b": "1" })))).await.expect(201);
    assert_eq!(managers(&created), ["me Apply"]);
    let less = apply_cbor(cbor(&map(json!({ "a": "2" })))).await.expect(200);
    assert_eq!(less["data"], json!({ "a": "2" }));
    // The two formats are one applier's.
    let same = apply(&admin, &path, "fieldManager=me", &map(json!({ "a": "2" }))).await.expect(200);
    assert_eq!(same, less);
    for (body, message) in [
        (b"kind: ConfigMap".to_vec(), "error decoding CBOR: cbor: "),
        (cbor(&json!([])), "error decoding CBOR: the configuration is not an object"),
        (vec![0xa2, 0x61, b'a', 1, 0x61, b'a', 2], "error decoding CBOR: cbor: duplicate map key \"a\""),
    ] {
        let (code, _, refused) = apply_cbor(body).await.failure();
        assert!(code == 400 && refused.starts_with(message), "{refused}");
    }
    assert_eq!(admin.get(&path).await.expect(200), less);
}
