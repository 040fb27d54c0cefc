//! OpenAPI v3 and v2 of everything that is served, from the table of kinds and the schema's types. Nothing here names a
//! kind.
//!
//! [`operations`] renders the paths of a resource, [`document`] joins them with the components that they refer to, and
//! [`v2`] translates them. A document is rendered when a client asks for it first, and kept compressed ([`packed`]).

mod document;
mod gnostic;
mod names;
mod operations;
mod packed;
mod parameters;
mod resource;
#[cfg(test)]
mod tests;
mod v2;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use http::header::{ACCEPT, LOCATION};
use http::{HeaderMap, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use quorate_api::{Reason, Status};
use serde_json::{Map, Value, json};

use self::document::Part;
use self::packed::Packed;
use self::resource::Resource;
use crate::catalog::{Catalog, Served};
use crate::error;
use crate::headers::accepted;
use crate::query::Query;
use crate::response::{Body, Response};

const JSON: &str = "application/json";
/// The media type of v2 that client-go requests, and the same type in a form that can be parsed.
const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Time for which a client may keep a document that it asked for by its hash, as in Kubernetes.
const KEPT: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A document that is rendered when it is needed first.
type Lazy = OnceLock<Result<Packed, String>>;

/// The documents of a table of kinds.
pub(crate) struct Documents {
    resources: Vec<Resource>,
    /// The documents of v3 by path, such as `apis/apps/v1`.
    parts: BTreeMap<String, (Part, Lazy)>,
    index: Lazy,
    v2_json: Lazy,
    v2_protobuf: Lazy,
}

impl Documents {
    pub fn new(rows: &[Arc<Served>]) -> Self {
        Documents::of(rows.iter().map(|row| Resource::from(row.as_ref())).collect())
    }

    fn of(resources: Vec<Resource>) -> Self {
        let parts = document::parts(&resources).into_iter().map(|(path, part)| (path, (part, Lazy::new()))).collect();
        Documents { resources, parts, index: Lazy::new(), v2_json: Lazy::new(), v2_protobuf: Lazy::new() }
    }

    fn part(&self, path: &str) -> Result<&Packed, Status> {
        let (part, lazy) = self.parts.get(path).ok_or_else(error::no_such_path)?;
        packed(lazy, || json_bytes(&document::render(part, &self.resources)))
    }

    /// Returns the table of contents. It has the hash of each document, so all of them are rendered.
    fn index(&self) -> Result<&Packed, Status> {
        let mut paths = Map::new();
        for path in self.parts.keys() {
            paths.insert(path.clone(), json!({ "serverRelativeURL": url(path, &self.part(path)?.hash) }));
        }
        packed(&self.index, || json_bytes(&json!({ "paths": paths })))
    }

    fn v2(&self) -> Value {
        v2::render(self.parts.values().map(|(part, _)| part), &self.resources)
    }

    fn v2_json(&self) -> Result<&Packed, Status> {
        packed(&self.v2_json, || json_bytes(&self.v2()))
    }

    fn v2_protobuf(&self) -> Result<&Packed, Status> {
        packed(&self.v2_protobuf, || {
            gnostic::encode(&self.v2()).map_err(|field| format!("OpenAPI v2 has no place for the field {field}"))
        })
    }
}

fn url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

fn json_bytes(value: &Value) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

fn packed(lazy: &Lazy, render: impl FnOnce() -> Result<Vec<u8>, String>) -> Result<&Packed, Status> {
    let rendered = lazy.get_or_init(|| Packed::new(&render()?).map_err(|error| error.to_string()));
    rendered.as_ref().map_err(|problem| Status::internal(problem.clone()))
}

/// Answers `/openapi/v3`, or one of its documents.
///
/// # Errors
/// `NotFound` for an unknown path, `NotAcceptable` for a client that accepts no JSON.
pub(crate) async fn v3(
    catalog: Arc<Catalog>,
    path: Option<String>,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    if !accepts(headers, &[JSON]) {
        return Err(not_acceptable(&[JSON]));
    }
    let hash = query.get("hash").map(str::to_owned);
    let headers = headers.clone();
    blocking(move || {
        let Some(path) = path else { return catalog.openapi.index()?.answer(JSON, &headers, None) };
        let document = catalog.openapi.part(&path)?;
        match hash {
            // The document has changed since the client read the table of contents.
            Some(hash) if hash != document.hash => {
                let mut response = Response::new(301, JSON, Body::Full(bytes::Bytes::new()));
                let location = HeaderValue::from_str(&url(&path, &document.hash)).map_err(Status::internal)?;
                response.headers.insert(LOCATION, location);
                Ok(response)
            }
            Some(_) => document.answer(JSON, &headers, Some(expires()?)),
            None => document.answer(JSON, &headers, None),
        }
    })
    .await
}

/// Answers `/openapi/v2`, as JSON or as Protocol Buffers.
///
/// # Errors
/// `NotAcceptable` for a client that accepts neither.
pub(crate) async fn v2(catalog: Arc<Catalog>, headers: &HeaderMap) -> Result<Response, Status> {
    let is_protobuf = lists(headers, &[ASKED, PROTOBUF]);
    if !is_protobuf && !accepts(headers, &[JSON]) {
        return Err(not_acceptable(&[JSON, PROTOBUF]));
    }
    let headers = headers.clone();
    blocking(move || {
        if is_protobuf {
            catalog.openapi.v2_protobuf()?.answer(PROTOBUF, &headers, None)
        } else {
            catalog.openapi.v2_json()?.answer(JSON, &headers, None)
        }
    })
    .await
}

/// Renders on a thread of its own: the documents take a while the first time.
async fn blocking(render: impl FnOnce() -> Result<Response, Status> + Send + 'static) -> Result<Response, Status> {
    tokio::task::spawn_blocking(render).await.map_err(Status::internal)?
}

fn expires() -> Result<HeaderValue, Status> {
    let at = Timestamp::now().checked_add(KEPT).map_err(Status::internal)?;
    HeaderValue::from_str(&at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).map_err(Status::internal)
}

fn lists(headers: &HeaderMap, media_types: &[&str]) -> bool {
    accepted(headers).any(|given| media_types.contains(&given))
}

fn accepts(headers: &HeaderMap, media_types: &[&str]) -> bool {
    headers.get(ACCEPT).is_none() || lists(headers, media_types) || lists(headers, &["*/*", "application/*"])
}

fn not_acceptable(media_types: &[&str]) -> Status {
    let list = media_types.join(", ");
    Status::new(Reason::NotAcceptable, format!("only the following media types are accepted: {list}"))
}
