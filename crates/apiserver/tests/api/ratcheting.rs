//! Tests of updates to objects that were stored before validation became stricter.

use quorate_mvcc::{Op, PutRequest, Txn};
use serde_json::{Value, json};

use crate::harness::{Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Stores a ConfigMap that validation would refuse.
async fn store_invalid(server: &Server, name: &str) {
    let mut map = config_map(name);
    map["metadata"] = json!({
        "name": name, "namespace": "default", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["example.com/hold"], "labels": { "app": "not a label" },
    });
    map["data"] = json!({ "not a key": "value" });
    let key = format!("/registry/core/configmaps/default/{name}");
    let put = Op::Put(PutRequest { key: key.into(), value: map.to_string().into(), ..PutRequest::default() });
    let txn = Txn { compare: Vec::new(), success: vec![put], failure: Vec::new() };
    server.api.store().txn(txn).await.expect("stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_invalid_object_can_be_changed_elsewhere_and_deleted() {
    let server = Server::start().await;
    let admin = server.admin();
    store_invalid(&server, "old").await;
    let path = format!("{MAPS}/old");
    let patch = async |patch: Value| admin.patch(&path, "merge", &patch).await;
    patch(json!({ "metadata": { "annotations": { "a": "b" } } })).await.expect(200);
    patch(json!({ "data": { "key": "value" } })).await.expect(200);
    let whole = admin.get(&path).await.expect(200);
    admin.put(&path, &whole).await.expect(200);

    // New errors are refused, and so are other values for the old ones.
    for (change, field) in [
        (json!({ "data": { "not a key": "other" } }), "data[not a key]"),
        (json!({ "data": { "also no key": "value" } }), "data[also no key]"),
        (json!({ "metadata": { "labels": { "app": "no label either" } } }), "metadata.labels"),
        (json!({ "metadata": { "labels": { "b": "no label" } } }), "metadata.labels"),
    ] {
        let (code, _, message) = patch(change).await.failure();
        assert!(code == 422 && message.contains(field), "{message}");
    }
    // A correction is not undone.
    patch(json!({ "data": { "not a key": null } })).await.expect(200);
    assert_eq!(patch(json!({ "data": { "not a key": "value" } })).await.failure().0, 422);

    admin.delete(&path, &json!({})).await.expect(200);
    patch(json!({ "metadata": { "finalizers": null } })).await.expect(200);
    assert_eq!(admin.get(&path).await.code, 404);
}
