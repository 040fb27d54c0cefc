//! A running watch: the initial state, if the client asked for it, then every event after it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use quorate_api::{Revision, Status};
use quorate_mvcc::{Event, KeyRange, RangeRequest, next_key};
use quorate_store::{IndexedValue, Watch, WatchBatch, WatchError, WatchOptions};
use tokio::time::{Instant, sleep_until};

use crate::api::Api;
use crate::catalog::Served;
use crate::connection::Connection;
use crate::error;
use crate::pipeline::authorize::WatchPermit;
use crate::pipeline::list;
use crate::pipeline::selection::Selection;
use crate::pipeline::watch::event::{EventType, RecentEvents, frame, framed};
use crate::representation::Negotiated;
use crate::response::encode_bookmark;
use crate::route::Target;

/// Size of one read, and of one chunk, of the initial state, in bytes. Each watch whose client stalls holds this much.
const PAGE_BYTES: usize = 128 << 10;
/// Interval of the bookmarks that tell a watcher its position.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

/// The point at which a watch begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// With the state at this revision as `ADDED` events, followed by a bookmark if `marks_end`.
    State {
        at: Revision,
        marks_end: bool,
    },
    After(Revision),
}

enum Phase {
    Initial { from: Bytes, at: Revision, marks_end: bool },
    Opening,
    Live(Watch),
    Ended,
}

pub(crate) struct Session {
    api: Api,
    /// The kind in the version in which it is stored.
    resource: Arc<Served>,
    /// The kind in the version of the request.
    version: Arc<Served>,
    /// The events of the resource, shared with its other watches.
    recent: Arc<RecentEvents>,
    range: KeyRange,
    selection: Selection,
    negotiated: Negotiated,
    phase: Phase,
    /// The revision up to which everything has been sent.
    position: Revision,
    wants_bookmarks: bool,
    bookmark_every: Duration,
    next_bookmark: Instant,
    ends_at: Instant,
    connection: Connection,
    /// The permission that the watch rests on, if it can end.
    permit: Option<WatchPermit>,
}

enum Woken {
    Batch(Option<Result<WatchBatch, WatchError>>),
    Bookmark,
    End,
    ShuttingDown,
    /// The permission ended at this revision.
    Revoked(Revision),
}

impl Session {
    #[expect(clippy::too_many_arguments, reason = "each is one independent choice of the request")]
    pub fn new(
        api: Api,
        target: &Target,
        selection: Selection,
        negotiated: Negotiated,
        start: Start,
        wants_bookmarks: bool,
        ends_at: Instant,
        connection: Connection,
        permit: Option<WatchPermit>,
    ) -> Self {
        let (resource, version) = (Arc::clone(&target.resource), Arc::clone(&target.version));
        let range = list::range(&resource, target.namespace.as_deref(), &selection);
        let (phase, position) = match start {
            Start::State { at, marks_end } => (Phase::Initial { from: range.start.clone(), at, marks_end }, at),
            Start::After(revision) => (Phase::Opening, revision),
        };
        let recent = api.events().of(&version);
        let next_bookmark = Instant::now() + BOOKMARK_EVERY;
        Session {
            api,
            resource,
            version,
            recent,
            range,
            selection,
            negotiated,
            phase,
            position,
            wants_bookmarks,
            bookmark_every: BOOKMARK_EVERY,
            next_bookmark,
            ends_at,
            connection,
            permit,
        }
    }

    /// Returns the next frames, or `None` at the end.
    pub async fn next_chunk(&mut self) -> Option<Bytes> {
        loop {
            let chunk = match self.step().await {
                Ok(chunk) => chunk?,
                Err(status) => {
                    self.phase = Phase::Ended;
                    self.failure(&status)
                }
            };
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
    }

    /// Takes one step. An empty chunk means that there is more to do.
    async fn step(&mut self) -> Result<Option<Bytes>, Status> {
        match &mut self.phase {
            Phase::Ended => Ok(None),
            Phase::Initial { .. } | Phase::Opening
                if self.permit.as_ref().is_some_and(|p| p.revoked_at().is_some()) =>
            {
                self.phase = Phase::Ended;
                Ok(None)
            }
            Phase::Initial { from, at, marks_end } => {
                let (from, at, marks_end) = (from.clone(), *at, *marks_end);
                let chunk = self.initial(from, at, marks_end)?;
                // A long initial state may have no match for this watch, so each page yields to other tasks.
                tokio::task::yield_now().await;
                Ok(Some(chunk))
            }
            Phase::Opening => {
                let options = WatchOptions {
                    with_previous: true,
                    budget: Some(self.connection.watches.clone()),
                    indexed: self.indexed(),
                };
                let opened = self.api.store().watch_with(self.range.clone(), self.position, options);
                self.phase = Phase::Live(opened.map_err(|e| error::from_watch(&e))?);
                Ok(Some(Bytes::new()))
            }
            Phase::Live(watch) => {
                let woken = tokio::select! {
                    biased;
                    () = self.connection.shutdown.cancelled() => Woken::ShuttingDown,
                    at = revoked(&mut self.permit) => Woken::Revoked(at),
                    () = sleep_until(self.ends_at) => Woken::End,
                    () = sleep_until(self.next_bookmark), if self.wants_bookmarks => Woken::Bookmark,
                    batch = watch.next() => Woken::Batch(batch),
                };
                self.woken(woken)
            }
        }
    }

    /// Returns the value of a field that every event of this watch has, so that the store looks the watch up by it.
    fn indexed(&self) -> Option<IndexedValue> {
        let (field, value) = self.selection.exact_own_field(&self.resource)?;
        let (recent, resource) = (Arc::clone(&self.recent), Arc::clone(&self.resource));
        let values_of = move |event: &Event| recent.share(event).values(&resource, field);
        Some(IndexedValue { index: field, values_of: Arc::new(values_of), value: value.to_owned() })
    }

    fn woken(&mut self, woken: Woken) -> Result<Option<Bytes>, Status> {
        match woken {
            Woken::Batch(Some(batch)) => {
                let batch = batch.map_err(|e| error::from_watch(&e))?;
                self.events(&batch, batch.revision).map(Some)
            }
            Woken::Revoked(at) => self.finish(at).map(Some),
            Woken::Batch(None) | Woken::ShuttingDown => {
                self.phase = Phase::Ended;
                Ok(None)
            }
            Woken::Bookmark => self.bookmark(false).map(Some),
            Woken::End => {
                self.phase = Phase::Ended;
                self.wants_bookmarks.then(|| self.bookmark(false)).transpose()
            }
        }
    }

    fn initial(&mut self, from: Bytes, at: Revision, marks_end: bool) -> Result<Bytes, Status> {
        let part = KeyRange { start: from, end: self.range.end.clone() };
        let request = RangeRequest::new(part).at(at);
        let page = self.api.store().read_page(&request, PAGE_BYTES).map_err(|e| error::from_store(&e))?;
        let mut chunk = BytesMut::new();
        for kv in &page.kvs {
            if self.selection.matches_stored(&self.resource, kv)? {
                let added = frame(&self.version, EventType::Added, &kv.value, kv.mod_revision, self.negotiated)?;
                chunk.extend_from_slice(&added);
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => {
                self.phase = Phase::Initial { from: next_key(&last.key), at, marks_end };
            }
            _ => {
                self.phase = Phase::Opening;
                if marks_end {
                    chunk.extend_from_slice(&self.bookmark(true)?);
                }
            }
        }
        Ok(chunk.freeze())
    }

    /// Ends the watch with the events up to a revision that are ready, such as the deletion of the watched pod.
    fn finish(&mut self, at: Revision) -> Result<Bytes, Status> {
        let Phase::Live(mut watch) = std::mem::replace(&mut self.phase, Phase::Ended) else { return Ok(Bytes::new()) };
        let mut chunk = BytesMut::new();
        while let Some(Some(batch)) = watch.next().now_or_never() {
            chunk.extend_from_slice(&self.events(&batch.map_err(|e| error::from_watch(&e))?, at)?);
        }
        Ok(chunk.freeze())
    }

    /// Returns the frames of the batch's events up to a revision.
    fn events(&mut self, batch: &WatchBatch, until: Revision) -> Result<Bytes, Status> {
        let mut frames = Vec::new();
        let span = |event: &Event| event.kv().mod_revision > self.position && event.kv().mod_revision <= until;
        for event in batch.events.iter().filter(|event| span(event)) {
            let shared = self.recent.share(event);
            if let Some(what) = shared.classify(&self.resource, &self.selection) {
                frames.push(shared.frame(&self.version, what, self.negotiated)?);
            }
        }
        self.position = self.position.max(batch.revision);
        Ok(match frames.as_slice() {
            [one] => one.clone(),
            many => many.concat().into(),
        })
    }

    fn bookmark(&mut self, ends_initial_events: bool) -> Result<Bytes, Status> {
        self.next_bookmark = Instant::now() + self.bookmark_every;
        let Negotiated { representation, encoding } = self.negotiated;
        let object = encode_bookmark(&self.version, self.position, ends_initial_events, representation);
        framed("BOOKMARK", object.to_string().as_bytes(), encoding)
    }

    /// Returns the event that tells the client why the watch ends.
    fn failure(&self, status: &Status) -> Bytes {
        framed("ERROR", status.to_json().to_string().as_bytes(), self.negotiated.encoding).unwrap_or_else(|error| {
            tracing::error!(error = error.message, "the end of a watch cannot be encoded");
            Bytes::new()
        })
    }
}

/// Waits until the permission ends, if it can.
async fn revoked(permit: &mut Option<WatchPermit>) -> Revision {
    match permit {
        Some(permit) => permit.revoked().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use quorate_registry::Verb;
    use quorate_store::Store;
    use serde_json::{Value, json};
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::LocalClient;
    use crate::bootstrap::bootstrap;
    use crate::pipeline::admission::NAMESPACES;
    use crate::representation::{Encoding, Representation};
    use crate::user::UserInfo;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn api() -> Api {
        let api = Api::new(Store::memory(), quorate_registry::builtin());
        bootstrap(&api).await.expect("the namespaces");
        api
    }

    /// Starts a watch of namespaces at the current revision, with its first bookmark due.
    fn session(api: &Api, wants_bookmarks: bool) -> Session {
        let resource = api.catalog().find("", "v1", &NAMESPACES.resource).cloned().expect("a built-in kind");
        let version = Arc::clone(&resource);
        let target = Target {
            resource,
            version,
            verb: Verb::Watch,
            namespace: None,
            name: None,
            subresource: None,
            rest: String::new(),
        };
        let start = Start::After(api.store().revision());
        let (selection, connection) = (Selection::default(), Connection::new(None, CancellationToken::new()));
        let ends_at = Instant::now() + 10 * DEADLINE;
        let negotiated = Negotiated { representation: Representation::Object, encoding: Encoding::Json };
        let mut session = Session::new(
            api.clone(),
            &target,
            selection,
            negotiated,
            start,
            wants_bookmarks,
            ends_at,
            connection,
            None,
        );
        session.next_bookmark = Instant::now();
        session
    }

    /// Creates a namespace and returns its version.
    async fn create(api: &Api, name: &str) -> Value {
        let client = LocalClient::new(api.clone(), UserInfo::master("test"));
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        client.create(&NAMESPACES, None, object).await.expect("created")["metadata"]["resourceVersion"].take()
    }

    /// Returns the type of the next event and the version of its object.
    async fn next(session: &mut Session) -> (String, Value) {
        let line = timeout(DEADLINE, session.next_chunk()).await.expect("an event in time").expect("an event");
        let mut event: Value = serde_json::from_slice(&line).expect("one event");
        (event["type"].as_str().unwrap_or_default().to_owned(), event["object"]["metadata"]["resourceVersion"].take())
    }

    #[tokio::test]
    async fn bookmarks_repeat_and_carry_the_current_position() {
        let api = api().await;
        let mut session = session(&api, true);
        session.bookmark_every = Duration::from_millis(10);
        let start = Value::from(api.store().revision().to_string());
        for _ in 0..3 {
            assert_eq!(next(&mut session).await, ("BOOKMARK".to_owned(), start.clone()));
        }
        let created = create(&api, "a").await;
        let added = loop {
            match next(&mut session).await {
                (kind, version) if kind == "BOOKMARK" => assert_eq!(version, start, "nothing more was sent yet"),
                event => break event,
            }
        };
        assert_eq!(added, ("ADDED".to_owned(), created.clone()));
        for _ in 0..3 {
            assert_eq!(next(&mut session).await, ("BOOKMARK".to_owned(), created.clone()));
        }
    }

    #[tokio::test]
    async fn bookmarks_are_thirty_seconds_apart() {
        let api = api().await;
        let mut session = session(&api, true);
        let before = Instant::now();
        assert_eq!(next(&mut session).await.0, "BOOKMARK");
        let (least, most) = (before + BOOKMARK_EVERY, Instant::now() + BOOKMARK_EVERY);
        assert!((least..=most).contains(&session.next_bookmark));
        assert_eq!(BOOKMARK_EVERY, Duration::from_secs(30));
    }

    #[tokio::test]
    async fn watches_without_bookmarks_receive_none() {
        let api = api().await;
        let mut session = session(&api, false);
        let created = create(&api, "a").await;
        // A due bookmark would come before the event.
        assert_eq!(next(&mut session).await, ("ADDED".to_owned(), created));
    }
}
