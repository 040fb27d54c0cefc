//! Compares the table of kinds with reference data of Kubernetes.

use std::collections::HashSet;

use serde_json::Value;

use super::*;
use crate::subresource::Documents;

/// One object of each kind with every field set, condensed from the round-trip test data of Kubernetes v1.36. Values
/// lack the suffix `Value`. Parts that occur in several objects, `ObjectMeta` and `PodSpec`, are written once and
/// referred to by name.
const OBJECTS: &str = include_str!("../../testdata/objects.json");

/// Returns the complete object of a kind that has one.
fn sample(kind: &str) -> Option<Value> {
    let objects: Value = serde_json::from_str(OBJECTS).expect("JSON");
    let mut object = objects.get(kind)?.clone();
    complete(&mut object, &objects);
    Some(object)
}

fn complete(value: &mut Value, parts: &Value) {
    match value {
        Value::String(part) if matches!(part.as_str(), "ObjectMeta" | "PodSpec") => {
            *value = parts[part.as_str()].clone()
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| complete(field, parts)),
        Value::Array(list) => list.iter_mut().for_each(|element| complete(element, parts)),
        _ => {}
    }
}

#[test]
fn names_and_verbs_match_discovery() {
    // The discovery data of Kubernetes v1.36 for each resource, by group and version.
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
        for subresource in row.subresources.iter().map(|subresource| subresource.row()) {
            let expected = find(&format!("{}/{}", row.resource.resource, subresource.name));
            let api_version = match expected["group"].as_str() {
                Some(group) => format!("{group}/{}", expected["version"].as_str().expect("a version")),
                None => row.kind.api_version(),
            };
            let (own_version, own_kind) = (row.kind.api_version(), row.kind.kind.as_ref());
            let actual = match subresource.documents {
                Documents::Own => (own_version.as_str(), own_kind),
                Documents::Other { api_version, kind } => (api_version, kind),
            };
            assert_eq!(actual, (api_version.as_str(), expected["kind"].as_str().expect("a kind")), "{expected}");
            let verbs: Vec<&str> = subresource.verbs.iter().map(|verb| verb.as_str()).collect();
            assert_eq!(list(&expected["verbs"]), verbs, "{expected}");
        }
    }
}

#[test]
fn no_kind_and_no_resource_is_served_twice() {
    let rows = builtin();
    let others = rows.iter().flat_map(|row| row.versions.iter().map(|version| row.in_version(version)));
    let all: Vec<Descriptor> = rows.iter().cloned().chain(others).collect();
    let kinds: HashSet<String> = all.iter().map(|row| row.kind.to_string()).collect();
    let resources: HashSet<String> = all.iter().map(|row| row.resource.to_string()).collect();
    assert_eq!((kinds.len(), resources.len()), (all.len(), all.len()));
}

#[test]
fn rows_come_in_discovery_order() {
    let rows = builtin();
    let rank = |row: &Descriptor| GROUPS.iter().position(|group| *group == row.kind.group).expect("a known group");
    assert!(rows.is_sorted_by_key(|row| (rank(row), row.resource.resource.clone())));
}

#[test]
fn nothing_is_lost_in_decoding() {
    let mut count = 0;
    for row in builtin() {
        let Some(object) = sample(&row.kind.kind) else { continue };
        count += 1;
        let decoded = row.schema.decode(object.clone()).unwrap_or_else(|error| panic!("{}: {error}", row.kind));
        assert_eq!(decoded.strict, [], "{}", row.kind);
        assert_eq!(decoded.object, object, "{}", row.kind);
    }
    assert_eq!(count, 13);
}

#[test]
fn defaulting_is_idempotent_and_decodable() {
    for row in builtin() {
        let minimal = serde_json::json!({
            "apiVersion": row.kind.api_version(), "kind": row.kind.kind, "metadata": {"name": "a"},
        });
        for object in std::iter::once(minimal).chain(sample(&row.kind.kind)) {
            let mut once = row.schema.decode(object).unwrap_or_else(|error| panic!("{}: {error}", row.kind)).object;
            row.default(&mut once);
            let mut twice = once.clone();
            row.default(&mut twice);
            assert_eq!(once, twice, "{}", row.kind);
            let decoded = row.schema.decode(once.clone()).unwrap_or_else(|error| panic!("{}: {error}", row.kind));
            assert_eq!(decoded.object, once, "{}", row.kind);
            assert_eq!(row.strategy.cells(&once, jiff::Timestamp::UNIX_EPOCH).len(), row.columns.len(), "{}", row.kind);
            let names: Vec<&str> = row.strategy.selectable_fields(&once).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, row.strategy.selectable_field_names(), "{}", row.kind);
        }
    }
}

/// Checks the columns against the printers of Kubernetes v1.36: name, type, and the priority where it is not 0.
#[test]
fn columns_are_those_of_kubernetes() {
    let workload = "Containers string 1, Images string 1, Selector string 1";
    let golden = [
        ("ConfigMap", "Name string, Data string, Age string".to_owned()),
        ("Role", "Name string, Created At date".to_owned()),
        ("StatefulSet", "Name string, Ready string, Age string, Containers string 1, Images string 1".to_owned()),
        (
            "PriorityClass",
            "Name string, Value integer, Global-Default boolean, Age string, PreemptionPolicy string".to_owned(),
        ),
        ("Endpoints", "Name string, Endpoints string, Age string".to_owned()),
        (
            "Event",
            "Last Seen string, Type string, Reason string, Object string, Subobject string 1, Source string 1, \
             Message string, First Seen string 1, Count string 1, Name string 1"
                .to_owned(),
        ),
        ("Namespace", "Name string, Status string, Age string".to_owned()),
        (
            "Node",
            "Name string, Status string, Roles string, Age string, Version string, Internal-IP string 1, \
             External-IP string 1, OS-Image string 1, Kernel-Version string 1, Container-Runtime string 1"
                .to_owned(),
        ),
        (
            "Pod",
            "Name string, Ready string, Status string, Restarts string, Age string, IP string 1, Node string 1, \
             Nominated Node string 1, Readiness Gates string 1"
                .to_owned(),
        ),
        ("Secret", "Name string, Type string, Data string, Age string".to_owned()),
        ("ServiceAccount", "Name string, Secrets string, Age string".to_owned()),
        (
            "Service",
            "Name string, Type string, Cluster-IP string, External-IP string, Port(s) string, Age string, \
             Selector string 1"
                .to_owned(),
        ),
        (
            "Deployment",
            format!("Name string, Ready string, Up-to-date string, Available string, Age string, {workload}"),
        ),
        ("ReplicaSet", format!("Name string, Desired integer, Current integer, Ready integer, Age string, {workload}")),
        ("Lease", "Name string, Holder string, Age string".to_owned()),
        ("EndpointSlice", "Name string, AddressType string, Ports string, Endpoints string, Age string".to_owned()),
    ];
    let shown = |row: &Descriptor| {
        let columns = row.columns.iter().map(|column| match column.priority {
            0 => format!("{} {}", column.name, column.data_type),
            priority => format!("{} {} {priority}", column.name, column.data_type),
        });
        columns.collect::<Vec<_>>().join(", ")
    };
    let rows = builtin();
    for (kind, expected) in golden {
        let row = rows.iter().find(|row| row.kind.kind == kind).expect("a row");
        assert_eq!(shown(row), expected, "{kind}");
    }
    for row in &rows {
        let named: Vec<&str> = row.columns.iter().filter(|c| c.format == "name").map(|c| c.name.as_ref()).collect();
        assert_eq!(named, ["Name"], "{}", row.kind);
    }
}
