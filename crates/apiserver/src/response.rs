//! Requests and responses as the pipeline sees them: HTTP's vocabulary, and of a connection what its requests share.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use quorate_api::{Revision, Status};
use quorate_mvcc::KeyValue;
use quorate_store::WatchBudget;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::catalog::Served;
use crate::encode;
use crate::error;
use crate::pipeline::Written;
use crate::pipeline::list::Page;
use crate::representation::{Encoding, Negotiated, Representation};
use crate::table::{TableWriter, list_metadata};
use crate::user::UserInfo;

/// A request whose body has been read.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub connection: Connection,
}

/// Watches of a connection that may catch up at a time: each holds up to half a MiB, or one revision. Those that are not
/// read keep their turn.
const CATCHING_UP: usize = 64;
/// What all others of a connection may hold.
const WATCH_ROOM_BYTES: usize = 8 << 20;
/// What the answers of a connection may hold until they are read, and up to what size they do not count.
const ANSWERS_BYTES: usize = 64 << 20;
const FREE_ANSWER_BYTES: usize = 64 << 10;

/// What the requests of a connection share.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `None`: anonymous.
    pub user: Option<UserInfo>,
    pub watches: WatchBudget,
    pub answers: AnswersRoom,
    /// Ends streams (watches, logs) when the server goes down.
    pub shutdown: CancellationToken,
}

impl Connection {
    #[must_use]
    pub fn new(user: Option<UserInfo>, shutdown: CancellationToken) -> Self {
        let watches = WatchBudget::new(CATCHING_UP, WATCH_ROOM_BYTES);
        Connection { user, watches, answers: AnswersRoom::default(), shutdown }
    }
}

/// How much of a connection's answers may wait for its client: HTTP/2 takes them whole, long before the client does.
#[derive(Clone, Debug)]
pub struct AnswersRoom {
    shared: Arc<Semaphore>,
    /// For a large one that finds no room, so that an answer may be as long as it likes.
    alone: Arc<Semaphore>,
}

impl Default for AnswersRoom {
    fn default() -> Self {
        AnswersRoom { shared: Arc::new(Semaphore::new(ANSWERS_BYTES)), alone: Arc::new(Semaphore::new(1)) }
    }
}

impl AnswersRoom {
    /// Takes room for an answer, which goes along with its bytes. What was done cannot be refused any more, and goes beside
    /// the others.
    pub(crate) fn hold(&self, response: Response, is_read: bool) -> Response {
        let Body::Full(data) = &response.body else { return response };
        if data.len() <= FREE_ANSWER_BYTES {
            return response;
        }
        let shared =
            u32::try_from(data.len()).ok().and_then(|size| self.shared.clone().try_acquire_many_owned(size).ok());
        let is_large = data.len() >= ANSWERS_BYTES / 4;
        let room = shared.or_else(|| is_large.then(|| self.alone.clone().try_acquire_owned().ok()).flatten());
        match room {
            Some(room) => {
                let data = Bytes::from_owner(HeldBytes { data: data.clone(), _room: room });
                Response { body: Body::Full(data), ..response }
            }
            None if is_read => Response::failure(&error::too_many_requests()),
            None => response,
        }
    }
}

/// Bytes of an answer with the room that they take.
struct HeldBytes {
    data: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// What a response carries.
pub enum Body {
    Full(Bytes),
    /// A watch or a log: chunks until the stream ends.
    Stream(BoxStream<'static, Result<Bytes, std::io::Error>>),
}

pub struct Response {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

const WARNING: HeaderName = HeaderName::from_static("warning");

/// How the bytes of a response are written.
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

    /// A failure as the client gets it.
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

    /// JSON bytes in the style that was asked for.
    pub(crate) fn styled(code: u16, json: Vec<u8>, style: Style) -> Result<Self, Status> {
        let (bytes, content_type) = match (style.negotiated.encoding, style.is_pretty) {
            (Encoding::Json, false) => (json, "application/json"),
            (Encoding::Json, true) => {
                let value: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
                (serde_json::to_vec_pretty(&value).map_err(Status::internal)?, "application/json")
            }
            (Encoding::Yaml, _) => {
                let value: Value = serde_json::from_slice(&json).map_err(Status::internal)?;
                (serde_yaml_ng::to_string(&value).map_err(Status::internal)?.into_bytes(), "application/yaml")
            }
        };
        Ok(Response::new(code, content_type, Body::Full(bytes.into())))
    }

    /// A stored object.
    pub(crate) fn stored(code: u16, served: &Served, kv: &KeyValue, style: Style) -> Result<Self, Status> {
        let mut out = Vec::new();
        encode_one(served, &kv.value, kv.mod_revision, style.negotiated.representation, &mut out)?;
        Response::styled(code, out, style)
    }

    /// What a write made.
    pub(crate) fn written(code: u16, served: &Served, written: &Written, style: Style) -> Result<Self, Status> {
        let mut out = Vec::new();
        encode_one(served, &written.encoded, written.revision, style.negotiated.representation, &mut out)?;
        Response::styled(code, out, style)
    }

    /// A page of a collection.
    pub(crate) fn page(served: &Served, page: &Page, style: Style) -> Result<Self, Status> {
        let mut metadata = list_metadata(page.revision);
        if let Some(next) = &page.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let size: usize = page.items.iter().map(|kv| kv.value.len() + 48).sum();
        let mut out = Vec::with_capacity(size + 256);
        match style.negotiated.representation {
            Representation::Table(include) => {
                let mut table = TableWriter::new(served, include);
                for kv in &page.items {
                    table.stored(kv)?;
                }
                table.finish(&metadata, &mut out)?;
            }
            Representation::Object => {
                let kind = &served.descriptor.list_kind;
                list_head(&mut out, kind, &served.api_version, &metadata);
                items(&mut out, page, |out, kv| encode::splice(served, &kv.value, kv.mod_revision, out))?;
            }
            Representation::Partial => {
                list_head(&mut out, "PartialObjectMetadataList", "meta.k8s.io/v1", &metadata);
                items(&mut out, page, |out, kv| encode::splice_partial(&kv.value, kv.mod_revision, out))?;
            }
        }
        Response::styled(200, out, style)
    }

    /// Tells the client what was odd about its request (RFC 7234, section 5.5, code 299).
    pub(crate) fn with_warnings(mut self, warnings: &[String]) -> Self {
        for warning in warnings {
            let text: String = warning.chars().filter(|c| !c.is_control()).collect();
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                self.headers.append(WARNING, value);
            }
        }
        self
    }
}

/// Appends one object in a representation.
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
        Representation::Partial => encode::splice_partial(value, revision, out),
        Representation::Table(include) => {
            let mut table = TableWriter::new(served, include);
            table.object(&encode::decoded(value, revision)?)?;
            table.finish(&list_metadata(revision), out)
        }
    }
}

/// A watch's bookmark: nothing but a revision.
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

fn list_head(out: &mut Vec<u8>, kind: &str, api_version: &str, metadata: &Value) {
    out.extend_from_slice(
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[")
            .as_bytes(),
    );
}

fn items(
    out: &mut Vec<u8>,
    page: &Page,
    encode: impl Fn(&mut Vec<u8>, &KeyValue) -> Result<(), Status>,
) -> Result<(), Status> {
    for (index, kv) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode(out, kv)?;
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_share_a_bounded_room_until_they_are_read() {
        let room = AnswersRoom::default();
        let free = || (room.shared.available_permits(), room.alone.available_permits());
        let hold = |size: usize, is_read| {
            let response = Response::new(200, "application/json", Body::Full(vec![b' '; size].into()));
            let response = room.hold(response, is_read);
            assert!(response.code == 200 || response.code == 429);
            (response.code == 200).then_some(response)
        };
        let _small = hold(FREE_ANSWER_BYTES, true).expect("it is free");
        assert_eq!(free(), (ANSWERS_BYTES, 1));
        let large = hold(ANSWERS_BYTES, true).expect("there is room");
        assert_eq!(free(), (0, 1));
        assert!(hold(FREE_ANSWER_BYTES + 1, true).is_none(), "there is no room");
        assert!(hold(FREE_ANSWER_BYTES, true).is_some() && hold(FREE_ANSWER_BYTES + 1, false).is_some());
        let larger = hold(ANSWERS_BYTES + 1, true).expect("it goes alone");
        assert!(hold(ANSWERS_BYTES + 1, true).is_none(), "another is alone");
        let Body::Full(data) = large.body else { panic!("it is whole") };
        let rest = data.slice(ANSWERS_BYTES - 1..);
        drop(data);
        assert_eq!((free(), &rest[..]), ((0, 0), &b" "[..]));
        drop(rest);
        drop(larger);
        assert_eq!(free(), (ANSWERS_BYTES, 1));
    }
}
