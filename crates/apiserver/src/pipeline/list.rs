//! The `list` verb: pages of a collection at one revision.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use quorate_api::{FieldError, FieldPath, Revision, Status};
use quorate_mvcc::{CommandError, KeyRange, KeyValue, RangeRequest, next_key};
use quorate_store::{Consistency, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::catalog::Served;
use crate::error;
use crate::pipeline::read;
use crate::pipeline::selection::Selection;
use crate::query::Query;

/// Number of keys that are read from the store at once.
const CHUNK: u64 = 1000;

/// The revision that a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadRevision {
    /// The newest revision, read linearizably.
    Newest,
    /// The revision that this member has applied.
    Local,
    Exactly(Revision),
}

/// The options of a list besides its selectors.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    pub at: ReadRevision,
    /// Maximum number of items; 0 means all.
    pub limit: u64,
    /// The key at which a continued list resumes.
    pub start: Option<Bytes>,
}

/// A continue token: the key at which to resume, and the revision to read.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the list; [`INCONSISTENT`] for the newest.
    rv: i64,
    /// The key, relative to the collection's prefix.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// Marks a list that resumes at another revision than it began at. It is not 0, which is the value of a token without a
/// revision.
const INCONSISTENT: i64 = -1;
const TOKEN_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can \
                             start a new list without the continue parameter, or use the continue token in this \
                             response to retrieve the remainder of the results. Continuing with the provided token \
                             results in an inconsistent list - objects that were created, modified, or deleted between \
                             the time the first chunk was returned and now may show up in the list.";

pub(crate) struct Page {
    pub items: Vec<KeyValue>,
    /// The revision of the items.
    pub revision: Revision,
    /// The continue token for the remaining items.
    pub next: Option<String>,
    /// The number of remaining items, where it is known.
    pub remaining: Option<u64>,
}

impl ListOptions {
    /// Parses `limit`, `continue`, `resourceVersion` and `resourceVersionMatch`, and waits until this member has
    /// reached the requested revision.
    ///
    /// # Errors
    /// `Invalid` or `BadRequest` for options that contradict each other, `Timeout` for a version that is not reached.
    pub async fn parse(store: &Store, served: &Served, query: &Query) -> Result<Self, Status> {
        let limit = query.number("limit")?.unwrap_or(0);
        let version = query.get("resourceVersion");
        let matching = query.get("resourceVersionMatch");
        if let Some(token) = query.get("continue") {
            if version.is_some_and(|v| v != "0") {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let (at, start) = decode_token(served, token)?;
            if let ReadRevision::Exactly(revision) = at {
                read::reach(store, revision).await?;
            }
            return Ok(ListOptions { at, limit, start: Some(start) });
        }
        let at = requested_revision(store, version, matching, limit).await?;
        Ok(ListOptions { at, limit, start: None })
    }
}

async fn requested_revision(
    store: &Store,
    version: Option<&str>,
    matching: Option<&str>,
    limit: u64,
) -> Result<ReadRevision, Status> {
    let path = FieldPath::new("resourceVersionMatch");
    let invalid = |error| Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[error]));
    let is_exact = match (matching, version) {
        (None, Some(version)) => limit > 0 && version != "0",
        (None, None) => return Ok(ReadRevision::Newest),
        (Some(_), None) => {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return invalid(FieldError::forbidden(path, detail));
        }
        (Some("NotOlderThan"), _) => false,
        (Some("Exact"), Some("0")) => {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            return invalid(FieldError::forbidden(path, detail));
        }
        (Some("Exact"), _) => true,
        (Some(other), _) => {
            return invalid(FieldError::not_supported(path, other, &["Exact", "NotOlderThan"]));
        }
    };
    let version = read::parse(version.unwrap_or_default())?;
    read::reach(store, version).await?;
    Ok(if is_exact { ReadRevision::Exactly(version) } else { ReadRevision::Local })
}

/// Reads the page of a collection that `options` select.
///
/// # Errors
/// `Expired` when the revision has been compacted; errors of the store.
pub(crate) async fn list(
    store: &Store,
    served: &Served,
    namespace: Option<&str>,
    selection: &Selection,
    options: &ListOptions,
) -> Result<Page, Status> {
    let range = range(served, namespace, selection);
    let mut page = Page { items: Vec::new(), revision: Revision::ZERO, next: None, remaining: None };
    let mut consistency =
        if options.at == ReadRevision::Newest { Consistency::Linearizable } else { Consistency::Local };
    if let ReadRevision::Exactly(revision) = options.at {
        page.revision = revision;
    }
    // A forged token must not lead out of the collection.
    let mut start = options.start.clone().unwrap_or_default().max(range.start.clone());
    loop {
        let room = options.limit.saturating_sub(page.items.len() as u64);
        let chunk = if options.limit == 0 || !selection.is_everything() { CHUNK } else { room.min(CHUNK) };
        let part = KeyRange { start: start.clone(), end: range.end.clone() };
        let request = RangeRequest::new(part).at(page.revision).limit(chunk);
        let response = store.range(&request, consistency).await.map_err(|e| failed(&e, served, options))?;
        if page.revision.is_zero() {
            page.revision = response.revision;
        }
        consistency = Consistency::Local;
        let mut left = response.count;
        for kv in response.kvs {
            left = left.saturating_sub(1);
            start = next_key(&kv.key);
            if !selection.matches_stored(served, &kv)? {
                continue;
            }
            page.items.push(kv);
            if options.limit > 0 && page.items.len() as u64 == options.limit {
                break;
            }
        }
        let is_full = options.limit > 0 && page.items.len() as u64 >= options.limit;
        if is_full && left > 0 {
            let revision = i64::try_from(page.revision.0).map_err(Status::internal)?;
            page.next = Some(encode_token(served, revision, &start)?);
            page.remaining = selection.is_everything().then_some(left);
        }
        if is_full || !response.more {
            return Ok(page);
        }
        tokio::task::yield_now().await;
    }
}

/// Returns the key range that holds the selected objects.
pub(crate) fn range(served: &Served, namespace: Option<&str>, selection: &Selection) -> KeyRange {
    let namespace = namespace.or_else(|| if served.is_namespaced() { selection.exact_namespace() } else { None });
    match selection.exact_name() {
        Some(name) if namespace.is_some() || !served.is_namespaced() => KeyRange::key(served.key(namespace, name)),
        _ => KeyRange::prefix(served.prefix(namespace)),
    }
}

/// Turns a failed read into a status. A list whose revision has been compacted may resume at the newest one, at the key
/// where this page would have begun.
fn failed(error: &StoreError, served: &Served, options: &ListOptions) -> Status {
    match (error, &options.start) {
        (StoreError::Command(CommandError::Compacted { .. }), Some(start)) => {
            match encode_token(served, INCONSISTENT, start) {
                Ok(token) => Status::expired(TOKEN_TOO_OLD).with_continue(&token),
                Err(status) => status,
            }
        }
        (error, _) => error::from_store(error),
    }
}

fn encode_token(served: &Served, revision: i64, start: &[u8]) -> Result<String, Status> {
    let key = String::from_utf8_lossy(start);
    let prefix = served.prefix(None);
    let start = key.strip_prefix(&prefix).unwrap_or(&key).to_owned();
    let token = Token { v: TOKEN_VERSION.to_owned(), rv: revision, start };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).map_err(Status::internal)?))
}

fn decode_token(served: &Served, token: &str) -> Result<(ReadRevision, Bytes), Status> {
    let invalid = || Status::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let at = match u64::try_from(token.rv) {
        Ok(0) => return Err(invalid()),
        Ok(revision) => ReadRevision::Exactly(Revision(revision)),
        Err(_) => ReadRevision::Newest,
    };
    if token.v != TOKEN_VERSION {
        return Err(invalid());
    }
    Ok((at, format!("{}{}", served.prefix(None), token.start).into()))
}
