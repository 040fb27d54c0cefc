//! Limits on the requests of strangers: machines that join, which have a token and no certificate yet.
//!
//! A stranger who sends slowly must not keep others out. So a request gets a permit to run only once its whole body has
//! arrived. Among the requests that send or wait, the oldest one gives way to a new one when there are too many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use quorate_api::{Reason, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error;

/// Maximum size of a request body, in bytes.
const MAX_BODY_BYTES: usize = 32 << 10;
/// Maximum number of requests that send their body or wait for a permit. Their bodies hold at most 8 MiB together.
const MAX_PENDING: usize = 256;
/// Maximum number of requests that run.
const MAX_RUNNING: usize = 16;
const BODY_WITHIN: Duration = Duration::from_secs(10);
const PERMIT_WITHIN: Duration = Duration::from_secs(10);

/// The requests of strangers to this server.
#[derive(Clone)]
pub(crate) struct Strangers {
    pending: Arc<Mutex<Pending>>,
    running: Arc<Semaphore>,
    permit_within: Duration,
}

/// The requests that send their body or wait, in the order of their arrival.
#[derive(Default)]
struct Pending {
    next: u64,
    by_arrival: BTreeMap<u64, CancellationToken>,
}

/// One pending request; it leaves when this is dropped.
struct Place {
    pending: Arc<Mutex<Pending>>,
    arrival: u64,
    evicted: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.lock().by_arrival.remove(&self.arrival);
    }
}

impl Strangers {
    pub(crate) fn new() -> Self {
        let running = Arc::new(Semaphore::new(MAX_RUNNING));
        Strangers { pending: Arc::default(), running, permit_within: PERMIT_WITHIN }
    }

    /// Reads the body of a request, and waits for the permit with which it may run.
    ///
    /// # Errors
    /// `TooManyRequests`, `Timeout`, `RequestEntityTooLarge`.
    pub(crate) async fn admit(&self, body: HttpBody) -> Result<(Bytes, OwnedSemaphorePermit), Status> {
        let place = self.enter();
        tokio::select! {
            () = place.evicted.cancelled() => Err(error::too_many_requests()),
            admitted = self.read_and_wait(body) => admitted,
        }
    }

    fn enter(&self) -> Place {
        let mut pending = self.pending.lock();
        while pending.by_arrival.len() >= MAX_PENDING
            && let Some((_, oldest)) = pending.by_arrival.pop_first()
        {
            oldest.cancel();
        }
        let (arrival, evicted) = (pending.next, CancellationToken::new());
        pending.next += 1;
        pending.by_arrival.insert(arrival, evicted.clone());
        Place { pending: Arc::clone(&self.pending), arrival, evicted }
    }

    async fn read_and_wait(&self, body: HttpBody) -> Result<(Bytes, OwnedSemaphorePermit), Status> {
        let late = || Status::new(Reason::Timeout, "the body of the request took too long");
        let read = timeout(BODY_WITHIN, Limited::new(body, MAX_BODY_BYTES).collect());
        let body = read.await.map_err(|_| late())?.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                return error::too_large(MAX_BODY_BYTES);
            }
            Status::bad_request(format!("the body of the request could not be read: {error}"))
        })?;
        match timeout(self.permit_within, Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(permit)) => Ok((body.to_bytes(), permit)),
            Ok(Err(_)) | Err(_) => Err(error::too_many_requests()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn whole() -> HttpBody {
        HttpBody::from("{}")
    }

    fn endless() -> HttpBody {
        HttpBody::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>())
    }

    #[tokio::test]
    async fn slow_strangers_do_not_keep_out_a_new_one() {
        let strangers = Strangers::new();
        let mut slow: Vec<_> = (0..MAX_PENDING).map(|_| Box::pin(strangers.admit(endless()))).collect();
        for slow in &mut slow {
            assert!(slow.now_or_never().is_none(), "its body never ends");
        }
        assert_eq!(strangers.pending.lock().by_arrival.len(), MAX_PENDING);
        let (body, _permit) = strangers.admit(whole()).await.expect("the oldest gives way");
        assert_eq!(&body[..], b"{}");
        let evicted: Vec<_> = slow.iter_mut().map(|slow| slow.now_or_never()).take(2).collect();
        assert!(matches!(&evicted[0], Some(Err(status)) if status.reason == Reason::TooManyRequests), "{evicted:?}");
        assert!(evicted[1].is_none(), "{evicted:?}");
        drop(slow);
        assert!(strangers.pending.lock().by_arrival.is_empty());
    }

    #[tokio::test]
    async fn whole_requests_wait_for_their_turn() {
        let strangers = Strangers { permit_within: Duration::from_millis(100), ..Strangers::new() };
        let mut running = Vec::new();
        for _ in 0..MAX_RUNNING {
            running.push(strangers.admit(whole()).await.expect("a permit"));
        }
        let refused = strangers.admit(whole()).await.expect_err("all permits are taken");
        assert_eq!(refused.reason, Reason::TooManyRequests);
        let patient = Strangers { permit_within: PERMIT_WITHIN, ..strangers.clone() };
        let (next, ()) = futures::join!(patient.admit(whole()), async { drop(running.pop()) });
        drop(next.expect("a permit is free again"));
        let large = strangers.admit(HttpBody::from(vec![b' '; MAX_BODY_BYTES + 1])).await.expect_err("too large");
        assert_eq!(large.reason, Reason::RequestEntityTooLarge);
    }
}
