use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::data::builtin;
use crate::model::{Kind, KindsOf, Shape, Type, WireTarget};

/// A body that kubectl sent, and the JSON that it prints for the same command with `--dry-run=client -o json`. `debug`,
/// which copied a pod with nearly every field, has no dry run, so its JSON is the body of kubectl 1.31.
#[derive(Deserialize)]
struct Captured {
    command: String,
    body: String,
    object: Value,
}

impl Captured {
    fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).expect("base64")
    }
}

fn captured() -> Vec<Captured> {
    serde_json::from_str(include_str!("testdata/kubectl-1.33.json")).expect("a golden file")
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn kubectl_bodies_decode_to_their_json() {
    for captured in captured() {
        let decoded = decode(builtin(), &captured.bytes()).expect(&captured.command);
        let mut expected = without_nulls(captured.object);
        // A dry run fills in the namespace, which a request has only in its path.
        if decoded["metadata"].get("namespace").is_none() {
            expected["metadata"].as_object_mut().expect("metadata").remove("namespace");
        }
        assert_eq!(decoded, expected, "{}", captured.command);
    }
}

fn message() -> Writer {
    Writer::default()
}

fn envelope(api_version: &str, kind: &str, raw: impl AsRef<[u8]>) -> Vec<u8> {
    let type_meta = message().bytes(1, api_version).bytes(2, kind);
    [PREFIX, message().bytes(1, type_meta).bytes(2, raw).bytes(3, "").bytes(4, "").as_ref()].concat()
}

#[track_caller]
fn check(api_version: &str, kind: &str, raw: impl AsRef<[u8]>, mut expected: Value) {
    expected["apiVersion"] = api_version.into();
    expected["kind"] = kind.into();
    assert_eq!(decode(builtin(), &envelope(api_version, kind, raw)).expect("it is well-formed"), expected);
}

#[track_caller]
fn refused(body: &[u8], expected: &str) {
    assert_eq!(decode(builtin(), body).expect_err("it is not well-formed").to_string(), expected);
}

#[test]
fn zero_is_left_out_where_it_means_absent() {
    let meta = || message().bytes(1, "web").bytes(2, "").varint(7, 0).bytes(8, "");
    let spec = message().varint(1, 0).varint(5, 0).varint(7, 0).bytes(4, "").varint(9, 600);
    check(
        "apps/v1",
        "Deployment",
        message().bytes(1, meta()).bytes(2, spec).bytes(3, ""),
        json!({
            "metadata": { "name": "web" },
            "spec": { "replicas": 0, "strategy": {}, "progressDeadlineSeconds": 600 },
            "status": {},
        }),
    );
    check(
        "v1",
        "ConfigMap",
        message().bytes(2, message().bytes(1, "empty").bytes(2, "")).varint(4, 0),
        json!({ "data": { "empty": "" }, "immutable": false }),
    );
    check(
        "v1",
        "DeleteOptions",
        message().varint(1, 0).varint(3, 0).bytes(4, "Orphan"),
        json!({ "gracePeriodSeconds": 0, "orphanDependents": false, "propagationPolicy": "Orphan" }),
    );
}

#[test]
fn special_types_decode_to_their_json_form() {
    let time = |seconds: i64, nanos: u64| message().varint(1, seconds as u64).varint(2, nanos);
    check(
        "coordination.k8s.io/v1",
        "Lease",
        message()
            .bytes(1, message().bytes(1, "a").bytes(8, time(-1, 999_999_999)))
            .bytes(2, message().bytes(3, time(1_700_000_000, 123_456_789)).varint(5, u64::MAX)),
        json!({
            "metadata": { "name": "a", "creationTimestamp": "1969-12-31T23:59:59Z" },
            "spec": { "acquireTime": "2023-11-14T22:13:20.123456Z", "leaseTransitions": -1 },
        }),
    );
    let port = |target: Writer| message().bytes(1, "a").varint(3, 80).bytes(4, target);
    let number = message().varint(1, 0).varint(2, 8080).bytes(3, "");
    let name = message().varint(1, 1).varint(2, 0).bytes(3, "http");
    check(
        "v1",
        "Service",
        message().bytes(2, message().bytes(1, port(number)).bytes(1, port(name))),
        json!({ "spec": { "ports": [
            { "name": "a", "port": 80, "targetPort": 8080 },
            { "name": "a", "port": 80, "targetPort": "http" },
        ] } }),
    );
    let limit = message().bytes(1, "cpu").bytes(2, message().bytes(1, "250m"));
    check(
        "v1",
        "ResourceQuota",
        message().bytes(2, message().bytes(1, limit)),
        json!({ "spec": { "hard": { "cpu": "250m" } } }),
    );
    let managed = message().bytes(1, "kubectl").bytes(7, message().bytes(1, "{\"f:data\":{}}"));
    check(
        "v1",
        "Secret",
        message().bytes(1, message().bytes(17, managed)).bytes(2, message().bytes(1, "a").bytes(2, [0, 255])),
        json!({
            "metadata": { "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:data": {} } }] },
            "data": { "a": "AP8=" },
        }),
    );
    let extra = message().bytes(1, "scopes").bytes(2, message().bytes(1, "a").bytes(1, "b"));
    check(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        message().bytes(2, message().bytes(5, extra)),
        json!({ "spec": { "extra": { "scopes": ["a", "b"] } } }),
    );
}

#[test]
fn inline_messages_merge_into_their_parent() {
    let volume = message().bytes(1, "tmp").bytes(2, message().bytes(2, message().bytes(1, "")));
    let probe = message().bytes(1, message().bytes(1, message().bytes(1, "true"))).varint(2, 5).varint(3, 0);
    let from = message().bytes(2, message().bytes(1, message().bytes(1, "settings")).varint(2, 0));
    let container = message().bytes(1, "app").bytes(10, probe).bytes(19, from);
    check(
        "v1",
        "Pod",
        message().bytes(2, message().bytes(1, volume).bytes(2, container)),
        json!({ "spec": {
            "volumes": [{ "name": "tmp", "emptyDir": {} }],
            "containers": [{
                "name": "app",
                "livenessProbe": { "exec": { "command": ["true"] }, "initialDelaySeconds": 5 },
                "envFrom": [{ "configMapRef": { "name": "settings", "optional": false } }],
            }],
        } }),
    );
}

#[test]
fn repeated_fields_merge_and_numbers_may_be_packed() {
    check(
        "v1",
        "Pod",
        message()
            .bytes(1, message().bytes(1, "a").bytes(3, "x"))
            .bytes(2, message().bytes(14, message().bytes(4, [1, 2]).varint(4, 3)))
            .bytes(1, message().bytes(1, "b"))
            .bytes(1, message().bytes(3, "")),
        json!({ "metadata": { "name": "b" }, "spec": { "securityContext": { "supplementalGroups": [1, 2, 3] } } }),
    );
}

#[test]
fn unknown_fields_must_be_zero() {
    let zeros = message().varint(900, 0).bytes(901, "").bytes(902, message().varint(1, 0).bytes(2, ""));
    check("v1", "Namespace", message().bytes(2, zeros), json!({ "spec": {} }));
    refused(
        &envelope("v1", "Namespace", message().bytes(2, message().varint(900, 1))),
        "protobuf: core.v1.Namespace field 2: core.v1.NamespaceSpec field 900: core.v1.NamespaceSpec has no such field",
    );
    let unknown = envelope("v1", "Pod", message().bytes(77, "x"));
    refused(&unknown, "protobuf: core.v1.Pod field 77: core.v1.Pod has no such field");
}

#[test]
fn malformed_bodies_are_refused() {
    let prefix = "provided data does not appear to be a protobuf message, expected prefix [107, 56, 115, 0]";
    refused(b"", prefix);
    refused(b"{}", prefix);
    refused(PREFIX, "the body has no apiVersion");
    refused(&envelope("v1", "", ""), "the body has no kind");
    refused(&envelope("v1", "Widget", ""), "no message for kind \"Widget\" of version \"v1\"");
    refused(&envelope("v1", "Pod", [0x0a, 5, 1]), "protobuf: unexpected end");
    refused(&envelope("v1", "Pod", [0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]), "protobuf: unexpected end");
    refused(&envelope("v1", "Pod", message().varint(1, 0)), "protobuf: core.v1.Pod field 1: wrong wire type");
    let name = "meta.v1.ObjectMeta field 1: invalid UTF-8";
    let utf8 = message().bytes(1, message().bytes(1, [0xff]));
    refused(&envelope("v1", "Pod", utf8), &format!("protobuf: core.v1.Pod field 1: {name}"));
    let time = message().bytes(1, message().bytes(8, message().varint(1, i64::MAX as u64)));
    let out_of_range = "protobuf: core.v1.Pod field 1: meta.v1.ObjectMeta field 8: the time is out of range";
    refused(&envelope("v1", "Pod", time), out_of_range);
    let truncated = [&envelope("v1", "Pod", "")[..], &[0x12, 9]].concat();
    refused(&truncated, "protobuf: unexpected end");
}

/// Returns a body that sets every field, on all levels, except for a type within itself.
fn filled(ty: TypeId) -> Writer {
    fill_message(ty, &mut Vec::new())
}

fn fill_message(id: TypeId, open: &mut Vec<TypeId>) -> Writer {
    let ty = builtin().get(id);
    open.push(id);
    let filled = ty.wire.iter().fold(message(), |writer, entry| match entry.target {
        WireTarget::Inline(inner) => writer.bytes(entry.number, fill_message(inner, open)),
        WireTarget::Field(index) => fill(writer, entry.number, &ty.fields[usize::from(index)].shape, open),
    });
    open.pop();
    filled
}

fn fill(mut writer: Writer, number: u32, shape: &Shape, open: &mut Vec<TypeId>) -> Writer {
    match &shape.kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 => writer.varint(number, 1),
        Kind::String | Kind::Bytes => writer.bytes(number, "x"),
        Kind::Strings | Kind::Quantity => writer.bytes(number, message().bytes(1, "1")),
        Kind::Time | Kind::MicroTime | Kind::IntOrString => writer.bytes(number, message().varint(1, 0).varint(2, 1)),
        Kind::Raw(_) => writer.bytes(number, message().bytes(1, "{}")),
        Kind::SchemaOr(_) | Kind::Any => writer,
        Kind::Double => {
            writer.put_double(number, 1.5);
            writer
        }
        Kind::Object(inner) if open.contains(inner) => writer,
        Kind::Object(inner) => writer.bytes(number, fill_message(*inner, open)),
        Kind::List(list) => fill(writer, number, &list.item, open),
        Kind::Map(shape) if shape.kind.object().is_some_and(|inner| open.contains(&inner)) => writer,
        Kind::Map(shape) => writer.bytes(number, fill(message().bytes(1, "k"), 2, shape, open)),
    }
}

/// Returns the kinds that have a protobuf form, with their `apiVersion`.
fn kinds() -> Vec<(String, String, TypeId)> {
    let kinds = builtin().types().filter(|(_, ty)| !ty.wire.is_empty());
    kinds
        .filter_map(|(id, ty): (TypeId, &Type)| match &ty.kinds {
            KindsOf::One(version) => Some((version.clone().into_owned(), ty.name.clone().into_owned(), id)),
            KindsOf::Every => Some(("apps/v1".to_owned(), ty.name.clone().into_owned(), id)),
            KindsOf::None => None,
        })
        .collect()
}

/// A body with every field set decodes without a field that JSON's decoder does not know, and encodes to the same bytes.
#[test]
fn every_kind_survives_both_directions() {
    let model = builtin();
    assert!(kinds().len() > 100);
    for (api_version, kind, id) in kinds() {
        let body = envelope(&api_version, &kind, filled(id));
        let object = decode(model, &body).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let decoded = crate::decode::value(model, id, object.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        // `WatchEvent` is a kind that carries neither `apiVersion` nor `kind` in JSON.
        let unknown: Vec<&str> = decoded.strict.iter().map(crate::StrictError::path).collect();
        let expected: &[&str] = if model.get(id).is_typed { &[] } else { &["apiVersion", "kind"] };
        assert_eq!(unknown, expected, "{kind}");
        let again = decode(model, &encode(model, &object).expect("it encodes")).expect("it decodes");
        assert_eq!(again, object, "{kind}");
    }
}

#[test]
fn absent_fields_are_written_as_go_writes_them() {
    let encoded = encode(builtin(), &json!({ "apiVersion": "v1", "kind": "Service", "spec": { "ports": [{}] } }));
    let meta = message().bytes(1, "").bytes(2, "").bytes(3, "").bytes(4, "").bytes(5, "").bytes(6, "");
    let meta = meta.varint(7, 0).bytes(8, "");
    let target = message().varint(1, 0).varint(2, 0).bytes(3, "");
    let port = message().bytes(1, "").bytes(2, "").varint(3, 0).bytes(4, target).varint(5, 0);
    let spec = message().bytes(1, port).bytes(3, "").bytes(4, "").bytes(7, "").bytes(8, "").bytes(10, "");
    let spec = spec.bytes(11, "").varint(12, 0).varint(13, 0);
    let status = message().bytes(1, "");
    let expected = envelope("v1", "Service", message().bytes(1, meta).bytes(2, spec).bytes(3, status));
    assert_eq!(encoded.expect("it encodes"), expected);
}

#[test]
fn documents_in_documents_decode() {
    let pod = envelope("v1", "Pod", message().bytes(1, message().bytes(1, "a")));
    let event = message().bytes(1, "ADDED").bytes(2, message().bytes(1, &pod));
    check(
        "v1",
        "WatchEvent",
        event,
        json!({ "type": "ADDED", "object": { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" } } }),
    );
    let bomb =
        (0..200).fold(pod, |inner, _| envelope("v1", "WatchEvent", message().bytes(2, message().bytes(1, inner))));
    assert!(decode(builtin(), &bomb).is_err());
}

#[test]
fn a_schema_within_itself_is_bounded() {
    let schema = (0..500).fold(message(), |inner, _| message().bytes(28, inner));
    let crd = builtin().named("apiextensions.v1.JSONSchemaProps").expect("a type");
    let fault = decode_message(builtin(), crd, schema.as_ref()).expect_err("too deep").to_string();
    assert!(fault.ends_with("messages are nested too deeply"), "{fault}");
}

#[test]
fn values_of_a_wrong_type_do_not_encode() {
    for wrong in [json!({ "spec": 1 }), json!({ "spec": { "priority": "x" } }), json!({ "spec": { "containers": {} } })]
    {
        let mut object = wrong;
        object["apiVersion"] = "v1".into();
        object["kind"] = "Pod".into();
        assert!(matches!(encode(builtin(), &object), Err(ProtobufError::Message(_))), "{object}");
    }
    let table = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "Table" });
    assert!(matches!(encode(builtin(), &table), Err(ProtobufError::Kind { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(raw in prop::collection::vec(any::<u8>(), 0..300), pick in any::<usize>()) {
        let all = kinds();
        let (api_version, kind, _) = &all[pick % all.len()];
        let _decoded = decode(builtin(), &envelope(api_version, kind, &raw));
        let _decoded = decode(builtin(), &raw);
        let _decoded = decode(builtin(), &[PREFIX, &raw].concat());
    }

    #[test]
    fn a_damaged_body_is_decoded_or_refused(
        pick in any::<usize>(),
        damages in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        end in any::<usize>(),
    ) {
        let all = kinds();
        let (api_version, kind, id) = &all[pick % all.len()];
        let mut body = envelope(api_version, kind, filled(*id));
        for (at, byte) in damages {
            let length = body.len();
            body[at % length] = byte;
        }
        if let Ok(object) = decode(builtin(), &body) {
            let _encoded = encode(builtin(), &object);
        }
        let _decoded = decode(builtin(), &body[..end % body.len()]);
    }
}
