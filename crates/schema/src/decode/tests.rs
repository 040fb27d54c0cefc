use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::data::builtin;

fn kind(api_version: &str, kind: &str) -> TypeId {
    builtin().kind(api_version, kind).expect("a kind")
}

fn pod(object: &Value) -> Result<Decoded, DecodeError> {
    let ty = kind("v1", "Pod");
    let from_value = value(builtin(), ty, object.clone());
    let from_bytes = json(builtin(), ty, object.to_string().as_bytes()).map_err(|error| match error {
        JsonError::Type(error) => error,
        JsonError::Syntax(error) => panic!("{error}"),
    });
    assert_eq!(from_value, from_bytes);
    from_value
}

fn strict(api_version: &str, name: &str, text: &str) -> Vec<String> {
    let decoded = json(builtin(), kind(api_version, name), text.as_bytes()).expect("an object");
    decoded.strict.iter().map(ToString::to_string).collect()
}

#[test]
fn unknown_fields_are_named_and_dropped() {
    let decoded = pod(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "colour": "red"},
        "spec": {"containers": [{"name": "c", "imagee": "x"}], "replicas": 1, "nodeName": null},
    }))
    .expect("a pod");
    let paths: Vec<&str> = decoded.strict.iter().map(StrictError::path).collect();
    assert_eq!(paths, ["metadata.colour", "spec.containers[0].imagee", "spec.replicas"]);
    assert_eq!(
        decoded.object,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]},
        })
    );
}

#[test]
fn a_wrong_type_is_located() {
    for (spec, path, message) in [
        (
            json!({"containers": [{"name": "ok"}, {"name": "b", "ports": [{"containerPort": "x"}]}]}),
            "spec.containers[1].ports[0].containerPort",
            "invalid type: string \"x\", expected i32",
        ),
        (json!({"containers": {}}), "spec.containers", "invalid type: map, expected a sequence"),
        (json!([]), "spec", "invalid type: sequence, expected PodSpec"),
        (
            json!({"containers": [7], "nodeName": 5}),
            "spec.containers[0]",
            "invalid type: integer `7`, expected Container",
        ),
        (json!({"hostNetwork": 1}), "spec.hostNetwork", "invalid type: integer `1`, expected a boolean"),
        (
            json!({"nodeName": 5, "nodeSelector": {"a": 1}}),
            "spec.nodeName",
            "invalid type: integer `5`, expected a string",
        ),
        (
            json!({"nodeSelector": {"a": "b", "c": 1}}),
            "spec.nodeSelector.c",
            "invalid type: integer `1`, expected a string",
        ),
        (json!({"priority": 3_000_000_000_u32}), "spec.priority", "invalid value: integer `3000000000`, expected i32"),
        (
            json!({"activeDeadlineSeconds": u64::MAX}),
            "spec.activeDeadlineSeconds",
            "invalid value: integer `18446744073709551615`, expected i64",
        ),
        (json!({"priority": 1.5}), "spec.priority", "invalid type: floating point `1.5`, expected i32"),
    ] {
        let error = pod(&json!({"metadata": {"name": "a"}, "spec": spec})).expect_err("a wrong type");
        assert_eq!((error.path.as_str(), error.message.as_str()), (path, message));
    }
    let error = pod(&json!([])).expect_err("no object");
    assert_eq!(error.to_string(), ": invalid type: sequence, expected Pod");
}

fn cpu(cpu: &Value) -> Result<Value, DecodeError> {
    let mut decoded = pod(&json!({"spec": {"containers": [{"resources": {"limits": {"cpu": cpu}}}]}}))?;
    Ok(decoded.object["spec"]["containers"][0]["resources"]["limits"]["cpu"].take())
}

#[test]
fn quantities_decode_to_their_canonical_form() {
    for (given, canonical) in [
        (json!("1000m"), "1"),
        (json!(2), "2"),
        (json!(-2), "-2"),
        (json!(0.25), "250m"),
        (json!("1e3"), "1e3"),
        (serde_json::from_str("1e3").expect("a number"), "1e3"),
        (json!(1000), "1k"),
        (json!("100u"), "100u"),
        (json!(null), "0"),
        (json!(u64::MAX), "9223372036854775807"),
    ] {
        assert_eq!(cpu(&given).expect("a quantity"), canonical, "{given}");
    }
}

#[test]
fn malformed_quantities_do_not_decode() {
    for given in [
        json!("1Ki5"),
        json!("1 Gi"),
        json!("1KI"),
        json!("1gb"),
        json!(""),
        json!("Gi"),
        json!("--1"),
        json!("1e"),
        json!("0x10"),
        json!("1,5Gi"),
        json!(true),
        json!({"a": 1}),
        json!([1]),
    ] {
        let error = cpu(&given).expect_err("no quantity");
        assert_eq!(error.path, "spec.containers[0].resources.limits.cpu");
        assert!(error.message.contains("quantit"), "{given}: {error}");
    }
}

#[test]
fn times_and_bytes_take_their_canonical_form() {
    let lease = kind("coordination.k8s.io/v1", "Lease");
    let decoded = |at: &str, renewed: &str| {
        let lease_object = json!({"metadata": {"creationTimestamp": at}, "spec": {"renewTime": renewed}});
        value(builtin(), lease, lease_object).map(|decoded| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&decoded.object["metadata"]["creationTimestamp"]), text(&decoded.object["spec"]["renewTime"]))
        })
    };
    for (given, seconds, micros) in [
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z", "2024-02-29T12:00:00.000000Z"),
        ("2024-02-29T12:00:00.123456789+02:30", "2024-02-29T09:30:00Z", "2024-02-29T09:30:00.123456Z"),
    ] {
        assert_eq!(decoded(given, given).expect("times"), (seconds.to_owned(), micros.to_owned()), "{given}");
    }
    for wrong in [
        "",
        "2024-02-30T12:00:00Z",
        "2024-02-29 12:00:00Z",
        "2024-02-29T12:00:00",
        "2024-02-29T12:00:60Z",
        "2024-02-29T12:00:00.Z",
        "2024-02-29T12:00:00+0200",
        "20240-2-29T12:00:00Z",
        "now",
    ] {
        assert_eq!(decoded(wrong, "2024-02-29T12:00:00Z").expect_err("no time").path, "metadata.creationTimestamp");
    }
    let secret = |data: &str| {
        value(builtin(), kind("v1", "Secret"), json!({"data": {"a": data}}))
            .map(|decoded| decoded.object["data"]["a"].clone())
    };
    assert_eq!(secret("aGVsbG8=").expect("base64"), "aGVsbG8=");
    assert_eq!(secret("aGVs\nbG8=").expect("base64"), "aGVsbG8=");
    for wrong in ["aGVsbG8", "not base64", "===="] {
        assert_eq!(secret(wrong).expect_err("no base64").path, "data.a");
    }
}

#[test]
fn nulls_in_lists_and_maps_are_zero() {
    let decoded = pod(&json!({
        "metadata": {"labels": {"a": null}, "finalizers": [null]}, "spec": {"containers": [null]}, "status": null,
    }));
    assert_eq!(
        decoded.expect("a pod").object,
        json!({"metadata": {"labels": {"a": ""}, "finalizers": [""]}, "spec": {"containers": [{}]}})
    );
}

#[test]
fn duplicate_fields_are_found_with_unknown_ones_in_document_order() {
    let check = |text: &str, expected: &[&str]| assert_eq!(strict("v1", "Pod", text), expected, "{text}");
    check(r#"{"metadata":{"name":"a"},"spec":{"nodeName":"b"}}"#, &[]);
    check(
        r#"{"metadata":{"name":"a","x":1,"name":"b","x":2,"labels":{"l":"1","l":"2","l":"3"}},"kind":"Pod","kind":"Pod"}"#,
        &[
            "unknown field \"metadata.x\"",
            "duplicate field \"metadata.name\"",
            "duplicate field \"metadata.labels.l\"",
            "duplicate field \"kind\"",
        ],
    );
    check(
        r#"{"spec":{"containers":[{},{"\u006eame":"y","name":"z"}]},"y":{"a":1,"a":2}}"#,
        &["duplicate field \"spec.containers[1].name\"", "unknown field \"y\""],
    );
    let decoded = json(builtin(), kind("v1", "Pod"), br#"{"metadata":{"name":"a","name":"b"}}"#).expect("a pod");
    assert_eq!(decoded.object["metadata"]["name"], "b");
}

#[test]
fn a_body_full_of_strict_errors_costs_little() {
    let unknown = (0..10_000).map(|index| format!("\"{index}\":0")).collect::<Vec<_>>().join(",");
    let labels = vec![r#""a":"0""#; 10_000].join(",");
    let text = format!(r#"{{"{}":1,"spec":{{{unknown}}},"metadata":{{"labels":{{{labels}}}}}}}"#, "k".repeat(100_000));
    let decoded = json(builtin(), kind("v1", "Pod"), text.as_bytes()).expect("a pod");
    assert_eq!(decoded.strict.len(), 100);
    assert!(decoded.strict.iter().all(|error| error.path().len() <= 256));
}

#[test]
fn errors_about_long_values_are_short() {
    let long = "x".repeat(100_000);
    let error = pod(&json!({"metadata": {"labels": {(long.clone()): {}}}})).expect_err("no string");
    assert!(error.path.len() <= 256 && error.path.starts_with("metadata.labels.xxx"), "{error}");
    let error = pod(&json!({"spec": {"priority": long}})).expect_err("no number");
    assert!(error.message.len() <= 1024 && error.message.starts_with("invalid type: string"), "{error}");
}

#[test]
fn raw_values_are_kept_whole() {
    let revision = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1,
        "data": {"a": null, "b": [1, {"c": 1.5}]},
    });
    let decoded = value(builtin(), kind("apps/v1", "ControllerRevision"), revision.clone()).expect("a revision");
    assert_eq!(decoded, Decoded { object: revision, strict: Vec::new() });
}

#[test]
fn schemas_accept_their_alternatives() {
    let crd = |schema: Value| {
        let versions = json!([{"name": "v1", "schema": {"openAPIV3Schema": schema}}]);
        value(
            builtin(),
            kind("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            json!({"spec": {"versions": versions}}),
        )
    };
    let schema = json!({
        "properties": {"a": {"items": {"type": "string"}, "default": null, "enum": [1, "a", null]}},
        "additionalProperties": false, "items": [{"type": "string"}, {}], "not": {"additionalProperties": {"maxLength": 3}},
        "dependencies": {"a": ["b"], "c": {"minimum": 1.5}}, "x-kubernetes-int-or-string": true,
    });
    let decoded = crd(schema.clone()).expect("a schema");
    let mut expected = schema;
    expected["properties"]["a"].as_object_mut().expect("a map").remove("default");
    assert_eq!(decoded.object["spec"]["versions"][0]["schema"]["openAPIV3Schema"], expected);
    let error = crd(json!({"properties": {"a": {"additionalProperties": "yes"}}})).expect_err("neither");
    assert_eq!(error.path, "spec.versions[0].schema.openAPIV3Schema.properties.a.additionalProperties");
    crd(json!({"not": {"items": true}})).expect_err("neither a schema nor a list");
}

#[test]
fn deep_nesting_is_refused() {
    let levels = 200;
    let nested = (0..levels).fold(json!({}), |inner, _| json!({"not": inner}));
    let versions = json!([{"schema": {"openAPIV3Schema": nested}}]);
    let object = json!({"spec": {"versions": versions}});
    let crd = kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let error = value(builtin(), crd, object.clone()).expect_err("too deep");
    assert_eq!(error.message, "nested deeper than 128 levels");
    assert!(matches!(json(builtin(), crd, object.to_string().as_bytes()), Err(JsonError::Syntax(_))));
    // What is skipped is not nested anywhere.
    let text = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(json(builtin(), crd, text.as_bytes()).expect("an object").strict.len(), 1);
}

#[test]
fn trailing_bytes_are_a_syntax_error() {
    let ty = kind("v1", "Pod");
    for text in ["", "{", "{} {}", "{\"metadata\":", "nul", "{\"a\"}", "{\"spec\":{\"nodeName\":\"\u{0}\"}}"] {
        assert!(matches!(json(builtin(), ty, text.as_bytes()), Err(JsonError::Syntax(_))), "{text}");
    }
    assert!(matches!(json(builtin(), ty, b"{\"spec\":{\"nodeName\":\"\xff\"}}"), Err(JsonError::Syntax(_))));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-8000..8000_i32).prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        ".{0,8}".prop_map(Value::from),
        Just(json!("1Gi")),
        Just(json!("2024-02-29T12:00:00Z")),
    ];
    let name = prop_oneof![
        Just("metadata".to_owned()),
        Just("spec".to_owned()),
        Just("labels".to_owned()),
        Just("containers".to_owned()),
        Just("resources".to_owned()),
        Just("limits".to_owned()),
        Just("ports".to_owned()),
        "[a-z]{1,3}",
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_decodes_or_is_refused_and_decoding_is_idempotent(object in any_json()) {
        if let Ok(decoded) = pod(&object) {
            let again = pod(&decoded.object).expect("a decoded object decodes");
            prop_assert_eq!(again, Decoded { object: decoded.object, strict: Vec::new() });
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _decoded = json(builtin(), kind("v1", "Pod"), &bytes);
    }
}

#[test]
fn the_lists_of_a_document_have_a_maximum_length_together() {
    let pod = |containers: usize, arguments: usize| {
        let container = json!({"name": "c", "args": vec![""; arguments]});
        json!({"spec": {"containers": vec![container; containers]}})
    };
    let decoded = |object: Value| value(builtin(), builtin().kind("v1", "Pod").expect("a kind"), object);
    assert!(decoded(pod(1, 49_999)).is_ok());
    let refused = decoded(pod(10, 5000)).expect_err("too many elements");
    let message = "the lists of the document have more than 50000 elements";
    assert_eq!((refused.path.as_str(), refused.message.as_str()), ("spec.containers[9].args", message));
}
