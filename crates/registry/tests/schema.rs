//! The schema and the Rust types of the served kinds know the same fields.

use quorate_registry::builtin;
use quorate_schema::model::{Kind, Shape};
use quorate_schema::{Model, TypeId};
use serde_json::{Map, Value, json};

/// Returns an object with every field of a type, on all levels.
fn filled(model: &Model, ty: TypeId) -> Value {
    let fields = model.get(ty).fields.iter();
    Value::Object(fields.map(|field| (field.name.clone().into_owned(), fill(model, &field.shape))).collect())
}

fn fill(model: &Model, shape: &Shape) -> Value {
    match &shape.kind {
        Kind::Any | Kind::Raw(_) | Kind::SchemaOr(_) => json!({}),
        Kind::Bool => true.into(),
        Kind::Int32 | Kind::Int64 | Kind::IntOrString => 1.into(),
        Kind::Double => 1.5.into(),
        Kind::String => "x".into(),
        Kind::Bytes => "eA==".into(),
        Kind::Time => "2024-02-29T12:00:00Z".into(),
        Kind::MicroTime => "2024-02-29T12:00:00.000000Z".into(),
        Kind::Quantity => "1".into(),
        Kind::Strings => json!(["x"]),
        Kind::Object(inner) => filled(model, *inner),
        Kind::List(list) => vec![fill(model, &list.item)].into(),
        Kind::Map(value) => Value::Object(Map::from_iter([("k".to_owned(), fill(model, value))])),
    }
}

#[test]
fn every_field_of_the_schema_belongs_to_its_kind() {
    let model = quorate_schema::builtin();
    let registry = builtin();
    let mut count = 0;
    for descriptor in registry.iter() {
        let kind = &descriptor.kind;
        let ty = model.kind(&kind.api_version(), &kind.kind).unwrap_or_else(|| panic!("no type for {kind}"));
        let mut object = filled(model, ty);
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.as_ref().into();
        let decoded = descriptor.schema.decode(object.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(decoded.strict, [], "{kind}");
        assert_eq!(decoded.object, object, "{kind}");
        count += 1;
    }
    assert!(count >= 13, "{count} kinds");
}
