use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const POD: GroupVersionKind = GroupVersionKind::from_static("", "v1", "Pod");
const DEPLOYMENT: GroupVersionKind = GroupVersionKind::from_static("apps", "v1", "Deployment");
const SERVICE: GroupVersionKind = GroupVersionKind::from_static("", "v1", "Service");

fn check(kind: &GroupVersionKind, mut target: Value, patch: &Value, expected: &Value) {
    apply(kind, &mut target, patch).expect("the patch applies");
    assert_eq!(&target, expected, "{patch}");
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn deleting_an_absent_field_changes_nothing() {
    let pod = json!({"spec": {"containers": [{"name": "a"}]}});
    for patch in [
        json!({"spec": {"nodeSelector": {"$patch": "delete"}}}),
        json!({"spec": {"volumes": [{"name": "v", "$patch": "delete"}]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}),
    ] {
        let mut target = pod.clone();
        apply(&POD, &mut target, &patch).expect("the patch applies");
        let kept = target["spec"].as_object().expect("a spec").len();
        assert_eq!((&target["spec"]["containers"], kept), (&pod["spec"]["containers"], 1), "{patch}");
    }
    check(
        &POD,
        pod,
        &json!({"spec": {"tolerations": []}}),
        &json!({"spec": {"containers": [{"name": "a"}], "tolerations": []}}),
    );
}

#[test]
fn lists_merge_by_key_or_are_replaced() {
    check(
        &POD,
        containers(json!([{"name": "a", "image": "x", "args": ["1", "2"]}, {"name": "b"}])),
        &containers(json!([{"name": "a", "image": "y", "args": ["3"]}, {"name": "c"}])),
        &containers(json!([{"name": "a", "image": "y", "args": ["3"]}, {"name": "b"}, {"name": "c"}])),
    );
    check(
        &POD,
        json!({"spec": {"tolerations": [{"key": "a"}]}}),
        &json!({"spec": {"tolerations": [{"key": "b"}]}}),
        &json!({"spec": {"tolerations": [{"key": "b"}]}}),
    );
    check(
        &SERVICE,
        json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}),
        &json!({"spec": {"ports": [{"port": 443, "name": "https"}, {"port": 80, "targetPort": 8080}]}}),
        &json!({"spec": {"ports": [{"port": 443, "name": "https"}, {"port": 80, "name": "http", "targetPort": 8080}]}}),
    );
    check(
        &POD,
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        &json!({"metadata": {"finalizers": ["c", "b"]}}),
        &json!({"metadata": {"finalizers": ["a", "c", "b"]}}),
    );
}

#[test]
fn repeated_keys_keep_their_places() {
    // The first element of a key is merged, and a new element is there for the next one of its key.
    check(
        &POD,
        containers(json!([{"name": "a"}, {"name": "a", "image": "second"}, {"name": "b"}])),
        &containers(json!([{"name": "a", "image": "x"}, {"name": "c"}, {"name": "c", "image": "y"}])),
        &containers(json!([
            {"name": "a", "image": "x"}, {"name": "a", "image": "second"}, {"name": "b"}, {"name": "c", "image": "y"},
        ])),
    );
    // A deletion takes every element of its key, wherever it stands in the patch.
    check(
        &POD,
        containers(json!([{"name": "a"}, {"name": "b"}, {"name": "a"}])),
        &containers(json!([{"name": "a", "image": "x"}, {"name": "a", "$patch": "delete"}])),
        &containers(json!([{"name": "a", "image": "x"}, {"name": "b"}])),
    );
}

#[test]
fn long_lists_merge() {
    let long = |image: &str, order: &mut dyn Iterator<Item = usize>| {
        let ports = order.map(|i| json!({"port": i, "name": format!("{image}-{i}")}));
        json!({"spec": {"ports": ports.collect::<Vec<_>>()}})
    };
    let (mut target, mut patch) = (long("old", &mut (0..40_000)), long("new", &mut (20_000..60_000).rev()));
    let finalizers = |range: std::ops::Range<usize>| range.map(|i| json!(format!("f{i}"))).collect::<Vec<_>>();
    target["metadata"]["finalizers"] = finalizers(0..40_000).into();
    patch["metadata"]["finalizers"] = finalizers(20_000..60_000).into();
    patch["spec"]["$setElementOrder/ports"] = (0..60_000).rev().map(|i| json!({"port": i})).collect();
    // A search of the list for each element would take minutes.
    apply(&SERVICE, &mut target, &patch).expect("the patch applies");
    assert_eq!(target["spec"]["ports"].as_array().map(Vec::len), Some(60_000));
    assert_eq!(target["metadata"]["finalizers"].as_array().map(Vec::len), Some(60_000));
}

#[test]
fn parents_are_created_and_nulls_dropped() {
    check(
        &DEPLOYMENT,
        json!({}),
        &json!({"spec": {"template": {"metadata": {"annotations": {"at": "now", "gone": null}}}}}),
        &json!({"spec": {"template": {"metadata": {"annotations": {"at": "now"}}}}}),
    );
    check(&POD, json!({"a": {"b": 1}}), &json!({"a": null, "c": null}), &json!({}));
    check(&POD, json!({"a": [1]}), &json!({"a": {"b": 1}}), &json!({"a": {"b": 1}}));
}

#[test]
fn directives_apply_to_elements() {
    check(
        &POD,
        containers(json!([{"name": "a"}, {"name": "b"}])),
        &containers(json!([{"name": "a", "$patch": "delete"}, {"name": "missing", "$patch": "delete"}])),
        &containers(json!([{"name": "b"}])),
    );
    check(
        &POD,
        containers(json!([{"name": "a"}, {"name": "b"}])),
        &containers(json!([{"$patch": "replace"}, {"name": "c"}])),
        &containers(json!([{"name": "c"}])),
    );
    check(
        &POD,
        json!({}),
        &containers(json!([{"name": "a", "$patch": "delete"}, {"name": "c", "$setElementOrder/env": []}])),
        &containers(json!([{"name": "c"}])),
    );
}

#[test]
fn directives_apply_to_maps() {
    check(
        &POD,
        json!({"metadata": {"labels": {"a": "1"}}}),
        &json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
        &json!({"metadata": {"labels": {"b": "2"}}}),
    );
    check(
        &POD,
        json!({"metadata": {"labels": {"a": "1"}}}),
        &json!({"metadata": {"labels": {"$patch": "delete"}}}),
        &json!({"metadata": {"labels": {}}}),
    );
    check(
        &POD,
        json!({"metadata": {"labels": {"a": "1"}}}),
        &json!({"metadata": {"labels": {"$patch": "merge", "b": "2"}}}),
        &json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
    );
}

#[test]
fn retain_keys_switches_unions() {
    check(
        &DEPLOYMENT,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        &json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        &json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        &POD,
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}]}}),
        &json!({"spec": {"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "secret": {"secretName": "s"}}]}}),
        &json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w"}]}}),
    );
    let error = apply(
        &DEPLOYMENT,
        &mut json!({"spec": {"strategy": {}}}),
        &json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
    );
    assert_eq!(error, Err(PatchError::Unprocessable("invalid patch format of retainKeys".to_owned())));
}

#[test]
fn element_order_is_obeyed() {
    let old = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "server"}, {"name": "c"}]}});
    check(
        &POD,
        old.clone(),
        &json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}, {"name": "new"}],
            "containers": [{"name": "a", "image": "x"}, {"name": "new"}],
        }}),
        &containers(json!([
            {"name": "server"}, {"name": "c"}, {"name": "a", "image": "x"}, {"name": "b"}, {"name": "new"}
        ])),
    );
    check(
        &POD,
        old.clone(),
        &json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        &containers(json!([{"name": "b"}, {"name": "a"}, {"name": "server"}, {"name": "c"}])),
    );
    check(
        &POD,
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        &json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["c", "a"],
        }}),
        &json!({"metadata": {"finalizers": ["c", "a"]}}),
    );
    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "b"}, {"name": "a"}],
    }});
    assert!(apply(&POD, &mut old.clone(), &patch).is_err(), "the orders contradict each other");
}

#[test]
fn kubectl_apply_removes_a_container() {
    check(
        &DEPLOYMENT,
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "web", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"name": "side", "image": "b"},
        ]}}}}),
        &json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "web"}],
            "containers": [
                {
                    "$setElementOrder/env": [{"name": "B"}, {"name": "C"}],
                    "name": "web",
                    "env": [{"name": "C", "value": "3"}, {"$patch": "delete", "name": "A"}],
                },
                {"$patch": "delete", "name": "side"},
            ],
        }}}}),
        &json!({"spec": {"template": {"spec": {"containers": [
            {"name": "web", "image": "a", "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]},
        ]}}}}),
    );
}

#[test]
fn misuse_is_refused() {
    for patch in [
        containers(json!([{"image": "x"}])),
        containers(json!(["x"])),
        containers(json!([{"name": "a", "$patch": "merge"}])),
        json!({"metadata": {"$patch": "frob"}}),
        json!({"metadata": {"$retainKeys": "x"}}),
        json!({"metadata": {"$setElementOrder/finalizers": 1}}),
        json!({"metadata": {"finalizers": [{"a": 1}]}}),
    ] {
        let mut target = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}]}});
        assert!(matches!(apply(&POD, &mut target, &patch), Err(PatchError::Unprocessable(_))), "{patch}");
    }
    assert!(matches!(apply(&POD, &mut json!({}), &json!([])), Err(PatchError::Malformed(_))));
    let custom = GroupVersionKind::from_static("example.com", "v1", "Widget");
    assert_eq!(apply(&custom, &mut json!({}), &json!({})), Err(PatchError::NoStrategies));
}

fn pod() -> impl proptest::strategy::Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[0-9]", 0..3).prop_map(|env| {
        Value::Array(env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
    });
    let container = ("[x-z]", env).prop_map(|(image, env)| json!({"image": image, "env": env}));
    let containers = prop::collection::btree_map("[a-d]", container, 0..4).prop_map(|containers| {
        let named = containers.into_iter().map(|(name, mut container)| {
            container["name"] = Value::from(name);
            container
        });
        Value::Array(named.collect())
    });
    let labels = prop::collection::btree_map("[a-c]", "[0-9]", 0..3);
    let finalizers = prop::collection::btree_set("[a-c]", 0..3);
    (containers, labels, finalizers).prop_map(|(containers, labels, finalizers)| {
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers}})
    })
}

proptest! {
    #[test]
    fn patches_are_idempotent(mut target in pod(), patch in pod()) {
        apply(&POD, &mut target, &patch).expect("pods merge");
        let once = target.clone();
        apply(&POD, &mut target, &patch).expect("pods merge");
        prop_assert_eq!(target, once);
    }

    #[test]
    fn an_object_is_its_own_patch(target in pod()) {
        let mut merged = target.clone();
        apply(&POD, &mut merged, &target).expect("pods merge");
        prop_assert_eq!(merged, target);
    }

    #[test]
    fn nothing_is_lost(target in pod(), patch in pod()) {
        let names = |pod: &Value| -> BTreeSet<String> {
            let containers = pod["spec"]["containers"].as_array().expect("containers");
            containers.iter().map(|c| c["name"].as_str().expect("name").to_owned()).collect()
        };
        let mut merged = target.clone();
        apply(&POD, &mut merged, &patch).expect("pods merge");
        prop_assert_eq!(names(&merged), &names(&target) | &names(&patch));
    }
}

/// The patch tags of Kubernetes v1.36, condensed from its OpenAPI v3 documents.
///
/// The schemas of all served kinds were walked along every `$ref`: of a property, inside `allOf`, of items, and of
/// additional properties. A property is kept if it has `x-kubernetes-patch-strategy` or `x-kubernetes-patch-merge-key`
/// (here `patchStrategy` and `patchMergeKey`), or refers (here `type`) to a kept schema. Schemas without such
/// properties are left out. Names lack `io.k8s.api.` and `io.k8s.apimachinery.pkg.apis.`.
const REFERENCE: &str = include_str!("../../../testdata/patch-strategies.json");

/// Group, version, kind and type of the reference's kinds that the table does not list.
const METADATA_ONLY: [(&str, &str, &str, &str); 6] = [
    ("", "v1", "ConfigMap", "core.v1.ConfigMap"),
    ("", "v1", "Endpoints", "core.v1.Endpoints"),
    ("", "v1", "Event", "core.v1.Event"),
    ("", "v1", "Secret", "core.v1.Secret"),
    ("coordination.k8s.io", "v1", "Lease", "coordination.v1.Lease"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "discovery.v1.EndpointSlice"),
];

/// Compares a type of the table with the reference's type of this name: the lists that merge, their keys, and the types
/// below.
fn compare(reference: &Value, name: &str, ty: &Type) {
    let merges = |tags: &Value| {
        tags["patchStrategy"].as_str().is_some_and(|strategies| strategies.split(',').any(|one| one == "merge"))
    };
    let tagged = reference[name].as_object().into_iter().flatten();
    let expected = tagged
        // The patch itself lists the keys to retain, so `retainKeys` needs no entry.
        .filter(|(_, tags)| merges(tags) || tags["type"].is_string())
        .map(|(field, tags)| (field.as_str(), merges(tags), tags["patchMergeKey"].as_str(), tags["type"].as_str()))
        .collect::<BTreeSet<_>>();
    let found = ty
        .fields
        .iter()
        .map(|field| (field.name, field.list != List::Replace, field.merge_key(), field.ty.map(|ty| ty.name)))
        .collect::<BTreeSet<_>>();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn the_table_equals_the_reference() {
    let reference: Value = serde_json::from_str(REFERENCE).expect("JSON");
    let mut compared = BTreeSet::new();
    for (_, _, root) in schema::ROOTS {
        let mut pending: Vec<&Type> = vec![*root];
        while let Some(ty) = pending.pop() {
            if compared.insert(ty.name) {
                compare(&reference, ty.name, ty);
                pending.extend(ty.fields.iter().filter_map(|field| field.ty));
            }
        }
    }
    for (group, version, kind, name) in METADATA_ONLY {
        let ty = schema::root(&GroupVersionKind::from_static(group, version, kind)).expect("a built-in group");
        compare(&reference, name, ty);
        compared.insert(name);
    }
    let known = reference.as_object().expect("types").keys().map(String::as_str).collect::<BTreeSet<_>>();
    assert_eq!(compared, known);
}
