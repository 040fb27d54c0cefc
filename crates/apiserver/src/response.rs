//! Requests and responses as the pipeline sees them, in HTTP's terms but without a connection.

use axum::body::Body as HttpBody;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::header::{CONTENT_TYPE, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use quorate_api::{Revision, Status};
use quorate_mvcc::KeyValue;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::connection::Connection;
use crate::encode;
use crate::pipeline::Written;
use crate::representation::{Encoding, Negotiated, Representation};
use crate::table;
use crate::upload::Upload;
use crate::warning;

/// A request whose body has been read, unless another server reads it.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// Empty when the request is passed on to another server.
    pub body: Bytes,
    /// The body of a request that is passed on.
    pub upload: Upload,
    pub connection: Connection,
}

/// Function that serves a connection after it has left HTTP.
pub type Takeover = Box<dyn FnOnce(TokioIo<Upgraded>) -> BoxFuture<'static, ()> + Send>;

/// The body of a response.
pub enum Body {
    Full(Bytes),
    /// Chunks of a watch or a log, until the stream ends.
    Stream(BoxStream<'static, Result<Bytes, std::io::Error>>),
    /// Chunks of a list. Unlike a stream's, they may be compressed, because nobody waits for a single one.
    List(BoxStream<'static, Result<Bytes, std::io::Error>>),
    /// The body of another server's response, which is passed on as it is.
    Passed(HttpBody),
    /// The connection leaves HTTP. The response's code is 101.
    Upgrade(Takeover),
}

pub struct Response {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

const WARNING: HeaderName = HeaderName::from_static("warning");

/// The form in which a response is encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub negotiated: Negotiated,
    pub is_pretty: bool,
}

impl Response {
    pub(crate) fn new(code: u16, content_type: &'static str, body: Body) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Response { code, headers, body }
    }

    pub(crate) fn text(code: u16, text: impl Into<Bytes>) -> Self {
        Response::new(code, "text/plain; charset=utf-8", Body::Full(text.into()))
    }

    pub(crate) fn json(value: &Value) -> Result<Self, Status> {
        let bytes = serde_json::to_vec(value).map_err(Status::internal)?;
        Ok(Response::new(200, "application/json", Body::Full(bytes.into())))
    }

    pub(crate) fn with_code(mut self, code: u16) -> Self {
        self.code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self
    }

    /// Renders a failure for the client.
    #[must_use]
    pub fn failure(status: &Status) -> Self {
        let body = status.to_json().to_string();
        let mut response = Response::new(status.code, "application/json", Body::Full(body.into()));
        let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        if retry > 0 {
            response.headers.insert(RETRY_AFTER, retry.into());
        }
        response
    }

    /// Encodes JSON bytes in the style that the client asked for.
    pub(crate) fn styled(code: u16, json: Vec<u8>, style: Style) -> Result<Self, Status> {
        let encoding = style.negotiated.encoding;
        let value = || serde_json::from_slice::<Value>(&json).map_err(Status::internal);
        let bytes = match encoding {
            Encoding::Json if !style.is_pretty => json,
            Encoding::Json => serde_json::to_vec_pretty(&value()?).map_err(Status::internal)?,
            other => other.encode(&value()?)?,
        };
        Ok(Response::new(code, encoding.media_type(), Body::Full(bytes.into())))
    }

    /// Renders a stored object.
    pub(crate) fn stored(code: u16, served: &Served, kv: &KeyValue, style: Style) -> Result<Self, Status> {
        let mut out = Vec::new();
        encode_one(served, &kv.value, kv.mod_revision, style.negotiated.representation, &mut out)?;
        Response::styled(code, out, style)
    }

    /// Renders the object that a write left.
    pub(crate) fn written(code: u16, served: &Served, written: &Written, style: Style) -> Result<Self, Status> {
        let mut out = Vec::new();
        encode_one(served, &written.encoded, written.revision, style.negotiated.representation, &mut out)?;
        Response::styled(code, out, style)
    }

    /// Adds warnings to the response (RFC 7234, section 5.5, code 299).
    pub(crate) fn with_warnings(mut self, warnings: &[String]) -> Self {
        for warning in warning::limited(warnings) {
            let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
            match HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
                Ok(value) => {
                    self.headers.append(WARNING, value);
                }
                Err(error) => tracing::warn!(%error, warning, "a warning cannot be sent as a header"),
            }
        }
        self
    }
}

/// Returns whether the client has the document with this `ETag` (RFC 9110, section 13.1.2). A list of tags and a weak tag
/// match as well.
pub(crate) fn has_etag(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get(IF_NONE_MATCH).and_then(|given| given.to_str().ok());
    given.is_some_and(|given| given.contains(etag))
}

/// Appends one stored object in a version and the requested representation.
///
/// # Errors
/// When the stored bytes cannot be decoded.
pub(crate) fn encode_one(
    served: &Served,
    value: &[u8],
    revision: Revision,
    representation: Representation,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    match representation {
        Representation::Object => encode::splice(served, value, revision, out),
        Representation::Partial => encode::splice_partial(served, value, revision, out),
        Representation::Table(include) => {
            let mut whole = table::head(served);
            whole["metadata"] = table::list_metadata(revision);
            let row = table::row(served, include, Timestamp::now(), &encode::decoded(value, revision)?);
            whole["rows"] = Value::Array(vec![row]);
            serde_json::to_writer(out, &whole).map_err(Status::internal)
        }
    }
}

/// Encodes a watch's bookmark, which carries only a revision.
pub(crate) fn encode_bookmark(
    served: &Served,
    revision: Revision,
    ends_initial_events: bool,
    representation: Representation,
) -> Value {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if ends_initial_events {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    match representation {
        Representation::Object => {
            json!({ "kind": served.descriptor.kind.kind, "apiVersion": served.api_version, "metadata": metadata })
        }
        Representation::Partial => {
            json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
        }
        Representation::Table(_) => {
            json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": [], "rows": [] })
        }
    }
}
