//! The `list` verb: pages of a collection at one revision.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use quorate_api::{FieldError, FieldPath, Revision, Status};
use quorate_mvcc::{CommandError, KeyRange, KeyValue, RangePage, RangeRequest, next_key};
use quorate_store::{Consistency, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::Served;
use crate::error;
use crate::pipeline::read;
use crate::pipeline::selection::Selection;
use crate::query::Query;
use crate::route::Target;
use crate::table::list_metadata;

/// Size of one read, in bytes. Each list whose client stalls holds this much.
const PAGE_BYTES: usize = 256 << 10;

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

/// A collection at one revision, read page by page.
pub(crate) struct Listing {
    store: Store,
    /// The kind in the version in which it is stored.
    resource: Arc<Served>,
    /// The kind in the version of the request.
    version: Arc<Served>,
    selection: Selection,
    options: ListOptions,
    /// The range that is not read yet.
    range: KeyRange,
    /// The revision of the list; zero until the first read of the newest one.
    revision: Revision,
    taken: u64,
    has_begun: bool,
    is_done: bool,
    /// The continue token for the remaining items.
    next: Option<String>,
    /// The number of remaining items, where it is known.
    remaining: Option<u64>,
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

impl Listing {
    pub fn new(store: &Store, target: &Target, selection: Selection, options: ListOptions) -> Self {
        let mut range = range(&target.resource, target.namespace.as_deref(), &selection);
        // A forged token must not lead out of the collection.
        range.start = options.start.clone().unwrap_or_default().max(range.start);
        let revision = if let ReadRevision::Exactly(revision) = options.at { revision } else { Revision::ZERO };
        Listing {
            store: store.clone(),
            resource: Arc::clone(&target.resource),
            version: Arc::clone(&target.version),
            selection,
            options,
            range,
            revision,
            taken: 0,
            has_begun: false,
            is_done: false,
            next: None,
            remaining: None,
        }
    }

    /// Returns the selected objects of the next page, which may be none, or `None` at the end.
    ///
    /// # Errors
    /// `Expired` when the revision has been compacted; errors of the store.
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Status> {
        if self.is_done {
            return Ok(None);
        }
        let page = self.read().await.map_err(|e| failed(&e, &self.resource, &self.options))?;
        if self.revision.is_zero() {
            self.revision = page.revision;
        }
        let mut items = Vec::with_capacity(page.kvs.len());
        for kv in page.kvs {
            self.range.start = next_key(&kv.key);
            if !self.selection.matches_stored(&self.resource, &kv)? {
                continue;
            }
            items.push(kv);
            self.taken += 1;
            if self.taken == self.options.limit {
                self.end_at_limit()?;
                return Ok(Some(items));
            }
        }
        self.is_done = !page.more;
        Ok(Some(items))
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// As [`Listing::next`].
    pub async fn collect(&mut self) -> Result<Vec<KeyValue>, Status> {
        let mut items = Vec::new();
        while let Some(page) = self.next().await? {
            items.extend(page);
            tokio::task::yield_now().await;
        }
        Ok(items)
    }

    /// Returns the kind in the version in which the list shows it.
    pub fn version(&self) -> &Served {
        &self.version
    }

    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns the list's metadata, as soon as it is known: after the first page of a list that has no limit, and at the
    /// end of one that has.
    pub fn metadata(&self) -> Option<Value> {
        if !self.is_done && (self.options.limit > 0 || !self.has_begun) {
            return None;
        }
        let mut metadata = list_metadata(self.revision);
        if let Some(next) = &self.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        Some(metadata)
    }

    async fn read(&mut self) -> Result<RangePage, StoreError> {
        let request = RangeRequest::new(self.range.clone()).at(self.revision);
        if std::mem::replace(&mut self.has_begun, true) {
            return self.store.read_page(&request, PAGE_BYTES);
        }
        let is_newest = self.options.at == ReadRevision::Newest;
        let consistency = if is_newest { Consistency::Linearizable } else { Consistency::Local };
        self.store.reader(consistency).await?.range_page(&request, PAGE_BYTES)
    }

    fn end_at_limit(&mut self) -> Result<(), Status> {
        self.is_done = true;
        let rest = RangeRequest { count_only: true, ..RangeRequest::new(self.range.clone()).at(self.revision) };
        let left = self.store.read_local(&rest).map_err(|e| failed(&e, &self.resource, &self.options))?.count;
        if left > 0 {
            let revision = i64::try_from(self.revision.0).map_err(Status::internal)?;
            self.next = Some(encode_token(&self.resource, revision, &self.range.start)?);
            self.remaining = self.selection.is_everything().then_some(left);
        }
        Ok(())
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
