//! Watches: any number of them on one stream.
//!
//! One task serves a stream. Its answers go through a channel of a few places and bytes; a client that does not read
//! fills it, the task waits, and behind it the store's watches lag and later catch up from the tables, a few at a time: a
//! slow client costs a bounded amount of memory, however many watches it has, and holds nobody back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{AbortHandle, Abortable, BoxStream, SelectAll};
use prost::Message;
use quorate_api::Revision;
use quorate_mvcc::{Event, KeyRange};
use quorate_store::{Leadership, WatchBatch, WatchError, WatchOptions, WatchTurns};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::convert;
use crate::errors;
use crate::pb::etcdserverpb::{self as pb, watch_request::RequestUnion, watch_server::Watch};
use crate::pb::mvccpb;
use crate::shared::Shared;

/// Answers that may wait for the client to read them, and the bytes of their events; one that is longer waits alone.
const ANSWERS: usize = 16;
const ANSWERS_BYTES: u32 = 2 << 20;
/// Watches of a stream that may catch up at a time: each holds up to half a MiB, or one revision.
const CATCHING_UP: usize = 8;
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
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let session = Session {
            shared: self.0.clone(),
            answers,
            room: Arc::new(Semaphore::new(ANSWERS_BYTES as usize)),
            turns: WatchTurns::new(CATCHING_UP),
            watches: HashMap::new(),
            batches: SelectAll::new(),
            next_id: 0,
            wanted_progress: None,
        };
        tokio::spawn(session.run(request.into_inner(), require_leader));
        // What is read here is encoded and sent; only then the next is asked for.
        Ok(Response::new(ReceiverStream::new(receiver).map(|Waiting { answer, .. }| answer).boxed()))
    }
}

/// An answer that waits to be read, and the room that it takes meanwhile.
struct Waiting {
    answer: Result<pb::WatchResponse, Status>,
    _room: Option<OwnedSemaphorePermit>,
}

type Batches = BoxStream<'static, (i64, Result<WatchBatch, WatchError>)>;

/// One stream of a client.
struct Session {
    shared: Shared,
    answers: mpsc::Sender<Waiting>,
    /// For the answers that wait, in bytes.
    room: Arc<Semaphore>,
    turns: WatchTurns,
    watches: HashMap<i64, Options>,
    batches: SelectAll<Batches>,
    next_id: i64,
    /// The revision that all watches must have passed before a progress request is answered.
    wanted_progress: Option<Revision>,
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

/// The client does not listen any more.
struct Gone;

impl Session {
    async fn run(mut self, mut requests: Streaming<pb::WatchRequest>, require_leader: bool) {
        let mut leaderless = std::pin::pin!(leaderless(self.shared.leadership(), LEADERLESS_FOR));
        let mut open = true;
        loop {
            let step = tokio::select! {
                () = self.answers.closed() => Err(Gone),
                () = self.shared.stopping() => {
                    self.end(errors::STOPPED).await;
                    Err(Gone)
                }
                request = requests.next(), if open => match request {
                    Some(Ok(request)) => self.request(request).await,
                    Some(Err(_)) => Err(Gone),
                    // The client has nothing more to ask, and still listens.
                    None => {
                        open = false;
                        Ok(())
                    }
                },
                Some((id, batch)) = self.batches.next(), if !self.batches.is_empty() => self.batch(id, batch).await,
                () = &mut leaderless, if require_leader => {
                    self.end(errors::NO_LEADER).await;
                    Err(Gone)
                }
            };
            if step.is_err() {
                return;
            }
        }
    }

    async fn send(&mut self, answer: pb::WatchResponse) -> Result<(), Gone> {
        let size_bytes: usize = answer.events.iter().map(value_bytes).sum();
        let size_bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX).min(ANSWERS_BYTES);
        let room = tokio::select! {
            room = self.room.clone().acquire_many_owned(size_bytes) => room.ok(),
            () = self.answers.closed() => return Err(Gone),
        };
        self.answers.send(Waiting { answer: Ok(answer), _room: room }).await.map_err(|_| Gone)
    }

    /// Tells why this is the end, if the client still listens.
    async fn end(&mut self, why: errors::Refusal) {
        drop(self.answers.send(Waiting { answer: Err(why.into()), _room: None }).await);
    }

    fn answer(&self, watch_id: i64, revision: Revision) -> pb::WatchResponse {
        let header = Some(self.shared.header(revision));
        pb::WatchResponse { header, watch_id, ..pb::WatchResponse::default() }
    }

    async fn request(&mut self, request: pb::WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                self.wanted_progress = Some(self.shared.store.revision());
                self.shared.store.mark_watch_progress();
                self.tell_progress().await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> Result<(), Gone> {
        let revision = self.shared.store.revision();
        let id = request.watch_id;
        let refused = if id != 0 && self.watches.contains_key(&id) {
            Err("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.watches.len() >= MAX_WATCHES {
            Err("etcdserver: too many watches on one stream")
        } else {
            watched(&request)
        };
        let range = match refused {
            Ok(range) => range,
            Err(reason) => {
                let answer = pb::WatchResponse { created: true, ..self.canceled(NO_WATCH, revision, reason) };
                return self.send(answer).await;
            }
        };
        let id = if id == 0 { self.unused_id() } else { id };
        // A watch from a revision on has had everything before it; the store itself was born at its initial one. One
        // from now on begins after the revision that its client is told.
        let after = match request.start_revision {
            start if start > 0 => convert::revision(start - 1).max(Revision::INITIAL),
            _ => revision,
        };
        let options = WatchOptions { with_previous: request.prev_kv, turns: Some(self.turns.clone()) };
        let watch = self.shared.store.watch_with(range, after, options);
        let answer = pb::WatchResponse { created: true, ..self.answer(id, revision) };
        self.send(answer).await?;
        match watch {
            Ok(watch) => {
                let stream = futures::stream::unfold(watch, move |mut watch| async move {
                    watch.next().await.map(|batch| ((id, batch), watch))
                });
                let (handle, registration) = AbortHandle::new_pair();
                self.batches.push(Abortable::new(stream, registration).boxed());
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
                Ok(())
            }
            Err(error) => self.failed(id, &error).await,
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

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        let Some(options) = self.watches.remove(&id) else { return Ok(()) };
        options.handle.abort();
        let answer = self.canceled(id, self.shared.store.revision(), "");
        self.send(answer).await?;
        self.tell_progress().await
    }

    /// A watch has ended by itself.
    async fn failed(&mut self, id: i64, error: &WatchError) -> Result<(), Gone> {
        self.watches.remove(&id);
        let revision = self.shared.store.revision();
        let answer = match error {
            WatchError::Compacted { compacted, .. } => pb::WatchResponse {
                compact_revision: convert::wire(compacted.0),
                ..self.canceled(id, revision, errors::COMPACTED.message())
            },
            WatchError::ShuttingDown => self.canceled(id, revision, errors::STOPPED.message()),
            WatchError::Fatal(reason) => self.canceled(id, revision, reason.as_str()),
        };
        self.send(answer).await?;
        self.tell_progress().await
    }

    async fn batch(&mut self, id: i64, batch: Result<WatchBatch, WatchError>) -> Result<(), Gone> {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return self.failed(id, &error).await,
        };
        // A batch may still come out of a watch that was cancelled meanwhile.
        let Some(options) = self.watches.get_mut(&id) else { return Ok(()) };
        options.passed = options.passed.max(batch.revision);
        let is_mark = batch.events.is_empty();
        let events: Vec<mvccpb::Event> = batch
            .events
            .iter()
            .filter(|event| options.wants(event))
            .map(|event| convert::event(event, options.with_prev))
            .collect();
        let (fragment, progress_notify) = (options.fragment, options.progress_notify);
        if !events.is_empty() {
            self.send_events(id, batch.revision, events, fragment).await?;
        } else if is_mark && progress_notify {
            let answer = self.answer(id, batch.revision);
            self.send(answer).await?;
        }
        self.tell_progress().await
    }

    async fn send_events(
        &mut self,
        id: i64,
        revision: Revision,
        mut events: Vec<mvccpb::Event>,
        fragment: bool,
    ) -> Result<(), Gone> {
        if fragment {
            while let Some(place) = first_beyond(&events, FRAGMENT_BYTES) {
                let rest = events.split_off(place);
                let part = std::mem::replace(&mut events, rest);
                let answer = pb::WatchResponse { events: part, fragment: true, ..self.answer(id, revision) };
                self.send(answer).await?;
            }
        }
        let answer = pb::WatchResponse { events, ..self.answer(id, revision) };
        self.send(answer).await
    }

    /// Answers a progress request once every watch of this stream has passed the revision it was made at.
    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let Some(wanted) = self.wanted_progress else { return Ok(()) };
        if self.watches.values().any(|watch| watch.passed < wanted) {
            return Ok(());
        }
        self.wanted_progress = None;
        let answer = self.answer(NO_WATCH, wanted);
        self.send(answer).await
    }
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

/// What an event takes: nearly all of it are its values.
fn value_bytes(event: &mvccpb::Event) -> usize {
    let value = |kv: &Option<mvccpb::KeyValue>| kv.as_ref().map_or(0, |kv| kv.value.len());
    value(&event.kv) + value(&event.prev_kv)
}

/// The place of the first event with which these no longer fit, but never the first of all.
fn first_beyond(events: &[mvccpb::Event], limit: usize) -> Option<usize> {
    let mut size = 0;
    events.iter().enumerate().find_map(|(place, event)| {
        size += event.encoded_len();
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
