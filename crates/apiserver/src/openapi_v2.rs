//! OpenAPI v2. Without it, kubectl before 1.29 neither applies nor creates. For each kind it lists the parameters of
//! the patch operation, from which kubectl learns that the server validates fields and supports dry runs. Newer clients
//! read v3 (`openapi`).

use http::HeaderMap;
use http::header::ACCEPT;
use quorate_api::Status;
use quorate_registry::Verb;
use quorate_schema::protobuf::wire::Writer;
use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, Served};
use crate::response::{Body, Response};
use crate::version;

/// The media type that client-go requests, and the same type in a form that can be parsed.
const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const PARAMETERS: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const EXTENSION: &str = "x-kubernetes-group-version-kind";

/// Returns `/openapi/v2` as JSON, or as Protocol Buffers if the client asks for them.
///
/// # Errors
/// When the document cannot be encoded.
pub(crate) fn answer(catalog: &Catalog, headers: &HeaderMap) -> Result<Response, Status> {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut alternatives = accepted.flat_map(|value| value.split(',')).map(str::trim);
    if alternatives.any(|item| item.starts_with(ASKED) || item.starts_with(PROTOBUF)) {
        return Ok(Response::new(200, PROTOBUF, Body::Full(protobuf(catalog).into())));
    }
    let paths: Map<String, Value> =
        patched(catalog).map(|(path, row)| (path, json!({ "patch": operation(row) }))).collect();
    Response::json(&json!({ "swagger": "2.0", "info": info(), "paths": paths, "definitions": {} }))
}

/// Lists the kinds that can be patched, with their paths.
fn patched(catalog: &Catalog) -> impl Iterator<Item = (String, &Served)> {
    let rows = catalog.rows.iter().filter(|row| row.descriptor.verbs.contains(&Verb::Patch));
    rows.map(|row| {
        let root = if row.descriptor.kind.group.is_empty() { "api" } else { "apis" };
        let namespace = if row.is_namespaced() { "namespaces/{namespace}/" } else { "" };
        let resource = &row.descriptor.resource.resource;
        (format!("/{root}/{}/{namespace}{resource}/{{name}}", row.api_version), row.as_ref())
    })
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": version::git_version() })
}

fn operation(row: &Served) -> Value {
    let parameter = |name: &&str| json!({ "in": "query", "name": name, "type": "string", "uniqueItems": true });
    json!({
        "parameters": PARAMETERS.iter().map(parameter).collect::<Vec<_>>(),
        "responses": { "200": { "description": "OK" } },
        EXTENSION: group_version_kind(row),
    })
}

fn group_version_kind(row: &Served) -> Value {
    let kind = &row.descriptor.kind;
    json!({ "group": kind.group, "version": kind.version, "kind": kind.kind })
}

/// Encodes the same document in the messages of `openapi.v2` of github.com/google/gnostic.
fn protobuf(catalog: &Catalog) -> Vec<u8> {
    let info = info();
    let text = |field: &str| info[field].as_str().unwrap_or_default().to_owned();
    let paths = patched(catalog).fold(Writer::default(), |paths, (path, row)| {
        let item = Writer::default().bytes(8, protobuf_operation(row));
        paths.bytes(2, Writer::default().bytes(1, path).bytes(2, item))
    });
    let info = Writer::default().bytes(1, text("title")).bytes(2, text("version"));
    Writer::default().bytes(1, "2.0").bytes(2, info).bytes(8, paths).into()
}

fn protobuf_operation(row: &Served) -> Writer {
    let operation = PARAMETERS.iter().fold(Writer::default(), |operation, name| {
        let query = Writer::default().bytes(2, "query").bytes(4, name).bytes(6, "string").varint(20, 1);
        // Each of these messages is one alternative of a `oneof`: a parameter, outside of the body, in the query.
        let parameter = Writer::default().bytes(2, Writer::default().bytes(3, query));
        operation.bytes(8, Writer::default().bytes(1, parameter))
    });
    // The value is YAML, and JSON is valid YAML.
    let value = Writer::default().bytes(2, group_version_kind(row).to_string());
    operation.bytes(13, Writer::default().bytes(1, EXTENSION).bytes(2, value))
}
