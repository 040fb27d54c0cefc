use serde_json::json;

use super::*;

fn check(kind: &str, meta: Value) -> Vec<String> {
    let row = crate::builtin().into_iter().find(|row| row.kind.kind == kind).expect("a built-in kind");
    validate(&json!({ "metadata": meta }), &row).iter().map(ToString::to_string).collect()
}

fn starts(errors: &[String], expected: &[&str]) {
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error}\nshould start with\n{expected}");
    }
}

#[test]
fn valid_metadata_passes() {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true});
    let meta = json!({
        "name": "web-1.example", "generateName": "web-", "namespace": "default",
        "labels": {"app": "web", "example.com/tier": ""}, "annotations": {"Example.com/Note": "any text"},
        "ownerReferences": [owner], "finalizers": ["example.com/hold", "foregroundDeletion"],
    });
    assert_eq!(check("Pod", meta), Vec::<String>::new());
    assert_eq!(check("Node", json!({"name": "worker-1"})), Vec::<String>::new());
}

#[test]
fn names_have_the_form_of_their_kind() {
    starts(
        &check("Pod", json!({"namespace": "default"})),
        &["metadata.name: Required value: name or generateName is required"],
    );
    starts(
        &check("Pod", json!({"name": "Web", "namespace": "default"})),
        &["metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain must consist of"],
    );
    starts(
        &check("Namespace", json!({"name": "a.b"})),
        &["metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of"],
    );
    starts(
        &check("Service", json!({"name": "1a", "namespace": "default"})),
        &["metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of"],
    );
    starts(
        &check("Pod", json!({"name": "a", "generateName": "_", "namespace": "default"})),
        &["metadata.generateName: Invalid value: \"_\": a lowercase RFC 1123 subdomain"],
    );
}

#[test]
fn scope_labels_owners_and_finalizers_are_checked() {
    starts(&check("Pod", json!({"name": "a"})), &["metadata.namespace: Required value"]);
    starts(
        &check("Node", json!({"name": "a", "namespace": "b"})),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    starts(
        &check("Node", json!({"name": "a", "labels": {"-a": "b c"}})),
        &[
            "metadata.labels: Invalid value: \"-a\": name part must consist of",
            "metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of",
        ],
    );
    starts(
        &check("Node", json!({"name": "a", "annotations": {"big": "x".repeat(MAX_ANNOTATIONS_BYTES)}})),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
    starts(
        &check("Node", json!({"name": "a", "ownerReferences": [owner("x"), owner("y")]})),
        &["metadata.ownerReferences: Invalid value: ["],
    );
    starts(
        &check(
            "Node",
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": ""}]}),
        ),
        &["metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty"],
    );
    starts(
        &check("Node", json!({"name": "a", "finalizers": ["mine"]})),
        &["metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor"],
    );
}

#[test]
fn identity_is_immutable() {
    let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"]}});
    let mut new = old.clone();
    assert!(validate_update(&new, &old).is_empty());
    new["metadata"]["uid"] = json!("2");
    new["metadata"]["finalizers"] = json!(["x/z"]);
    let errors: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
    starts(
        &errors,
        &[
            "metadata.uid: Invalid value: \"2\": field is immutable",
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/z\"}",
        ],
    );
}
