//! The document of v2, translated from the paths of v3. It has everything that is served.
//!
//! kubectl before 1.29 reads it before it applies or creates. Parameters are spelled out in every operation: the oldest
//! of these clients do not follow references to them.

use quorate_schema::model::KindsOf;
use quorate_schema::openapi::{Version, component_name};
use serde_json::{Map, Value, json};

use super::document::{Part, Paths, bearer_token, info};
use super::operations::COMPONENTS;
use super::resource::Resource;

/// Renders the document of all parts.
pub(super) fn render<'a>(parts: impl Iterator<Item = &'a Part>, resources: &[Resource]) -> Value {
    let mut paths = Paths::default();
    parts.for_each(|part| paths.add(part, resources));
    let mut definitions = paths.components(Version::V2, "v1");
    name_every_version(&paths, &mut definitions, resources);
    let items: Map<String, Value> = paths.items.into_iter().map(|(path, item)| (path, path_item(item))).collect();
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": items,
        "definitions": definitions,
        "securityDefinitions": { "BearerToken": bearer_token() },
        "security": [{ "BearerToken": [] }],
    })
}

/// Lists all group versions at the definitions that are kinds of each of them.
fn name_every_version(paths: &Paths, definitions: &mut Map<String, Value>, resources: &[Resource]) {
    let mut versions: Vec<(&str, &str)> = vec![("", "v1")];
    for resource in resources {
        let version = (resource.kind.group.as_str(), resource.kind.version.as_str());
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    versions.sort_unstable();
    for ty in paths.operations.used.iter().map(|id| paths.operations.model.get(*id)) {
        if ty.kinds == KindsOf::Every
            && let Some(definition) = definitions.get_mut(&component_name(ty))
        {
            definition["x-kubernetes-group-version-kind"] = versions
                .iter()
                .map(|(group, version)| json!({ "group": group, "version": version, "kind": ty.name }))
                .collect();
        }
    }
}

fn path_item(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let translated = item.into_iter().map(|(name, value)| {
        let value = if name == "parameters" { parameters(value) } else { operation(value) };
        (name, value)
    });
    translated.collect()
}

fn operation(mut operation: Value) -> Value {
    let body = operation["requestBody"].take();
    let mut list = match operation["parameters"].take() {
        Value::Array(list) => list.into_iter().map(parameter).collect(),
        _ => Vec::new(),
    };
    if let Some(content) = body["content"].as_object() {
        operation["consumes"] = content.keys().map(String::as_str).collect();
        let mut parameter = json!({ "in": "body", "name": "body" });
        if let Some(first) = content.values().next() {
            parameter["schema"] = schema(&first["schema"]);
        }
        if body["required"] == true {
            parameter["required"] = true.into();
        }
        list.insert(0, parameter);
    }
    let answers = operation["responses"].as_object_mut();
    let mut media_types: Vec<String> = Vec::new();
    for answer in answers.into_iter().flat_map(|answers| answers.values_mut()) {
        let content = answer.as_object_mut().and_then(|answer| answer.remove("content"));
        let Some(Value::Object(content)) = content else { continue };
        if let Some(first) = content.values().next() {
            answer["schema"] = schema(&first["schema"]);
        }
        media_types = content.keys().cloned().collect();
    }
    operation["produces"] = media_types.into();
    operation["schemes"] = json!(["https"]);
    if !list.is_empty() {
        operation["parameters"] = list.into();
    }
    if let Value::Object(operation) = &mut operation {
        operation.retain(|_, value| !value.is_null());
    }
    operation
}

fn parameters(list: Value) -> Value {
    match list {
        Value::Array(list) => list.into_iter().map(parameter).collect(),
        other => other,
    }
}

/// Moves the fields of a parameter's schema into the parameter.
fn parameter(mut parameter: Value) -> Value {
    if let Value::Object(fields) = &mut parameter
        && let Some(Value::Object(schema)) = fields.remove("schema")
    {
        fields.extend(schema);
    }
    parameter
}

/// Translates a reference.
fn schema(schema: &Value) -> Value {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix(COMPONENTS)) {
        Some(name) => json!({ "$ref": format!("#/definitions/{name}") }),
        None => schema.clone(),
    }
}
