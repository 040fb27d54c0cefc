use serde_json::{Value, json};

use super::*;
use crate::patch::strategic as apply_strategic;

const DEPLOYMENT: GroupVersionKind = GroupVersionKind::from_static("apps", "v1", "Deployment");
const POD: GroupVersionKind = GroupVersionKind::from_static("", "v1", "Pod");

/// Checks that the patch is as expected, and that nothing remains to change after applying it.
fn check(kind: &GroupVersionKind, original: Value, modified: Value, current: Value, expected: Value) -> Value {
    let patch = strategic(kind, &original, &modified, &current).expect("a known kind");
    assert_eq!(patch, expected);
    let mut patched = current;
    apply_strategic::apply(kind, &mut patched, &patch).expect("a valid patch");
    let again = strategic(kind, &modified, &modified, &patched).expect("a known kind");
    assert_eq!(again, json!({}), "applied: {patched}");
    patched
}

fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[test]
fn fields_outside_the_manifest_stay() {
    let manifest = json!({"spec": {"replicas": 2}});
    let live = json!({"spec": {"replicas": 5, "paused": true}, "status": {"replicas": 5}});
    let patched = check(&DEPLOYMENT, manifest.clone(), manifest, live, json!({"spec": {"replicas": 2}}));
    assert_eq!(patched, json!({"spec": {"replicas": 2, "paused": true}, "status": {"replicas": 5}}));
}

#[test]
fn fields_removed_from_the_manifest_are_deleted() {
    check(
        &POD,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"a": "1", "b": "2", "c": "3"}}}),
        json!({"metadata": {"labels": {"b": null}}}),
    );
}

#[test]
fn absent_fields_need_no_deletion() {
    let patch = strategic(&POD, &json!({"spec": {"x": 1}}), &json!({"spec": {}}), &json!({"spec": {}}));
    assert_eq!(patch, Ok(json!({})));
}

#[test]
fn containers_merge_by_name() {
    let before = pod(json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]));
    let after = pod(json!([{"name": "a", "image": "a:2"}, {"name": "c", "image": "c:1"}]));
    let live = pod(json!([
        {"name": "a", "image": "a:1", "imagePullPolicy": "Always"},
        {"name": "b", "image": "b:1"},
        {"name": "injected", "image": "i"},
    ]));
    let patched = check(
        &POD,
        before,
        after,
        live,
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
            "containers": [{"name": "a", "image": "a:2"}, {"name": "c", "image": "c:1"}, {"$patch": "delete", "name": "b"}],
        }}),
    );
    let names: Vec<&str> =
        patched["spec"]["containers"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["a", "injected", "c"]);
    assert_eq!(patched["spec"]["containers"][0]["imagePullPolicy"], "Always");
}

#[test]
fn reordering_is_a_change() {
    let live = pod(json!([{"name": "a"}, {"name": "b"}]));
    let wanted = pod(json!([{"name": "b"}, {"name": "a"}]));
    check(
        &POD,
        live.clone(),
        wanted,
        live,
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        }}),
    );
}

#[test]
fn elements_with_the_same_key_replace_the_list() {
    let port = |protocol: &str| json!({"containerPort": 53, "protocol": protocol});
    let live = pod(json!([{"name": "dns", "ports": [port("UDP")]}]));
    let wanted = pod(json!([{"name": "dns", "ports": [port("UDP"), port("TCP")]}]));
    let patch = strategic(&POD, &live, &wanted, &live).expect("a known kind");
    let mut patched = live;
    apply_strategic::apply(&POD, &mut patched, &patch).expect("a valid patch");
    assert_eq!(patched, wanted);
}

#[test]
fn finalizers_merge_as_a_set() {
    let finalizers = |list: &[&str]| json!({"metadata": {"finalizers": list}});
    check(
        &POD,
        finalizers(&["x/a", "x/b"]),
        finalizers(&["x/a", "x/c"]),
        finalizers(&["x/a", "x/b", "x/other"]),
        json!({"metadata": {
            "$setElementOrder/finalizers": ["x/a", "x/c"],
            "finalizers": ["x/c"],
            "$deleteFromPrimitiveList/finalizers": ["x/b"],
        }}),
    );
}

#[test]
fn unions_keep_only_the_member_in_the_manifest() {
    let strategy = |value: Value| json!({"spec": {"strategy": value}});
    let patched = check(
        &DEPLOYMENT,
        json!({"spec": {}}),
        strategy(json!({"type": "Recreate"})),
        strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})),
        strategy(json!({"$retainKeys": ["type"], "type": "Recreate"})),
    );
    assert_eq!(patched, strategy(json!({"type": "Recreate"})));

    let volumes = |value: Value| json!({"spec": {"volumes": [value]}});
    let patched = check(
        &POD,
        volumes(json!({"name": "v", "emptyDir": {}})),
        volumes(json!({"name": "v", "configMap": {"name": "c"}})),
        volumes(json!({"name": "v", "emptyDir": {}})),
        json!({"spec": {
            "$setElementOrder/volumes": [{"name": "v"}],
            "volumes": [{"$retainKeys": ["configMap", "name"], "name": "v", "emptyDir": null, "configMap": {"name": "c"}}],
        }}),
    );
    assert_eq!(patched, volumes(json!({"name": "v", "configMap": {"name": "c"}})));
}

#[test]
fn other_kinds_use_merge_patches() {
    let kind = GroupVersionKind::from_static("example.com", "v1", "Widget");
    let (original, modified, current) = (
        json!({"a": 1, "l": [1]}),
        json!({"l": [2], "n": {"x": null, "y": 1}}),
        json!({"a": 1, "l": [1], "n": {"x": 5}}),
    );
    assert_eq!(strategic(&kind, &original, &modified, &current), Err(PatchError::NoStrategies));
    let patch = merge(&original, &modified, &current).expect("objects");
    assert_eq!(patch, json!({"a": null, "l": [2], "n": {"x": null, "y": 1}}));
    let mut patched = current;
    crate::patch::merge::apply(&mut patched, &patch);
    assert_eq!(patched, json!({"l": [2], "n": {"y": 1}}));
}
