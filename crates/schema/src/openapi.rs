//! OpenAPI: a component schema (v3) or a definition (v2) of a type, as Kubernetes serves them.
//!
//! The rules are those of `k8s.io/kube-openapi`: which defaults follow from a Go type, and where a reference needs an
//! `allOf` around it.

use serde_json::{Map, Value, json};

use crate::data::documentation;
use crate::model::{Field, Form, Kind, KindsOf, ListType, MapType, Model, Patch, SchemaOr, Shape, Type, TypeId};

/// The version of the OpenAPI format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2,
    V3,
}

impl Version {
    fn reference(self, ty: &Type) -> Value {
        let folder = match self {
            Version::V2 => "#/definitions/",
            Version::V3 => "#/components/schemas/",
        };
        format!("{folder}{}", component_name(ty)).into()
    }
}

/// Returns the name of a type in OpenAPI, such as `io.k8s.api.core.v1.Pod`.
#[must_use]
pub fn component_name(ty: &Type) -> String {
    format!("{}.{}", ty.prefix, ty.name)
}

/// Renders a type for the document of a group version (its `apiVersion`). The document matters to kinds that every group
/// version has.
#[must_use]
pub fn component(model: &Model, id: TypeId, version: Version, document: &str) -> Value {
    let ty = model.get(id);
    let mut schema = Map::new();
    if let Some(text) = documentation(ty, None) {
        schema.insert("description".to_owned(), text.into());
    }
    match ty.form {
        Form::Object => object(model, ty, version, &mut schema),
        Form::Raw if ty.name == "JSON" => {}
        Form::Raw => {
            schema.insert("type".to_owned(), "object".into());
        }
        Form::SchemaOr(SchemaOr::Bool | SchemaOr::Schemas | SchemaOr::Strings) => {}
        Form::Scalar => scalar(ty, version, &mut schema),
    }
    if ty.map_type != MapType::Unset {
        schema.insert("x-kubernetes-map-type".to_owned(), map_type(ty.map_type).into());
    }
    if let Some(unions) = &ty.unions {
        schema.insert("x-kubernetes-unions".to_owned(), unions.clone());
    }
    let kinds = group_version_kinds(ty, document);
    if !kinds.is_empty() {
        schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
    }
    Value::Object(schema)
}

/// Returns the types that a type refers to, directly or through others, with itself.
#[must_use]
pub fn closure(model: &Model, id: TypeId) -> std::collections::BTreeSet<TypeId> {
    let mut found = std::collections::BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(model.get(id).fields.iter().filter_map(|field| referred(model, &field.shape.kind)));
        }
    }
    found
}

fn group_version_kinds(ty: &Type, document: &str) -> Vec<Value> {
    let versions: Vec<&str> = match &ty.kinds {
        KindsOf::None => Vec::new(),
        KindsOf::One(api_version) => vec![api_version],
        KindsOf::Every if document == "v1" => vec!["v1"],
        KindsOf::Every => vec!["v1", document],
    };
    let entry = |api_version: &str| {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        json!({ "group": group, "version": version, "kind": ty.name })
    };
    versions.into_iter().map(entry).collect()
}

fn object(model: &Model, ty: &Type, version: Version, schema: &mut Map<String, Value>) {
    schema.insert("type".to_owned(), "object".into());
    if !ty.fields.is_empty() {
        let properties =
            ty.fields.iter().map(|field| (field.name.clone().into_owned(), property(model, field, version)));
        schema.insert("properties".to_owned(), properties.collect());
    }
    let mut required: Vec<&Field> = ty.fields.iter().filter(|field| field.is_required).collect();
    required.sort_by_key(|field| field.position);
    if !required.is_empty() {
        let names = required.into_iter().map(|field| Value::from(field.name.as_ref()));
        schema.insert("required".to_owned(), names.collect());
    }
    if ty.keeps_unknown {
        schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
    }
}

fn property(model: &Model, field: &Field, version: Version) -> Value {
    let mut schema = Map::new();
    if let Some(text) = documentation(model.get(field.declared_by), Some(&field.name)) {
        schema.insert("description".to_owned(), text.into());
    }
    let rules = field.shape.rules.as_deref();
    let default = field.default().cloned().or_else(|| implied_default(field));
    // Kubernetes removes defaults from its v2 document, whose readers take them for something else.
    if let Some(default) = default.filter(|_| version == Version::V3) {
        schema.insert("default".to_owned(), default);
    }
    match referred(model, &field.shape.kind).filter(|_| !is_collection(&field.shape.kind)) {
        Some(id) => {
            let reference = version.reference(model.get(id));
            if version == Version::V2 || schema.is_empty() {
                schema.insert("$ref".to_owned(), reference);
            } else {
                schema.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
            }
        }
        None => inline(model, &field.shape, version, &mut schema),
    }
    if rules.is_some_and(|rules| rules.shows_list_type) {
        schema.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
    }
    if field.shape.map_type != MapType::Unset {
        schema.insert("x-kubernetes-map-type".to_owned(), map_type(field.shape.map_type).into());
    }
    if let Some(patch) = &field.patch {
        merge(patch, &mut schema);
    }
    Value::Object(schema)
}

/// Returns the default that follows from a Go type: the zero of a field that is neither a pointer nor `omitempty`, and
/// the empty object of a struct.
fn implied_default(field: &Field) -> Option<Value> {
    match &field.shape.kind {
        _ if field.is_pointer => None,
        Kind::Object(_) => Some(json!({})),
        _ if !field.is_always_written => None,
        Kind::String => Some("".into()),
        Kind::Int32 | Kind::Int64 => Some(0.into()),
        Kind::Bool => Some(false.into()),
        _ => None,
    }
}

fn merge(patch: &Patch, schema: &mut Map<String, Value>) {
    let strategies = [(patch.merges, "merge"), (patch.replaces, "replace"), (patch.retains_keys, "retainKeys")];
    let names: Vec<&str> = strategies.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect();
    schema.insert("x-kubernetes-patch-strategy".to_owned(), names.join(",").into());
    if let Some(key) = &patch.key {
        schema.insert("x-kubernetes-patch-merge-key".to_owned(), key.as_ref().into());
    }
}

fn is_collection(kind: &Kind) -> bool {
    matches!(kind, Kind::List(_) | Kind::Map(_))
}

/// Returns the type that stands as a reference in place of a value, or of the values in it.
fn referred(model: &Model, kind: &Kind) -> Option<TypeId> {
    let named = |name| model.named(name);
    match kind {
        Kind::Object(id) | Kind::Raw(id) | Kind::SchemaOr(id) => Some(*id),
        Kind::Time => named("meta.v1.Time"),
        Kind::MicroTime => named("meta.v1.MicroTime"),
        Kind::Quantity => named("resource.Quantity"),
        Kind::IntOrString => named("intstr.IntOrString"),
        Kind::List(list) => referred(model, &list.item.kind),
        Kind::Map(shape) => referred(model, &shape.kind),
        _ => None,
    }
}

/// Renders a value that is not a reference.
fn inline(model: &Model, shape: &Shape, version: Version, schema: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| schema.insert(name.to_owned(), value);
    match &shape.kind {
        Kind::List(list) => {
            set("type", "array".into());
            set("items", nested(model, &list.item, version));
            match &list.list_type {
                ListType::Unset => {}
                ListType::Atomic => drop(set("x-kubernetes-list-type", "atomic".into())),
                ListType::Set => drop(set("x-kubernetes-list-type", "set".into())),
                ListType::Map(keys) => {
                    set("x-kubernetes-list-type", "map".into());
                    set("x-kubernetes-list-map-keys", keys.iter().map(|key| Value::from(key.as_ref())).collect());
                }
            }
        }
        Kind::Map(value) => {
            set("type", "object".into());
            set("additionalProperties", nested(model, value, version));
        }
        Kind::Strings => {
            set("type", "array".into());
            set("items", json!({ "type": "string" }));
        }
        kind => {
            let (name, format) = match kind {
                Kind::Bool => ("boolean", None),
                Kind::Int32 => ("integer", Some("int32")),
                Kind::Int64 => ("integer", Some("int64")),
                Kind::Double => ("number", Some("double")),
                Kind::Bytes => ("string", Some("byte")),
                Kind::Any => ("object", None),
                _ => ("string", None),
            };
            set("type", name.into());
            if let Some(format) = format {
                set("format", format.into());
            }
        }
    }
}

/// Renders the values of a list or a map.
fn nested(model: &Model, shape: &Shape, version: Version) -> Value {
    match referred(model, &shape.kind).filter(|_| !is_collection(&shape.kind)) {
        Some(id) => json!({ "$ref": version.reference(model.get(id)) }),
        None => {
            let mut schema = Map::new();
            inline(model, shape, version, &mut schema);
            Value::Object(schema)
        }
    }
}

/// Renders a type that is a scalar in JSON.
fn scalar(ty: &Type, version: Version, schema: &mut Map<String, Value>) {
    let (alternatives, format) = match ty.name.as_ref() {
        "IntOrString" => (Some(["integer", "string"]), Some("int-or-string")),
        "Quantity" => (Some(["string", "number"]), None),
        _ => (None, Some("date-time")),
    };
    if let Some(format) = format {
        schema.insert("format".to_owned(), format.into());
    }
    match alternatives.filter(|_| version == Version::V3) {
        Some([first, second]) => {
            schema.insert("oneOf".to_owned(), json!([{ "type": first }, { "type": second }]));
        }
        None => {
            schema.insert("type".to_owned(), "string".into());
        }
    }
}

fn map_type(map_type: MapType) -> &'static str {
    match map_type {
        MapType::Granular => "granular",
        MapType::Atomic | MapType::Unset => "atomic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::builtin;

    fn rendered(name: &str, version: Version) -> Value {
        let mut schema = component(builtin(), builtin().named(name).expect("a type"), version, "apps/v1");
        strip_descriptions(&mut schema);
        schema
    }

    fn strip_descriptions(schema: &mut Value) {
        if let Value::Object(map) = schema {
            map.retain(|name, value| name != "description" || !value.is_string());
            map.values_mut().for_each(strip_descriptions);
        }
    }

    #[test]
    fn version_3_has_defaults_and_wraps_references() {
        let reference = |name: &str| format!("#/components/schemas/io.k8s.{name}");
        assert_eq!(
            rendered("core.v1.ResourceFieldSelector", Version::V3),
            json!({
                "type": "object", "required": ["resource"], "x-kubernetes-map-type": "atomic",
                "properties": {
                    "containerName": { "type": "string" },
                    "divisor": { "allOf": [{ "$ref": reference("apimachinery.pkg.api.resource.Quantity") }] },
                    "resource": { "type": "string", "default": "" },
                },
            })
        );
        let mut strategy =
            component(builtin(), builtin().named("apps.v1.DeploymentSpec").expect("a type"), Version::V3, "");
        let strategy = strategy["properties"]["strategy"].take();
        assert_eq!(strategy["allOf"], json!([{ "$ref": reference("api.apps.v1.DeploymentStrategy") }]));
        assert_eq!(
            (&strategy["default"], &strategy["x-kubernetes-patch-strategy"]),
            (&json!({}), &json!("retainKeys"))
        );
    }

    #[test]
    fn version_2_has_no_defaults() {
        let reference = |name: &str| format!("#/definitions/io.k8s.{name}");
        assert_eq!(
            rendered("core.v1.ResourceFieldSelector", Version::V2)["properties"],
            json!({
                "containerName": { "type": "string" },
                "divisor": { "$ref": reference("apimachinery.pkg.api.resource.Quantity") },
                "resource": { "type": "string" },
            })
        );
        assert_eq!(rendered("intstr.IntOrString", Version::V2), json!({ "type": "string", "format": "int-or-string" }));
        assert_eq!(rendered("resource.Quantity", Version::V2), json!({ "type": "string" }));
    }

    #[test]
    fn kinds_of_every_version_name_the_document_too() {
        let kinds = &rendered("meta.v1.DeleteOptions", Version::V3)["x-kubernetes-group-version-kind"];
        assert_eq!(kinds[0], json!({ "group": "", "version": "v1", "kind": "DeleteOptions" }));
        assert_eq!(kinds[1], json!({ "group": "apps", "version": "v1", "kind": "DeleteOptions" }));
    }

    #[test]
    fn the_closure_has_everything_that_a_document_refers_to() {
        let model = builtin();
        let deployment = model.kind("apps/v1", "Deployment").expect("a kind");
        let names: Vec<String> = closure(model, deployment).iter().map(|id| model.get(*id).qualified_name()).collect();
        for name in
            ["apps.v1.Deployment", "core.v1.Container", "intstr.IntOrString", "meta.v1.Time", "resource.Quantity"]
        {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        assert!(!names.iter().any(|known| known == "core.v1.Node"));
        let schema = model.named("apiextensions.v1.JSONSchemaProps").expect("a type");
        assert!(closure(model, schema).contains(&schema));
    }
}
