//! The table against the reference data of Kubernetes, when it is there.

use std::path::PathBuf;

use serde_json::Value;

use super::*;

/// A JSON document of the reference, or `None` with a message.
fn reference(path: &str) -> Option<Value> {
    let root = std::env::var_os("QUORATE_K8S_REFERENCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/k8s"), PathBuf::from);
    match std::fs::read_to_string(root.join(path)) {
        Ok(text) => Some(serde_json::from_str(&text).expect("reference data is JSON")),
        Err(error) => {
            say(&format!("skipped: no Kubernetes reference data ({path}: {error})"));
            None
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test says why it did not run")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[test]
fn names_and_verbs_are_those_of_discovery() {
    // What Kubernetes v1.36 tells of each resource, by group and version.
    let kubernetes: Value = serde_json::from_str(include_str!("../../testdata/discovery.json")).expect("JSON");
    for row in builtin() {
        let resources = kubernetes[row.kind.api_version().as_str()].as_array().expect("resources");
        let find = |name: &str| resources.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        let expected = find(&row.resource.resource);
        let list = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|v| v.as_str().expect("string").to_owned()).collect()
        };
        assert_eq!(expected["kind"], row.kind.kind.as_ref());
        assert_eq!(expected["singularName"], row.singular.as_ref());
        assert_eq!(expected["namespaced"], row.scope == Scope::Namespaced);
        assert_eq!(list(&expected["shortNames"]), row.short_names.to_vec(), "{}", row.resource);
        assert_eq!(list(&expected["categories"]), row.categories.to_vec(), "{}", row.resource);
        assert_eq!(list(&expected["verbs"]), row.verbs.iter().map(|v| v.as_str()).collect::<Vec<_>>());
        for subresource in row.subresources {
            find(&format!("{}/{}", row.resource.resource, subresource.as_str()));
        }
    }
}

#[test]
fn rows_come_in_discovery_order() {
    let names: Vec<String> =
        builtin().iter().map(|row| format!("{}/{}", row.kind.group, row.resource.resource)).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
}

#[test]
fn nothing_is_lost_in_decoding() {
    for row in builtin() {
        let group = if row.kind.group.is_empty() { "core" } else { &row.kind.group };
        let file = format!("objects/{group}.{}.{}.json", row.kind.version, row.kind.kind);
        let Some(object) = reference(&file) else { return };
        let decoded = row.strategy.decode(object.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(decoded.unknown_fields, Vec::<String>::new(), "{file}");
        assert_eq!(decoded.object, object, "{file}");
    }
}

#[test]
fn defaulting_is_idempotent_and_decodable() {
    for row in builtin() {
        let group = if row.kind.group.is_empty() { "core" } else { &row.kind.group };
        let file = format!("objects/{group}.{}.{}.json", row.kind.version, row.kind.kind);
        let minimal = serde_json::json!({
            "apiVersion": row.kind.api_version(), "kind": row.kind.kind, "metadata": {"name": "a"},
        });
        for object in [Some(minimal), reference(&file)].into_iter().flatten() {
            let mut once = row.strategy.decode(object).unwrap_or_else(|error| panic!("{}: {error}", row.kind)).object;
            row.strategy.default(&mut once);
            let mut twice = once.clone();
            row.strategy.default(&mut twice);
            assert_eq!(once, twice, "{}", row.kind);
            let decoded = row.strategy.decode(once.clone()).unwrap_or_else(|error| panic!("{}: {error}", row.kind));
            // Lists that a type requires come out of decoding even when they are empty.
            assert!(crate::value::equal(&decoded.object, &once), "{}: {} {once}", row.kind, decoded.object);
            assert_eq!(row.strategy.cells(&once, jiff::Timestamp::UNIX_EPOCH).len(), row.columns.len(), "{}", row.kind);
            let names: Vec<&str> = row.strategy.selectable_fields(&once).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, row.strategy.selectable_field_names(), "{}", row.kind);
        }
    }
}
