//! Tests of watches.

use serde_json::{Value, json};

use crate::harness::{Lines, Server, config_map, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

async fn expect(lines: &mut Lines, kind: &str, name: &str) {
    assert_eq!(lines.named().await, (kind.to_owned(), name.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_follow_the_requested_version() {
    let server = Server::start().await;
    let admin = server.admin();
    let first = admin.post(MAPS, &config_map("a")).await.expect(201);
    let second = admin.post(MAPS, &config_map("b")).await.expect(201);
    let mut lines = admin.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&first))).await;
    assert_eq!(lines.next().await, Some(json!({ "type": "ADDED", "object": second })));
    let patch = json!({ "data": { "key": "new" } });
    let patched = admin.patch(&format!("{MAPS}/b"), "merge", &patch).await.expect(200);
    assert_eq!(lines.next().await, Some(json!({ "type": "MODIFIED", "object": patched })));
    admin.delete(&format!("{MAPS}/b"), &json!({})).await.expect(200);
    let deleted = lines.next().await.expect("an event");
    assert_eq!((&deleted["type"], &deleted["object"]["data"]), (&json!("DELETED"), &patched["data"]));
    assert_eq!(version(&deleted["object"]), server.api.store().revision().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_version_the_state_comes_first() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(MAPS, &config_map("a")).await.expect(201);
    for query in ["watch=true", "watch=true&resourceVersion=0"] {
        let mut lines = admin.watch(&format!("{MAPS}?{query}")).await;
        expect(&mut lines, "ADDED", "a").await;
        admin.post(MAPS, &config_map("b")).await.expect(201);
        expect(&mut lines, "ADDED", "b").await;
        admin.delete(&format!("{MAPS}/b"), &json!({})).await.expect(200);
        expect(&mut lines, "DELETED", "b").await;
    }
    let mut one = admin.watch("/api/v1/watch/namespaces/default/configmaps/a").await;
    expect(&mut one, "ADDED", "a").await;
    admin.post(MAPS, &config_map("c")).await.expect(201);
    admin.delete(&format!("{MAPS}/a"), &json!({})).await.expect(200);
    expect(&mut one, "DELETED", "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_object_is_returned_even_if_a_watch_is_asked_for() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(MAPS, &config_map("a")).await.expect(201);
    assert_eq!(admin.get(&format!("{MAPS}/a?watch=true")).await.expect(200), created);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bookmark_ends_the_initial_events() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(MAPS, &config_map("a")).await.expect(201);
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = admin.watch(&format!("{MAPS}?{query}")).await;
    expect(&mut lines, "ADDED", "a").await;
    let bookmark = lines.next().await.expect("an event");
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(admin.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.failure().0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_a_bookmark_when_its_time_is_up() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(MAPS, &config_map("a")).await.expect(201);
    let query = format!("watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={}", version(&created));
    let mut lines = admin.watch(&format!("{MAPS}?{query}")).await;
    let bookmark = lines.next().await.expect("an event");
    assert_eq!((&bookmark["type"], version(&bookmark["object"])), (&json!("BOOKMARK"), version(&created)));
    assert_eq!(lines.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_added_and_deleted_with_the_selector() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut lines = admin.watch(&format!("{PODS}?watch=1&labelSelector=app%3Dweb")).await;
    let mut unscheduled = admin.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3D").await;
    admin.post(PODS, &pod("p")).await.expect(201);
    expect(&mut unscheduled, "ADDED", "p").await;
    let path = format!("{PODS}/p");
    let label = |value: Value| json!({ "metadata": { "labels": { "app": value } } });
    admin.patch(&path, "merge", &label("web".into())).await.expect(200);
    expect(&mut lines, "ADDED", "p").await;
    expect(&mut unscheduled, "MODIFIED", "p").await;
    let annotate = json!({ "metadata": { "annotations": { "a": "b" } } });
    admin.patch(&path, "merge", &annotate).await.expect(200);
    expect(&mut lines, "MODIFIED", "p").await;
    let left = admin.patch(&path, "merge", &label("other".into())).await.expect(200);
    let deleted = lines.next().await.expect("an event");
    assert_eq!(
        (&deleted["type"], &deleted["object"]["metadata"]["labels"]),
        (&json!("DELETED"), &json!({ "app": "web" }))
    );
    assert_eq!(version(&deleted["object"]), version(&left));
    admin.patch(&path, "merge", &label("web".into())).await.expect(200);
    expect(&mut lines, "ADDED", "p").await;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n" },
    });
    admin.post(&format!("{path}/binding"), &binding).await.expect(201);
    expect(&mut lines, "MODIFIED", "p").await;
    for kind in ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED"] {
        expect(&mut unscheduled, kind, "p").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_start_is_an_error_event() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(MAPS, &config_map("a")).await.expect(201);
    admin.post(MAPS, &config_map("b")).await.expect(201);
    admin.post(MAPS, &config_map("c")).await.expect(201);
    let compact = quorate_mvcc::Command::Compact { revision: server.api.store().revision() };
    server.api.store().propose(compact).await.expect("the store compacts");
    let mut lines = admin.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&created))).await;
    let event = lines.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(lines.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_watched() {
    let server = Server::start().await;
    let admin = server.admin();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut lines = admin.watch_as(&format!("{PODS}?watch=1"), accept).await;
    admin.post(PODS, &pod("p")).await.expect(201);
    let event = lines.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "p");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watchers_see_the_same_events_in_order() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut lines = admin.watch(&format!("{MAPS}?watch=1")).await;
        watchers.spawn(async move {
            let mut names = Vec::new();
            while names.len() < 50 {
                names.push(lines.named().await.1);
            }
            names
        });
    }
    for index in 0..50 {
        admin.post(MAPS, &config_map(&format!("map-{index:02}"))).await.expect(201);
    }
    let expected: Vec<String> = (0..50).map(|i| format!("map-{i:02}")).collect();
    while let Some(names) = watchers.join_next().await {
        assert_eq!(names.expect("a watcher"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_watches() {
    let mut server = Server::start().await;
    let mut lines = server.admin().watch(&format!("{MAPS}?watch=1")).await;
    server.shutdown.cancel();
    assert_eq!(lines.next().await, None);
    server.ended().await;
}
