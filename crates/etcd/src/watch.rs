//! The watch service: any number of watches on one stream.
//!
//! A response stream does its work when it is polled: it has no task of its own. When a client does not read, the
//! stream is not polled, and the store's watches behind it, which share a budget, fall behind and later catch up from
//! the tables, a few at a time. A slow client therefore costs a bounded amount of memory, regardless of its number of
//! watches, and delays nobody else.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, AbortHandle, Abortable, BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use prost::Message;
use quorate_api::Revision;
use quorate_mvcc::{Event, KeyRange};
use quorate_store::{Leadership, WatchBatch, WatchBudget, WatchError, WatchEvents, WatchOptions};
use tokio::task::coop::has_budget_remaining;
use tonic::{Request, Response, Status, Streaming};

use crate::convert;
use crate::errors;
use crate::pb::etcdserverpb::{self as pb, watch_request::RequestUnion, watch_server::Watch};
use crate::shared::Shared;

/// Maximum number of watches of a stream that catch up at the same time. Each holds up to half a MiB, or one revision.
const CATCHING_UP: usize = 8;
/// Maximum size of the events that the other watches of a stream hold together, in bytes.
const ROOM_BYTES: usize = 8 << 20;
/// Maximum number of watches on one stream.
const MAX_WATCHES: usize = 100_000;
/// Maximum size of the events in a fragment, in bytes: etcd's request limit and 512 KiB of overhead.
const FRAGMENT_BYTES: usize = (3 << 19) + (512 << 10);
/// Watch id of a response that belongs to no watch.
const NO_WATCH: i64 = -1;
/// Time without a leader after which the stream of a client that requires one ends. Like etcd's three election
/// timeouts, it is long enough for a successful election.
const LEADERLESS_FOR: Duration = Duration::from_secs(3);

pub(crate) struct WatchService(pub(crate) Shared);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = crate::Outgoing<pb::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let require_leader = request.metadata().get("hasleader").is_some_and(|value| value == "true");
        let mut inputs = SelectAll::new();
        inputs.push(request.into_inner().map(Input::Request).boxed());
        inputs.push(ends(self.0.stopped(), errors::STOPPED));
        if require_leader {
            inputs.push(ends(leaderless(self.0.leadership(), LEADERLESS_FOR), errors::NO_LEADER));
        }
        let session = Session {
            shared: self.0.clone(),
            inputs,
            answers: VecDeque::new(),
            budget: WatchBudget::new(CATCHING_UP, ROOM_BYTES),
            watches: HashMap::new(),
            next_id: 0,
            wanted_progress: None,
            later_progress: None,
            has_ended: false,
        };
        Ok(Response::new(session.boxed()))
    }
}

/// An input that a session handles.
enum Input {
    Request(Result<pb::WatchRequest, Status>),
    Batch(i64, Result<WatchBatch, WatchError>),
    End(errors::Refusal),
}

/// One watch stream of a client, as a stream of responses.
struct Session {
    shared: Shared,
    /// The requests, the batches of all watches, and the reasons to end. Only inputs that are ready are polled.
    inputs: SelectAll<BoxStream<'static, Input>>,
    /// Responses to the last input, which are sent before the next input is handled.
    answers: VecDeque<pb::WatchResponse>,
    budget: WatchBudget,
    watches: HashMap<i64, Options>,
    next_id: i64,
    /// The revision that all watches must pass before the pending progress request is answered.
    wanted_progress: Option<Revision>,
    /// The same for the progress requests that arrived in the meantime.
    later_progress: Option<Revision>,
    /// Set when the store has shut down: the stream ends, so that the client continues at another member.
    has_ended: bool,
}

/// The options of a watch, and its progress.
struct Options {
    no_put: bool,
    no_delete: bool,
    with_prev: bool,
    fragment: bool,
    progress_notify: bool,
    passed: Revision,
    handle: AbortHandle,
}

impl Options {
    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Put { .. } => !self.no_put,
            Event::Delete { .. } => !self.no_delete,
        }
    }
}

impl Stream for Session {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Poll::Ready(Some(Ok(answer)));
            }
            if std::mem::take(&mut self.has_ended) {
                self.inputs.clear();
                return Poll::Ready(Some(Err(errors::STOPPED.into())));
            }
            if !has_budget_remaining() {
                // Without budget a watch that is ready returns `Pending` and loses its place in the queue.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.inputs.poll_next_unpin(context)) {
                Some(Input::Request(Ok(request))) => self.request(request),
                Some(Input::Batch(id, batch)) => self.batch(id, batch),
                Some(Input::End(why)) => {
                    self.inputs.clear();
                    return Poll::Ready(Some(Err(why.into())));
                }
                // The client has disconnected or has sent an invalid message.
                Some(Input::Request(Err(status))) => {
                    self.inputs.clear();
                    return Poll::Ready(Some(Err(status)));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Session {
    fn answer(&self, watch_id: i64, revision: Revision) -> pb::WatchResponse {
        let header = Some(self.shared.header(revision));
        pb::WatchResponse { header, watch_id, ..pb::WatchResponse::default() }
    }

    fn request(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(&request),
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                let now = self.shared.store.revision();
                match self.wanted_progress {
                    None => self.wanted_progress = Some(now),
                    Some(_) => self.later_progress = Some(now),
                }
                self.shared.store.mark_watch_progress(now);
                self.send_progress();
            }
            None => {}
        }
    }

    fn create(&mut self, request: &pb::WatchCreateRequest) {
        let revision = self.shared.store.revision();
        let id = request.watch_id;
        let refused = if id != 0 && self.watches.contains_key(&id) {
            Err("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.watches.len() >= MAX_WATCHES {
            Err("etcdserver: too many watches on one stream")
        } else {
            watched_range(request)
        };
        let range = match refused {
            Ok(range) => range,
            Err(reason) => {
                let refusal = pb::WatchResponse { created: true, ..self.canceled(NO_WATCH, revision, reason) };
                return self.answers.push_back(refusal);
            }
        };
        let id = if id == 0 { self.unused_id() } else { id };
        // A watch with a start revision begins after the revision before it, and at least after the initial revision of
        // the store. A watch without one begins after the revision in the response to its creation.
        let after = match request.start_revision {
            start if start > 0 => convert::revision(start - 1).max(Revision::INITIAL),
            _ => revision,
        };
        let options = WatchOptions { with_previous: request.prev_kv, budget: Some(self.budget.clone()), indexed: None };
        let watch = self.shared.store.watch_with(range, after, options);
        self.answers.push_back(pb::WatchResponse { created: true, ..self.answer(id, revision) });
        match watch {
            Ok(watch) => {
                let (handle, registration) = AbortHandle::new_pair();
                let batches = Abortable::new(watch, registration);
                self.inputs.push(batches.map(move |batch| Input::Batch(id, batch)).boxed());
                let options = Options {
                    no_put: request.filters().any(|f| f == pb::watch_create_request::FilterType::Noput),
                    no_delete: request.filters().any(|f| f == pb::watch_create_request::FilterType::Nodelete),
                    with_prev: request.prev_kv,
                    fragment: request.fragment,
                    progress_notify: request.progress_notify,
                    passed: after,
                    handle,
                };
                self.watches.insert(id, options);
            }
            Err(error) => self.failed(id, &error),
        }
    }

    fn unused_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn canceled(&self, id: i64, revision: Revision, reason: impl Into<String>) -> pb::WatchResponse {
        pb::WatchResponse { canceled: true, cancel_reason: reason.into(), ..self.answer(id, revision) }
    }

    fn cancel(&mut self, id: i64) {
        let Some(options) = self.watches.remove(&id) else { return };
        options.handle.abort();
        self.answers.push_back(self.canceled(id, self.shared.store.revision(), ""));
        self.send_progress();
    }

    /// Handles the end of a watch through an error.
    fn failed(&mut self, id: i64, error: &WatchError) {
        self.watches.remove(&id);
        let revision = self.shared.store.revision();
        self.answers.push_back(match error {
            WatchError::Compacted { compacted, .. } => pb::WatchResponse {
                compact_revision: convert::wire(compacted.0),
                ..self.canceled(id, revision, errors::COMPACTED.message())
            },
            WatchError::ShuttingDown => {
                self.has_ended = true;
                return;
            }
            WatchError::Fatal(reason) => self.canceled(id, revision, reason.as_str()),
        });
        self.send_progress();
    }

    fn batch(&mut self, id: i64, batch: Result<WatchBatch, WatchError>) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return self.failed(id, &error),
        };
        let Some(options) = self.watches.get_mut(&id) else { return };
        options.passed = options.passed.max(batch.revision);
        let (fragment, progress_notify) = (options.fragment, options.progress_notify);
        if batch.events.is_empty() {
            if progress_notify {
                self.answers.push_back(self.answer(id, batch.revision));
            }
        } else {
            let encoded = encoded(&batch.events, options.with_prev);
            let wanted = batch.events.iter().zip(&*encoded).filter(|(event, _)| options.wants(event));
            let events: Vec<Bytes> = wanted.map(|(_, encoded)| encoded.clone()).collect();
            if !events.is_empty() {
                self.send_events(id, batch.revision, events, fragment);
            }
        }
        self.send_progress();
    }

    fn send_events(&mut self, id: i64, revision: Revision, mut events: Vec<Bytes>, fragment: bool) {
        if fragment {
            while let Some(place) = first_beyond(&events, FRAGMENT_BYTES) {
                let rest = events.split_off(place);
                let part = std::mem::replace(&mut events, rest);
                let answer = pb::WatchResponse { events: part, fragment: true, ..self.answer(id, revision) };
                self.answers.push_back(answer);
            }
        }
        self.answers.push_back(pb::WatchResponse { events, ..self.answer(id, revision) });
    }

    /// Answers progress requests once every watch of this stream has passed the revision at which they arrived.
    fn send_progress(&mut self) {
        while let Some(wanted) = self.wanted_progress {
            if self.watches.values().any(|watch| watch.passed < wanted) {
                return;
            }
            self.wanted_progress = self.later_progress.take();
            self.answers.push_back(self.answer(NO_WATCH, wanted));
        }
    }
}

/// An input that ends the session with `why` when `over` completes.
fn ends(over: impl Future<Output = ()> + Send + 'static, why: errors::Refusal) -> BoxStream<'static, Input> {
    stream::once(over).map(move |()| Input::End(why)).boxed()
}

/// Returns when no leader has been known for the duration of `patience`.
async fn leaderless(mut leadership: tokio::sync::watch::Receiver<Leadership>, patience: Duration) {
    while leadership.wait_for(|known| known.leader.is_none()).await.is_ok() {
        let found = leadership.wait_for(|known| known.leader.is_some());
        match tokio::time::timeout(patience, found).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => break,
            Err(_) => return,
        }
    }
    // The store has shut down, which other inputs report.
    std::future::pending().await
}

/// Converts the keys of a watch request to a range.
fn watched_range(request: &pb::WatchCreateRequest) -> Result<KeyRange, &'static str> {
    let key = if request.key.is_empty() { bytes::Bytes::from_static(&[0]) } else { request.key.clone() };
    match convert::key_range(key, request.range_end.clone()) {
        Ok(range) if range.end.as_ref().is_some_and(|end| *end <= range.start) => Err("mvcc: watcher range is empty"),
        Ok(range) => Ok(range),
        Err(refusal) => Err(refusal.message()),
    }
}

/// Encoded events of a batch. They are encoded once and shared by all watches that send them.
#[derive(Clone)]
struct Encoded<const WITH_PREV: bool>(Arc<[Bytes]>);

impl<const WITH_PREV: bool> Encoded<WITH_PREV> {
    fn of(events: &[Event]) -> Self {
        Encoded(events.iter().map(|event| convert::event(event, WITH_PREV).encode_to_vec().into()).collect())
    }
}

fn encoded(events: &WatchEvents, with_prev: bool) -> Arc<[Bytes]> {
    if with_prev { events.derived(Encoded::<true>::of).0 } else { events.derived(Encoded::<false>::of).0 }
}

/// Returns the position of the first event that exceeds the limit, but never the first position.
fn first_beyond(events: &[Bytes], limit: usize) -> Option<usize> {
    let mut size = 0;
    events.iter().enumerate().find_map(|(place, event)| {
        size += event.len();
        (size > limit && place > 0).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use quorate_store::Member;

    use super::*;

    #[tokio::test]
    async fn a_short_time_without_a_leader_ends_no_stream() {
        let known = |leader: Option<Member>| Leadership { leader, ..Leadership::default() };
        let (sender, receiver) = tokio::sync::watch::channel(known(Some(Member::default())));
        let mut waiting = Box::pin(leaderless(receiver.clone(), Duration::from_secs(3600)));
        assert_eq!((&mut waiting).now_or_never(), None);
        sender.send_replace(known(None));
        assert_eq!((&mut waiting).now_or_never(), None);
        sender.send_replace(known(Some(Member::default())));
        assert_eq!(waiting.now_or_never(), None);
        sender.send_replace(known(None));
        leaderless(receiver, Duration::ZERO).await;
    }
}
