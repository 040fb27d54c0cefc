//! Properties of every object that was decoded as its type, whatever format it came in.

use quorate_api::yaml;
use quorate_schema::apply::{self, FieldSet};
use quorate_schema::{builtin, cbor, decode, defaults, protobuf, validate};
use serde_json::Value;

use crate::kinds::InputKind;

/// Checks an object in the shape of its type.
pub(crate) fn check(kind: &InputKind, object: &Value) {
    decoding_is_idempotent(kind, object);
    every_notation_keeps_it(kind, object);
    protobuf_keeps_its_form(kind, object);
    defaults_and_checks_accept_it(kind, object);
    fields_keep_their_form(kind, object);
}

fn decoding_is_idempotent(kind: &InputKind, object: &Value) {
    let again = decode::value(builtin(), kind.ty, object.clone()).expect("a decoded object is decoded again");
    assert_eq!(again.object, *object, "decoding it again changes it");
    assert!(again.strict.is_empty(), "{:?}", again.strict);
}

fn every_notation_keeps_it(kind: &InputKind, object: &Value) {
    let text = object.to_string();
    let from_json = decode::json(builtin(), kind.ty, text.as_bytes()).expect("its JSON is decoded");
    assert_eq!(from_json.object, *object, "its JSON is another object");
    let bytes = cbor::encode(object).expect("it is encoded as CBOR");
    assert_eq!(cbor::decode(&bytes).expect("its CBOR is decoded"), *object, "its CBOR is another object");
    check_yaml(object);
}

/// Checks that the YAML of a value reads back as the value.
pub(crate) fn check_yaml(value: &Value) {
    let text = yaml::to_string(value);
    let read = yaml::document(&text).unwrap_or_else(|error| panic!("its YAML cannot be read: {error}\n{text}"));
    assert!(is_same(&read.value, value), "its YAML is another value: {}\n{value}\n{text}", read.value);
    assert_eq!(read.duplicates, Vec::<String>::new());
}

/// Compares two values. YAML does not distinguish an integral float from an integer, as in Kubernetes.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || (left.is_f64() || right.is_f64()) && left.as_f64() == right.as_f64()
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| is_same(left, right)))
        }
        _ => left == right,
    }
}

/// Protobuf does not distinguish every zero from absence, so the object may change, but its bytes do not.
fn protobuf_keeps_its_form(kind: &InputKind, object: &Value) {
    let mut typed = object.clone();
    typed["apiVersion"] = kind.api_version.into();
    typed["kind"] = kind.kind.into();
    let bytes = protobuf::encode(builtin(), &typed).expect("a decoded object is encoded");
    let read = protobuf::decode(builtin(), &bytes).expect("its message is decoded");
    let read = decode::value(builtin(), kind.ty, read).expect("its message has the shape of the type").object;
    let again = protobuf::encode(builtin(), &read).expect("it is encoded again");
    assert!(bytes == again, "the message changes:\n{typed}\n{read}");
}

fn defaults_and_checks_accept_it(kind: &InputKind, object: &Value) {
    let mut defaulted = object.clone();
    defaults::apply(builtin(), kind.ty, &mut defaulted);
    let once = defaulted.clone();
    defaults::apply(builtin(), kind.ty, &mut defaulted);
    assert_eq!(defaulted, once, "defaults are not idempotent");
    let errors = validate::check(builtin(), kind.ty, object, Some(object));
    let immutable = errors.iter().find(|error| error.detail.contains("immutable"));
    assert!(immutable.is_none(), "an object differs from itself: {immutable:?}");
}

fn fields_keep_their_form(kind: &InputKind, object: &Value) {
    assert!(apply::compare(builtin(), kind.ty, object, object).is_empty(), "an object differs from itself");
    if let Ok(fields) = apply::extract(builtin(), kind.ty, object) {
        let written = fields.clone().into_json();
        // A set that a client sends has limits that the fields of an object do not have.
        if let Ok(read) = FieldSet::from_json(&written) {
            assert_eq!(read, fields, "the set of its fields changes");
        }
    }
}
