use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::catalog::Catalog;

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
        let decoded = decode(&captured.bytes()).expect(&captured.command);
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
    assert_eq!(decode(&envelope(api_version, kind, raw)).expect("it is well-formed"), expected);
}

#[track_caller]
fn refused(body: &[u8], expected: &str) {
    assert_eq!(decode(body).expect_err("it is not well-formed").to_string(), expected);
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

/// Returns a body that sets every field, on all levels.
fn filled(table: &Message) -> Writer {
    table.fields.iter().fold(message(), |writer, field| {
        let number = field.number;
        match &field.shape {
            Shape::Inline(inner) => writer.bytes(number, filled(inner)),
            Shape::One(kind) | Shape::List(kind) => fill(writer, number, *kind),
            Shape::Map(kind) => writer.bytes(number, fill(message().bytes(1, "k"), 2, *kind)),
        }
    })
}

fn fill(writer: Writer, number: u32, kind: Kind) -> Writer {
    match kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 => writer.varint(number, 1),
        Kind::String | Kind::Bytes => writer.bytes(number, "x"),
        Kind::Strings | Kind::Quantity => writer.bytes(number, message().bytes(1, "1")),
        Kind::Time | Kind::MicroTime | Kind::IntOrString => writer.bytes(number, message().varint(1, 0).varint(2, 1)),
        Kind::Raw => writer.bytes(number, message().bytes(1, "{}")),
        Kind::Message(inner) => writer.bytes(number, filled(inner)),
    }
}

#[test]
fn tables_are_in_order() {
    fn check(table: &Message) {
        assert!(table.fields.is_sorted_by_key(|field| field.number), "{}", table.name);
        for field in table.fields {
            match &field.shape {
                Shape::Inline(inner)
                | Shape::One(Kind::Message(inner))
                | Shape::List(Kind::Message(inner))
                | Shape::Map(Kind::Message(inner)) => check(inner),
                _ => {}
            }
        }
    }
    tables::all().for_each(|(_, table)| check(table));
}

/// The fields of Kubernetes v1.36: one line for each message of its `generated.proto` files that the tables hold, with the
/// numbers and names of its fields. Some names differ from those in JSON by the case of letters.
const REFERENCE: &str = include_str!("testdata/kubernetes-1.36.txt");

#[test]
fn the_tables_equal_the_reference() {
    let reference: BTreeMap<&str, BTreeMap<u32, String>> = REFERENCE
        .lines()
        .map(|line| {
            let (message, fields) = line.split_once(": ").expect("a message and its fields");
            let field = |field: &str| {
                let (number, name) = field.split_once(' ').expect("a number and a name");
                (number.parse().expect("a number"), name.to_lowercase())
            };
            (message, fields.split(", ").map(field).collect())
        })
        .collect();
    let mut compared = BTreeSet::new();
    let mut pending: Vec<&Message> = tables::all().map(|(_, table)| table).collect();
    while let Some(table) = pending.pop() {
        // These are the messages of another repository.
        if table.name.starts_with("apiregistration.") || !compared.insert(table.name) {
            continue;
        }
        let expected = reference.get(table.name).unwrap_or_else(|| panic!("{} is not in the reference", table.name));
        let numbers: BTreeSet<u32> = table.fields.iter().map(|field| field.number).collect();
        assert_eq!(numbers, expected.keys().copied().collect(), "{}", table.name);
        for field in table.fields {
            match &field.shape {
                Shape::Inline(inner) => pending.push(inner),
                shape => {
                    assert_eq!(field.name.to_lowercase(), expected[&field.number], "{}", table.name);
                    if let Shape::One(Kind::Message(inner))
                    | Shape::List(Kind::Message(inner))
                    | Shape::Map(Kind::Message(inner)) = shape
                    {
                        pending.push(inner);
                    }
                }
            }
        }
    }
    assert_eq!(compared, reference.keys().copied().collect());
}

/// Checks that the tables' names and types are those of the served kinds.
#[test]
fn every_field_belongs_to_its_kind() {
    let catalog = Catalog::new(quorate_registry::builtin());
    for served in &catalog.rows {
        let kind = &served.descriptor.kind.kind;
        let table = tables::find(&served.api_version, kind).expect("each kind has a message");
        let object = decode(&envelope(&served.api_version, kind, filled(table))).expect("it is well-formed");
        let decoded = served.descriptor.strategy.decode(object).expect("its types are right");
        assert_eq!(decoded.unknown_fields, Vec::<String>::new(), "{kind}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(raw in prop::collection::vec(any::<u8>(), 0..300), pick in any::<usize>()) {
        let all: Vec<_> = tables::all().collect();
        let (api_version, table) = all[pick % all.len()];
        let _decoded = decode(&envelope(api_version, table.kind(), &raw));
        let _decoded = decode(&raw);
        let _decoded = decode(&[PREFIX, &raw].concat());
    }

    #[test]
    fn a_damaged_body_is_decoded_or_refused(
        pick in any::<usize>(),
        damages in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        end in any::<usize>(),
    ) {
        let all: Vec<_> = tables::all().collect();
        let (api_version, table) = all[pick % all.len()];
        let mut body = envelope(api_version, table.kind(), filled(table));
        for (at, byte) in damages {
            let length = body.len();
            body[at % length] = byte;
        }
        let _decoded = decode(&body);
        let _decoded = decode(&body[..end % body.len()]);
    }
}
