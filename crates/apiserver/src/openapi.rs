//! OpenAPI v3, generated from the table of kinds: enough for clients to learn paths, kinds and query parameters. The
//! schemas are open objects, because the server validates the fields (`fieldValidation=Strict`).

use quorate_api::Status;
use quorate_registry::{Subresource, Verb};
use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, Served};
use crate::error;

/// Returns `/openapi/v3`: the index of the documents.
pub(crate) fn index(catalog: &Catalog) -> Value {
    let mut paths = Map::new();
    for row in &catalog.rows {
        let path = document_path(row);
        let url = format!("/openapi/v3/{path}?hash={}", catalog.documents.hash);
        paths.insert(path, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

/// Returns `/openapi/v3/<path>`: the document of one group and version.
///
/// # Errors
/// `NotFound` for an unknown path.
pub(crate) fn document(catalog: &Catalog, path: &str) -> Result<Value, Status> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for row in catalog.rows.iter().filter(|row| document_path(row) == path) {
        describe(row, &mut paths, &mut schemas);
    }
    if paths.is_empty() {
        return Err(error::no_such_path());
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": crate::version::git_version() },
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

fn document_path(row: &Served) -> String {
    let root = if row.descriptor.kind.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", row.api_version)
}

fn schema_name(row: &Served) -> String {
    let kind = &row.descriptor.kind;
    let group = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind)
}

fn describe(row: &Served, paths: &mut Map<String, Value>, schemas: &mut Map<String, Value>) {
    let descriptor = &row.descriptor;
    let root = format!("/{}", document_path(row));
    let resource = &descriptor.resource.resource;
    let collection = if row.is_namespaced() {
        format!("{root}/namespaces/{{namespace}}/{resource}")
    } else {
        format!("{root}/{resource}")
    };
    let has = |verb| descriptor.verbs.contains(&verb);
    let operations = |list: &[(&str, &str, bool)]| {
        let mut item = Map::new();
        for (method, action, is_served) in list {
            if *is_served {
                item.insert((*method).to_owned(), operation(row, method, action));
            }
        }
        item
    };
    let mut item = operations(&[
        ("get", "list", has(Verb::List)),
        ("post", "post", has(Verb::Create)),
        ("delete", "deletecollection", has(Verb::DeleteCollection)),
    ]);
    item.insert("parameters".to_owned(), path_parameters(row, false));
    paths.insert(collection.clone(), item.into());
    if row.is_namespaced() {
        paths.insert(format!("{root}/{resource}"), operations(&[("get", "list", has(Verb::List))]).into());
    }
    let mut item = operations(&[
        ("get", "get", has(Verb::Get)),
        ("put", "put", has(Verb::Update)),
        ("patch", "patch", has(Verb::Patch)),
        ("delete", "delete", has(Verb::Delete)),
    ]);
    item.insert("parameters".to_owned(), path_parameters(row, true));
    paths.insert(format!("{collection}/{{name}}"), item.into());
    if descriptor.has(Subresource::Status) {
        let mut item = operations(&[("get", "get", true), ("put", "put", true), ("patch", "patch", true)]);
        item.insert("parameters".to_owned(), path_parameters(row, true));
        paths.insert(format!("{collection}/{{name}}/status"), item.into());
    }
    schemas.insert(schema_name(row), schema(row));
}

fn group_version_kind(row: &Served) -> Value {
    let kind = &row.descriptor.kind;
    json!({ "group": kind.group, "version": kind.version, "kind": kind.kind })
}

fn path_parameters(row: &Served, is_named: bool) -> Value {
    let names = [("namespace", row.is_namespaced()), ("name", is_named)];
    names
        .iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(name, _)| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect()
}

fn operation(row: &Served, method: &str, action: &str) -> Value {
    let text = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let parameters: Vec<Value> = match method {
        "post" | "put" | "patch" => {
            ["dryRun", "fieldManager", "fieldValidation", "pretty"].into_iter().map(text).collect()
        }
        "get" => ["fieldSelector", "labelSelector", "limit", "continue", "resourceVersion", "watch", "pretty"]
            .into_iter()
            .map(text)
            .collect(),
        _ => ["dryRun", "gracePeriodSeconds", "propagationPolicy"].into_iter().map(text).collect(),
    };
    let reference = json!({ "$ref": format!("#/components/schemas/{}", schema_name(row)) });
    let content = json!({ "application/json": { "schema": reference } });
    let mut operation = json!({
        "tags": [row.api_version.replace('/', "_")],
        "parameters": parameters,
        "responses": { "200": { "description": "OK", "content": content } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": group_version_kind(row),
    });
    match method {
        "post" | "put" => operation["requestBody"] = json!({ "content": content, "required": true }),
        "patch" => {
            // Strategic patches are served but not listed. kubectl would compute them from these schemas, which have no
            // merge keys, in place of its built-in ones.
            let open = json!({ "schema": { "type": "object" } });
            operation["requestBody"] = json!({ "required": true, "content": {
                "application/json-patch+json": open,
                "application/merge-patch+json": open,
            }});
        }
        _ => {}
    }
    operation
}

fn schema(row: &Served) -> Value {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "type": "object",
        "description": format!("{} of {}", row.descriptor.kind.kind, row.api_version),
        "properties": {
            "apiVersion": { "type": "string", "description": "The version of the object's schema." },
            "kind": { "type": "string", "description": "The kind of the object." },
            "metadata": open.clone(),
        },
        "additionalProperties": open,
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-group-version-kind": [group_version_kind(row)],
    })
}
