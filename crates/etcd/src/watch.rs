//! Watches: any number of them on one stream.
//!
//! A stream of answers does its work as it is read: it has no task and no queue of its own. Of one that is not read
//! nothing is asked, and behind it the store's watches, which share some room, lag and later catch up from the tables, a
//! few at a time: a slow client costs a bounded amount of memory, however many watches it has, and holds nobody back.

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

/// Watches of a stream that may catch up at a time: each holds up to half a MiB, or one revision.
const CATCHING_UP: usize = 8;
/// What all others of a stream may hold.
const ROOM_BYTES: usize = 8 << 20;
/// Watches on one stream.
const MAX_WATCHES: usize = 100_000;
/// A fragment's size: etcd's limit of a request, and a little for what is around it.
const FRAGMENT_BYTES: usize = (3 << 19) + (512 << 10);
/// The id of an answer that belongs to no watch.
const NO_WATCH: i64 = -1;
/// A client that wants a leader is told that there is none after this long, as etcd does after three elections: those
/// that succeed end no watch.
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

/// What a session has to do something about.
enum Input {
    Request(Result<pb::WatchRequest, Status>),
    Batch(i64, Result<WatchBatch, WatchError>),
    End(errors::Refusal),
}

/// One stream of a client: a stream of answers.
struct Session {
    shared: Shared,
    /// In the order in which they come. Those that have nothing are not looked at.
    inputs: SelectAll<BoxStream<'static, Input>>,
    /// To the last input. They are read before the next is taken.
    answers: VecDeque<pb::WatchResponse>,
    budget: WatchBudget,
    watches: HashMap<i64, Options>,
    next_id: i64,
    /// The revision that all watches must have passed before a progress request is answered, and before those are that
    /// came meanwhile.
    wanted_progress: Option<Revision>,
    later_progress: Option<Revision>,
    /// This member watches no more: the stream ends, so that the client watches on at another member.
    has_ended: bool,
}

/// What a client asked for with one watch, and how far it is.
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
                // Without it a watch that has something looks as if it had nothing, and loses its place.
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
                // The client has left, or it has sent something that is no request.
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
                self.tell_progress();
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
            watched(request)
        };
        let range = match refused {
            Ok(range) => range,
            Err(reason) => {
                let refusal = pb::WatchResponse { created: true, ..self.canceled(NO_WATCH, revision, reason) };
                return self.answers.push_back(refusal);
            }
        };
        let id = if id == 0 { self.unused_id() } else { id };
        // A watch from a revision on has had everything before it; the store itself was born at its initial one. One
        // from now on begins after the revision that its client is told.
        let after = match request.start_revision {
            start if start > 0 => convert::revision(start - 1).max(Revision::INITIAL),
            _ => revision,
        };
        let options = WatchOptions { with_previous: request.prev_kv, budget: Some(self.budget.clone()) };
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
        self.tell_progress();
    }

    /// A watch has ended by itself.
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
        self.tell_progress();
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
                self.tell_events(id, batch.revision, events, fragment);
            }
        }
        self.tell_progress();
    }

    fn tell_events(&mut self, id: i64, revision: Revision, mut events: Vec<Bytes>, fragment: bool) {
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

    /// Answers progress requests once every watch of this stream has passed the revision they were made at.
    fn tell_progress(&mut self) {
        while let Some(wanted) = self.wanted_progress {
            if self.watches.values().any(|watch| watch.passed < wanted) {
                return;
            }
            self.wanted_progress = self.later_progress.take();
            self.answers.push_back(self.answer(NO_WATCH, wanted));
        }
    }
}

/// The end of a session when `over` is.
fn ends(over: impl Future<Output = ()> + Send + 'static, why: errors::Refusal) -> BoxStream<'static, Input> {
    stream::once(over).map(move |()| Input::End(why)).boxed()
}

/// Returns when no leader has been known for so long.
async fn leaderless(mut leadership: tokio::sync::watch::Receiver<Leadership>, patience: Duration) {
    while leadership.wait_for(|known| known.leader.is_none()).await.is_ok() {
        let found = leadership.wait_for(|known| known.leader.is_some());
        match tokio::time::timeout(patience, found).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => break,
            Err(_) => return,
        }
    }
    // The store tells of its end in other ways.
    std::future::pending().await
}

/// The keys that a request wants to watch.
fn watched(request: &pb::WatchCreateRequest) -> Result<KeyRange, &'static str> {
    let key = if request.key.is_empty() { bytes::Bytes::from_static(&[0]) } else { request.key.clone() };
    match convert::key_range(key, request.range_end.clone()) {
        Ok(range) if range.end.as_ref().is_some_and(|end| *end <= range.start) => Err("mvcc: watcher range is empty"),
        Ok(range) => Ok(range),
        Err(refusal) => Err(refusal.message()),
    }
}

/// Events as they are sent, made once for all who watch them.
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

/// The place of the first event with which these no longer fit, but never the first of all.
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
    async fn a_short_time_without_a_leader_passes() {
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
