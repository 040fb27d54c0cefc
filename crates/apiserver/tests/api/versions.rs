//! Kinds in versions other than the stored one.

use serde_json::{Value, json};

use crate::applying::apply;
use crate::harness::Server;

const OLD: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const AUTOSCALERS_V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const AUTOSCALERS_V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

fn event(name: &str) -> Value {
    json!({
        "metadata": { "name": name }, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
        "reason": "Pulled", "action": "Pulling", "note": "done",
        "regarding": { "kind": "Pod", "name": "web", "namespace": "default" },
        "reportingController": "example.com/agent", "reportingInstance": "agent-1",
    })
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_one_object_in_both_versions() {
    let server = Server::start().await;
    let admin = server.admin();
    let start = admin.get(NEW).await.expect(200);
    let since = start["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut in_new = admin.watch(&format!("{NEW}?watch=1&resourceVersion={since}")).await;
    let mut in_old = admin.watch(&format!("{OLD}?watch=1&resourceVersion={since}")).await;

    let created = admin.post(NEW, &event("e")).await.expect(201);
    assert_eq!((&created["apiVersion"], &created["note"]), (&json!("events.k8s.io/v1"), &json!("done")));
    let old = admin.get(&format!("{OLD}/e")).await.expect(200);
    assert_eq!((&old["apiVersion"], &old["message"], &old["note"]), (&json!("v1"), &json!("done"), &Value::Null));
    assert_eq!(old["involvedObject"]["name"], "web");
    assert_eq!(old["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(admin.get(&format!("{NEW}/e")).await.expect(200), created);
    let seen = (in_new.next().await.expect("an event"), in_old.next().await.expect("an event"));
    assert_eq!((&seen.0["object"], &seen.1["object"]), (&created, &old));

    let mut second = event("f");
    second["regarding"]["kind"] = "Node".into();
    admin.post(NEW, &second).await.expect(201);
    let selected = |path: &str, field: &str| format!("{path}?fieldSelector={field}");
    let list = admin.get(&selected(NEW, "regarding.kind%3DNode")).await.expect(200);
    assert_eq!((names(&list), &list["kind"]), (vec!["f"], &json!("EventList")));
    assert_eq!(list["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list["items"][0]["regarding"]["kind"], "Node");
    assert_eq!(names(&admin.get(&selected(OLD, "involvedObject.kind%3DNode")).await.expect(200)), ["f"]);
    assert_eq!(admin.get(&selected(NEW, "involvedObject.kind%3DNode")).await.code, 400, "the old version's name");

    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = admin.get_as(&format!("{NEW}?includeObject=Object"), table).await.expect(200);
    assert_eq!(table["rows"][0]["cells"][6], "done");
    assert_eq!(table["rows"][0]["object"]["note"], "done");
    admin.delete(&format!("{NEW}/f"), &json!({})).await.expect(200);
    assert_eq!(names(&admin.get(OLD).await.expect(200)), ["e"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_series_of_an_event_changes_in_its_own_group() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut unfinished = event("a");
    unfinished["action"] = "".into();
    unfinished["deprecatedCount"] = 1.into();
    let (code, _, message) = admin.post(NEW, &unfinished).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("action: Required value") && message.contains("count: Invalid value"), "{message}");

    admin.post(NEW, &event("e")).await.expect(201);
    let path = format!("{NEW}/e");
    let series = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z" } });
    let patched = admin.patch(&path, "strategic-merge", &series).await.expect(200);
    assert_eq!((&patched["series"]["count"], &patched["note"]), (&json!(2), &json!("done")));
    let (code, _, message) = admin.patch(&path, "merge", &json!({ "note": "other" })).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("message: Invalid value: \"other\": field is immutable"), "{message}");
    let through_old = json!({ "message": "other" });
    admin.patch(&format!("{OLD}/e"), "merge", &through_old).await.expect(200);
    let mut read = admin.get(&path).await.expect(200);
    assert_eq!(read["note"], "other");
    read["series"]["count"] = 3.into();
    assert_eq!(admin.put(&path, &read).await.expect(200)["series"]["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn field_managers_of_both_versions_agree_on_who_has_what() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut configuration = event("e");
    configuration["apiVersion"] = "events.k8s.io/v1".into();
    configuration["kind"] = "Event".into();
    let applied = apply(&admin, &format!("{NEW}/e"), "fieldManager=one", &configuration).await.expect(201);
    let entry = &applied["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsV1"]["f:note"]), (&json!("events.k8s.io/v1"), &json!({})));

    let other = json!({ "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "message": "other" });
    let (code, _, message) = apply(&admin, &format!("{OLD}/e"), "fieldManager=two", &other).await.failure();
    assert_eq!(code, 409);
    assert!(message.contains("conflict with \"one\": .note"), "{message}");
    apply(&admin, &format!("{OLD}/e"), "fieldManager=two&force=true", &other).await.expect(200);
    let read = admin.get(&format!("{NEW}/e")).await.expect(200);
    assert_eq!(read["note"], "other");
    let entries = read["metadata"]["managedFields"].as_array().expect("managers");
    let of = |manager: &str| entries.iter().find(|entry| entry["manager"] == manager).expect("a manager");
    assert_eq!(of("one")["fieldsV1"].get("f:note"), None, "the other manager has taken it");
    assert_eq!(of("two")["fieldsV1"], json!({ "f:message": {} }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_keeps_its_metrics_through_the_old_version() {
    let server = Server::start().await;
    let admin = server.admin();
    let spec = json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "maxReplicas": 5, "targetCPUUtilizationPercentage": 70,
    });
    let created = admin.post(AUTOSCALERS_V1, &json!({ "metadata": { "name": "web" }, "spec": spec })).await.expect(201);
    assert_eq!((&created["spec"]["minReplicas"], &created["apiVersion"]), (&json!(1), &json!("autoscaling/v1")));
    let fields = &created["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!(fields["f:targetCPUUtilizationPercentage"], json!({}));
    let path = format!("{AUTOSCALERS_V2}/web");
    let stored = admin.get(&path).await.expect(200);
    assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);

    let memory = json!({ "type": "Resource", "resource": { "name": "memory", "target": {
        "type": "Utilization", "averageUtilization": 60,
    } } });
    let add = json!([{ "op": "add", "path": "/spec/metrics/-", "value": memory }]);
    admin.patch(&path, "json", &add).await.expect(200);
    let mut old = admin.get(&format!("{AUTOSCALERS_V1}/web")).await.expect(200);
    assert!(old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].is_string(), "{old}");
    old["spec"]["maxReplicas"] = 7.into();
    admin.put(&format!("{AUTOSCALERS_V1}/web"), &old).await.expect(200);
    let stored = admin.get(&path).await.expect(200);
    assert_eq!((&stored["spec"]["maxReplicas"], &stored["spec"]["metrics"][1]), (&json!(7), &memory));
    assert_eq!(stored["metadata"].get("annotations"), None, "the annotation is not stored");

    let status =
        json!({ "status": { "desiredReplicas": 2, "currentReplicas": 2, "currentCPUUtilizationPercentage": 9 } });
    admin.patch(&format!("{AUTOSCALERS_V1}/web/status"), "merge", &status).await.expect(200);
    let stored = admin.get(&path).await.expect(200);
    assert_eq!(stored["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"], 9);
    let invalid = json!({ "spec": { "maxReplicas": 0 } });
    assert_eq!(admin.patch(&format!("{AUTOSCALERS_V1}/web"), "merge", &invalid).await.code, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_prefers_the_stored_version() {
    let server = Server::start().await;
    let group = server.admin().get("/apis/autoscaling").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let versions: Vec<&str> =
        group["versions"].as_array().expect("versions").iter().filter_map(|v| v["version"].as_str()).collect();
    assert_eq!(versions, ["v2", "v1"]);
}
