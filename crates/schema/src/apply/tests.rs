use proptest::prelude::*;
use serde_json::{Value, json};

use super::merge::merge;
use super::*;
use crate::data::builtin;
use crate::model::TypeId;

fn kind(api_version: &str, kind: &str) -> TypeId {
    builtin().kind(api_version, kind).expect("a kind")
}

fn writer<'a>(manager: &'a str, api_version: &'a str, time: &'a str) -> Writer<'a> {
    Writer { manager, api_version, subresource: "", time }
}

/// An object with its managers, as a server keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Live {
    ty: TypeId,
    object: Value,
    managers: Managers,
}

impl Live {
    fn none(ty: TypeId) -> Self {
        Live { ty, object: json!({}), managers: Managers::default() }
    }

    fn try_apply(&self, manager: &str, force: bool, configuration: &Value) -> Applied {
        let writer = writer(manager, "v1", "2026-01-01T00:00:00Z");
        let request = Apply { configuration, writer, ignored: &[&["f:status"]], force, transferred: None };
        apply(builtin(), self.ty, &OneVersion, &self.object, &self.managers, &request)
            .expect("a configuration with distinct elements")
    }

    fn apply(&self, manager: &str, configuration: &Value) -> Self {
        match self.try_apply(manager, false, configuration) {
            Applied::Object(object, managers) => Live { ty: self.ty, object, managers },
            Applied::Conflicts(conflicts) => panic!("{conflicts:?}"),
        }
    }

    fn force(&self, manager: &str, configuration: &Value) -> Self {
        match self.try_apply(manager, true, configuration) {
            Applied::Object(object, managers) => Live { ty: self.ty, object, managers },
            Applied::Conflicts(conflicts) => panic!("{conflicts:?}"),
        }
    }

    fn update(&self, manager: &str, time: &str, object: Value) -> Self {
        let mut live = self.clone();
        if let Some(change) = Change::between(builtin(), self.ty, &self.object, &object) {
            update(change, |_| None, &mut live.managers, &writer(manager, "v1", time));
        }
        live.object = object;
        live
    }

    fn fields(&self, manager: &str) -> Value {
        let entry = self.managers.entries.iter().find(|entry| entry.manager == manager);
        entry.map_or(Value::Null, |entry| entry.fields.clone().into_json())
    }
}

#[test]
fn a_creation_owns_what_kubernetes_says_it_owns() {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}, "uid": "1", "generation": 1},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "web", "image": "nginx", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "resources": {"limits": {"cpu": "1"}}, "args": ["a", "b"],
                    }],
                    "securityContext": {}, "nodeSelector": {"disk": "ssd"},
                    "tolerations": [{"key": "a"}],
                },
            },
        },
    });
    let ty = kind("apps/v1", "Deployment");
    let live = Live::none(ty).update("kubectl-create", "2026-01-01T00:00:00Z", deployment.clone());
    let container = json!({
        ".": {}, "f:name": {}, "f:image": {}, "f:args": {}, "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}},
        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
    });
    let expected = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"web\"}": container},
                    "f:securityContext": {}, "f:nodeSelector": {}, "f:tolerations": {},
                },
            },
        },
    });
    assert_eq!(live.fields("kubectl-create"), expected);
    // An apply owns only what its configuration says: no `.` of maps.
    let applied = Live::none(ty).apply("kubectl", &deployment);
    let labels = &applied.fields("kubectl")["f:metadata"];
    assert_eq!(labels, &json!({"f:labels": {"f:app": {}}}));
    assert_eq!(applied.object, deployment);
}

#[test]
fn sets_are_read_in_any_spelling_and_within_limits() {
    let given =
        json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}, "k:{\"z\": 1, \"a\":\"x\"}": {"f:q": {}}, "x:new": {"f:d": {}}});
    let set = FieldSet::from_json(&given).expect("a set");
    let written = json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}, "k:{\"a\":\"x\",\"z\":1}": {"f:q": {}}});
    assert_eq!(set.clone().into_json(), written);
    assert_eq!(FieldSet::from_json(&written), Ok(set.clone()));
    assert_eq!(set.paths(10), [".a", ".b", ".b.c", "[a=\"x\",z=1].q"]);
    for invalid in [json!([]), json!({"a": {}}), json!({"k:[]": {}}), json!({"f:a": 1}), json!({"v:": {}})] {
        assert!(FieldSet::from_json(&invalid).is_err(), "{invalid}");
    }
    let deep = (0..100).fold(json!({}), |inner, _| json!({"f:a": inner}));
    assert_eq!(FieldSet::from_json(&deep), Err(FieldSetError::TooDeep));
    let large: serde_json::Map<String, Value> = (0..100_001).map(|n| (format!("f:{n}"), json!({}))).collect();
    assert_eq!(FieldSet::from_json(&large.into()), Err(FieldSetError::TooLarge));
}

fn service(ports: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns"}, "spec": {"ports": ports}})
}

#[test]
fn elements_are_told_apart_by_all_their_keys() {
    let ty = kind("v1", "Service");
    let both = service(json!([{"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}]));
    let mut live = Live::none(ty).apply("me", &both);
    // The server gives each port a node port, which nobody applies.
    live.object["spec"]["ports"][1]["nodePort"] = 30_000.into();
    live.object["spec"]["ports"][1]["protocol"] = "TCP".into();
    let applied = live.apply("me", &service(json!([{"name": "tcp", "port": 53}])));
    let left = json!([{"name": "tcp", "port": 53, "protocol": "TCP", "nodePort": 30_000}]);
    assert_eq!(applied.object["spec"]["ports"], left);

    let twice = service(json!([{"port": 53, "protocol": "TCP"}, {"port": 53}]));
    let request =
        Apply { configuration: &twice, writer: writer("me", "v1", "t"), ignored: &[], force: true, transferred: None };
    let refused =
        apply(builtin(), ty, &OneVersion, &json!({}), &Managers::default(), &request).expect_err("a duplicate");
    assert_eq!(refused.to_string(), ".spec.ports: duplicate entries for key [port=53,protocol=\"TCP\"]");
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})
}

#[test]
fn a_field_is_removed_when_its_last_manager_gives_it_up() {
    let live = Live::none(kind("v1", "ConfigMap"))
        .apply("one", &map(json!({"shared": "1", "own": "1"})))
        .apply("two", &map(json!({"shared": "1"})));
    let live = live.apply("one", &map(json!({})));
    assert_eq!(live.object["data"], json!({"shared": "1"}), "the second manager still has it");
    let live = live.update("editor", "2026-01-01T00:00:00Z", map(json!({"shared": "1", "edited": "1"})));
    let live = live.apply("two", &json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    assert_eq!(live.object["data"], json!({"edited": "1"}), "an update's field stays");
    assert_eq!(live.fields("two"), Value::Null);
}

#[test]
fn other_managers_fields_are_conflicts_unless_forced() {
    let live = Live::none(kind("v1", "ConfigMap")).apply("one", &map(json!({"a": "1", "b": "1"}))).update(
        "editor",
        "2026-01-01T00:00:00Z",
        map(json!({"a": "1", "b": "2"})),
    );
    let wanted = map(json!({"a": "3", "b": "3"}));
    let Applied::Conflicts(conflicts) = live.try_apply("two", false, &wanted) else { panic!("no conflict") };
    let conflicts: Vec<_> = conflicts.iter().map(|c| (c.manager.as_str(), c.path.as_str())).collect();
    assert_eq!(conflicts, [("\"one\"", ".data.a"), ("\"editor\" using v1", ".data.b")]);
    let forced = live.force("two", &wanted);
    assert_eq!(forced.object["data"], json!({"a": "3", "b": "3"}));
    let managers: Vec<_> = forced.managers.entries.iter().map(|entry| entry.manager.as_str()).collect();
    assert_eq!(managers, ["two"], "the others have no field left");
    // The same values are shared, not taken.
    let shared = live.apply("two", &map(json!({"a": "1"})));
    assert_eq!(
        (shared.fields("one"), shared.fields("two")),
        (json!({"f:data": {"f:a": {}}}), json!({"f:data": {"f:a": {}}}))
    );
}

#[test]
fn an_object_that_was_not_tracked_has_a_manager_before_the_first_apply() {
    let untracked = Live { ty: kind("v1", "ConfigMap"), object: map(json!({"a": "1"})), managers: Managers::default() };
    let Applied::Conflicts(conflicts) = untracked.try_apply("me", false, &map(json!({"a": "2"}))) else {
        panic!("no conflict")
    };
    assert_eq!(conflicts[0].manager, "\"before-first-apply\" using v1");
    let live = untracked.apply("me", &map(json!({"a": "1", "b": "1"})));
    assert_eq!(live.object["data"], json!({"a": "1", "b": "1"}));
}

#[test]
fn lists_keep_the_order_of_the_configuration_among_the_others() {
    let pod = |names: &[&str]| {
        let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"containers": containers}})
    };
    let ty = kind("v1", "Pod");
    let cases: [(&[&str], &[&str], &[&str]); 5] = [
        (&["a", "b"], &["c"], &["a", "b", "c"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b", "c"], &["x", "b"], &["a", "x", "b", "c"]),
        (&["a"], &["a", "x"], &["a", "x"]),
        (&[], &["a"], &["a"]),
    ];
    for (live, wanted, expected) in cases {
        assert_eq!(merge(builtin(), ty, &pod(live), &pod(wanted)), pod(expected), "{live:?} and {wanted:?}");
    }
}

#[test]
fn the_oldest_updates_are_merged_when_there_are_too_many() {
    let mut live = Live::none(kind("v1", "ConfigMap"));
    for n in 0..14 {
        let mut object = if n == 0 { map(json!({})) } else { live.object.clone() };
        object["data"][format!("k{n}")] = "1".into();
        live = live.update(&format!("m{n}"), &format!("2026-01-01T00:00:{n:02}Z"), object);
    }
    let managers: Vec<_> = live.managers.entries.iter().map(|entry| entry.manager.as_str()).collect();
    assert_eq!(managers.len(), 10, "{managers:?}");
    let ancient = live.fields("ancient-changes")["f:data"].clone();
    assert_eq!(ancient, json!({".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}, "f:k4": {}}));
    let entries = live.managers.clone().into_json();
    assert_eq!(Managers::stored(entries.as_ref()).into_json(), entries);
}

#[test]
fn a_repeated_update_changes_only_its_time() {
    let live = Live::none(kind("v1", "ConfigMap"))
        .apply("a", &map(json!({"x": "1"})))
        .update("b", "2026-01-01T00:00:00Z", map(json!({"x": "1", "y": "1"})))
        .update("c", "2026-01-01T00:00:01Z", map(json!({"x": "1", "y": "1", "z": "1"})));
    let again = live.update("b", "2026-01-01T00:00:02Z", map(json!({"x": "1", "y": "2", "z": "1"})));
    let entries = |live: &Live| live.managers.clone().into_json().expect("entries");
    let (before, after) = (entries(&live), entries(&again));
    let change = Change::between(builtin(), live.ty, &live.object, &again.object).expect("a change");
    let fields = super::managers::repeated(
        &before,
        &FieldSet::from_iter([vec!["f:data", "f:y"]]),
        &FieldSet::default(),
        &again.managers.entries[1],
    );
    assert_eq!(fields.as_ref(), Some(&after));
    assert_eq!(
        update_stored(change, |_| None, &before, &writer("b", "v1", "2026-01-01T00:00:02Z")),
        Some(after.clone())
    );
    assert_eq!((&after[1]["manager"], &after[2]["manager"]), (&json!("c"), &json!("b")), "the newest is the last");
}

#[test]
fn clients_can_replace_and_reset_the_managers() {
    let live = Live::none(kind("v1", "ConfigMap")).apply("one", &map(json!({"a": "1"})));
    let stored = live.managers.clone().into_json();
    let given = |given: Value| Managers::given_or_stored(Some(&given), stored.as_ref());
    assert_eq!(given(json!([])), Managers::default());
    assert_eq!(given(json!([{}])), Managers::default());
    assert_eq!(given(json!([{"manager": "x", "operation": "Steal"}])), live.managers);
    assert_eq!(Managers::given_or_stored(None, stored.as_ref()), live.managers);
    let renamed = json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}}]);
    assert_eq!(given(renamed).entries[0].manager, "x");
}

/// Pods with a few of the forms that apply treats differently.
fn pods() -> impl Strategy<Value = Value> {
    let scalar = || prop_oneof![Just("1"), Just("2")];
    let labels = || prop::collection::btree_map("[ab]", scalar(), 0..3);
    let env = prop::collection::btree_map("[xy]", scalar(), 0..3);
    let container = (prop::option::of(scalar()), env).prop_map(|(image, env)| {
        let env: Vec<_> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut container = json!({"env": env});
        if let Some(image) = image {
            container["image"] = image.into();
        }
        container
    });
    let containers = prop::collection::btree_map("[cd]", container, 0..3);
    let finalizers = prop::collection::btree_set("[fg]", 0..3);
    (labels(), labels(), containers, finalizers).prop_map(|(labels, selector, containers, finalizers)| {
        let containers: Vec<_> = containers
            .into_iter()
            .map(|(name, mut container)| {
                container["name"] = name.into();
                container
            })
            .collect();
        json!({
            "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers, "nodeSelector": selector},
        })
    })
}

/// Returns the object without empty maps and lists, which applies keep or drop as they come.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), bare(value)));
            Value::Object(members.filter(|(_, value)| *value != json!({}) && *value != json!([])).collect())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(bare).collect()),
        scalar => scalar.clone(),
    }
}

proptest! {
    #[test]
    fn an_apply_is_idempotent(first in pods(), second in pods(), third in pods()) {
        let live = Live::none(kind("v1", "Pod")).apply("one", &first).force("two", &second).force("one", &third);
        let again = live.apply("one", &third);
        prop_assert_eq!(bare(&again.object), bare(&live.object));
        prop_assert_eq!(&again.managers, &live.managers);
        prop_assert_eq!(&again.apply("one", &third), &again);
    }

    #[test]
    fn a_sole_manager_gets_what_it_applies(first in pods(), second in pods()) {
        let live = Live::none(kind("v1", "Pod")).apply("one", &first).apply("one", &second);
        let direct = Live::none(kind("v1", "Pod")).apply("one", &second);
        let sorted = |live: &Live| {
            let mut object = bare(&live.object);
            if let Some(list) = object["metadata"]["finalizers"].as_array_mut() {
                list.sort_by_key(ToString::to_string);
            }
            object
        };
        prop_assert_eq!(sorted(&live), sorted(&direct));
        prop_assert_eq!(&live.managers, &direct.managers);
    }

    #[test]
    fn two_managers_that_agree_converge(first in pods(), second in pods(), third in pods()) {
        let ty = kind("v1", "Pod");
        // Both force in turns until nothing changes; then both have all of their fields.
        let live = Live::none(ty).apply("one", &first).force("two", &second);
        let agreed = live.force("one", &third).force("two", &third);
        let settled = agreed.apply("one", &third);
        prop_assert_eq!(&settled.apply("two", &third), &settled);
        prop_assert_eq!(settled.fields("one"), settled.fields("two"));
    }

    #[test]
    fn a_comparison_has_what_differs(left in pods(), right in pods()) {
        let ty = kind("v1", "Pod");
        let forth = compare(builtin(), ty, &left, &right);
        let back = compare(builtin(), ty, &right, &left);
        prop_assert_eq!(&forth.added, &back.removed);
        prop_assert_eq!(&forth.modified, &back.modified);
        prop_assert!(compare(builtin(), ty, &left, &left).is_empty());
        prop_assert_eq!(forth.is_empty(), left == right);
    }

    #[test]
    fn a_repeated_update_is_tracked_like_every_other(
        first in pods(), second in pods(), third in pods(), is_same in any::<bool>(),
    ) {
        let ty = kind("v1", "Pod");
        let live = Live::none(ty)
            .apply("one", &first)
            .update("two", "2026-01-01T00:00:00Z", second.clone())
            .update("three", "2026-01-01T00:00:01Z", first.clone());
        let Some(stored) = live.managers.clone().into_json() else { return Ok(()) };
        for manager in if is_same { ["three", "two"] } else { ["two", "four"] } {
            let Some(change) = Change::between(builtin(), ty, &first, &third) else { return Ok(()) };
            let writer = writer(manager, "v1", "2026-01-01T00:00:02Z");
            let mut managers = live.managers.clone();
            update(change.clone(), |_| None, &mut managers, &writer);
            prop_assert_eq!(update_stored(change, |_| None, &stored, &writer), managers.into_json());
        }
    }

    #[test]
    fn sets_survive_their_written_form(pod in pods()) {
        let set = extract(builtin(), kind("v1", "Pod"), &pod).expect("distinct elements");
        prop_assert_eq!(FieldSet::from_json(&set.clone().into_json()), Ok(set));
    }
}

/// The two versions of an event, which name its text differently.
struct EventVersions<'a>(&'a str);

impl EventVersions<'_> {
    fn rename(object: &mut Value, from: &str, to: &str) {
        let fields = object.as_object_mut().expect("an object");
        if let Some(text) = fields.remove(from) {
            fields.insert(to.to_owned(), text);
        }
    }

    fn between(mut object: Value, from: &str, to: &str) -> Value {
        match (from, to) {
            ("v1", "events.k8s.io/v1") => Self::rename(&mut object, "message", "note"),
            ("events.k8s.io/v1", "v1") => Self::rename(&mut object, "note", "message"),
            _ => {}
        }
        object
    }
}

impl Versions for EventVersions<'_> {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(TypeId, Value)> {
        let ty = builtin().kind(api_version, "Event")?;
        Some((ty, Self::between(object.clone(), self.0, api_version)))
    }

    fn restore(&self, object: Value, api_version: &str) -> Value {
        Self::between(object, api_version, self.0)
    }
}

#[test]
fn managers_of_another_version_are_compared_in_that_version() {
    const NEW: &str = "events.k8s.io/v1";
    let apply_in = |version: &str, live: &Value, managers: &Managers, manager: &str, force, configuration: &Value| {
        let writer = writer(manager, version, "2026-01-01T00:00:00Z");
        let request = Apply { configuration, writer, ignored: &[], force, transferred: None };
        apply(builtin(), kind(version, "Event"), &EventVersions(version), live, managers, &request).expect("typed")
    };
    let (old, new) = (json!({"message": "a", "reason": "r"}), json!({"note": "b"}));
    let Applied::Object(live, managers) = apply_in("v1", &json!({}), &Managers::default(), "one", false, &old) else {
        panic!("nobody has the fields")
    };
    // The other version's name for the same field is a conflict, which names the manager's own field.
    let live = EventVersions::between(live, "v1", NEW);
    let Applied::Conflicts(conflicts) = apply_in(NEW, &live, &managers, "two", false, &new) else {
        panic!("no conflict")
    };
    assert_eq!(conflicts.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), [".message"]);
    let Applied::Object(taken, managers) = apply_in(NEW, &live, &managers, "two", true, &new) else { panic!("forced") };
    assert_eq!(taken, json!({"note": "b", "reason": "r"}));
    let fields: Vec<Value> = managers.entries.iter().map(|entry| entry.fields.clone().into_json()).collect();
    assert_eq!(fields, [json!({"f:reason": {}}), json!({"f:note": {}})]);
    // An applier that gives a field up keeps what a manager of the other version has.
    let both = json!({"note": "b", "reason": "r"});
    let Applied::Object(shared, managers) = apply_in(NEW, &taken, &managers, "two", false, &both) else {
        panic!("the same values")
    };
    let Applied::Object(given_up, managers) = apply_in(NEW, &shared, &managers, "two", false, &new) else {
        panic!("no conflict")
    };
    assert_eq!(given_up, both, "the other version's manager has the reason");
    // An applier is the same in all versions.
    let moved = EventVersions::between(given_up, NEW, "v1");
    let Applied::Object(moved, managers) = apply_in("v1", &moved, &managers, "two", false, &json!({"type": "Normal"}))
    else {
        panic!("no conflict")
    };
    assert_eq!(moved, json!({"reason": "r", "type": "Normal"}));
    // An update in one version takes the field from a manager of the other.
    let mut managers = managers;
    let changed = json!({"reason": "q", "type": "Normal"});
    let change = Change::between(builtin(), kind(NEW, "Event"), &moved, &changed).expect("a change");
    let elsewhere = |version: &str| {
        let ty = builtin().kind(version, "Event")?;
        Some(Change::between(builtin(), ty, &moved, &changed).unwrap_or_default())
    };
    update(change, elsewhere, &mut managers, &writer("three", NEW, "2026-01-01T00:00:01Z"));
    let owners: Vec<(&str, Value)> =
        managers.entries.iter().map(|entry| (entry.manager.as_str(), entry.fields.clone().into_json())).collect();
    assert_eq!(owners, [("two", json!({"f:type": {}})), ("three", json!({"f:reason": {}}))]);
}

#[test]
fn managers_of_a_version_that_is_not_served_are_dropped() {
    let stored = json!([
        {"manager": "old", "operation": "Update", "apiVersion": "v0", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}}
    ]);
    let configuration = json!({"data": {"a": "1"}});
    let request = Apply {
        configuration: &configuration,
        writer: writer("me", "v1", "2026-01-01T00:00:00Z"),
        ignored: &[],
        force: false,
        transferred: None,
    };
    let managers = Managers::stored(Some(&stored));
    let applied = apply(builtin(), kind("v1", "ConfigMap"), &OneVersion, &json!({"data": {}}), &managers, &request);
    let Ok(Applied::Object(_, managers)) = applied else { panic!("{applied:?}") };
    assert_eq!(managers.entries.iter().map(|entry| entry.manager.as_str()).collect::<Vec<_>>(), ["me"]);
}

#[test]
fn long_lists_merge_in_linear_time() {
    // Each shared element would search through the new ones in front of the first shared one.
    let list = |values: Vec<String>| json!({"metadata": {"finalizers": values}});
    let shared = |range: std::ops::Range<usize>| range.map(|index| format!("s{index}"));
    let new = (0..100_000).map(|index| format!("n{index}"));
    let live = list(shared(1..50_000).chain(shared(0..1)).collect());
    let wanted = list(new.chain(shared(0..50_000)).collect());
    let merged = merge(builtin(), kind("v1", "ConfigMap"), &live, &wanted);
    assert_eq!(merged["metadata"]["finalizers"].as_array().map(Vec::len), Some(150_000));
}

#[test]
fn very_many_managers_are_read_and_changed_in_bounded_time() {
    let entry = |index: usize| {
        json!({
            "manager": format!("m{}", index / 2), "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {format!("f:{}", index % 2): {}}},
        })
    };
    let entries: Value = (0..40_000).map(entry).collect();
    let managers = Managers::stored(Some(&entries));
    assert_eq!(managers.entries.len(), 20_000, "the last entry of a manager counts");
    assert!(managers.entries[0].fields == FieldSet::from_iter([vec!["f:data", "f:1"]]));
    let data: Value = (0..40_000).map(|index| (format!("{index}"), Value::from(""))).collect();
    let live = Live { ty: kind("v1", "ConfigMap"), object: json!({}), managers };
    let live = live.update("writer", "2026-01-01T00:00:00Z", json!({"data": data}));
    assert_eq!(live.managers.entries.len(), 1, "the writer has taken the fields of all others");
}

#[test]
fn conflicts_are_cut_in_number_and_length() {
    let configuration = |value: u32| {
        let fields: Value = (0..2000).map(|index| (format!("{index}"), Value::from(value))).collect();
        json!({"data": {"k".repeat(100_000): fields}})
    };
    let live = Live::none(kind("apps/v1", "ControllerRevision")).apply("first", &configuration(1));
    let Applied::Conflicts(conflicts) = live.try_apply("second", false, &configuration(2)) else {
        panic!("no conflict")
    };
    assert_eq!(conflicts.len(), MAX_CONFLICTS);
    assert!(conflicts.iter().all(|conflict| conflict.path.len() < 2000), "{}", conflicts[0].path.len());
}

#[test]
fn an_update_drops_an_entry_without_fields() {
    let entry = |manager: &str, fields: Value| {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    };
    let stored = json!([entry("me", json!({"f:data": {"f:a": {}}})), entry("nobody", json!({}))]);
    let ty = kind("v1", "ConfigMap");
    let change = Change::between(builtin(), ty, &json!({"data": {"a": "1"}}), &json!({"data": {"a": "2"}}));
    let updated =
        update_stored(change.expect("a change"), |_| None, &stored, &writer("me", "v1", "2026-01-02T00:00:00Z"));
    let managers = Managers::stored(updated.as_ref()).entries;
    assert_eq!(managers.iter().map(|entry| entry.manager.as_str()).collect::<Vec<_>>(), ["me"]);
}
