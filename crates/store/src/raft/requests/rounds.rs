//! Rounds that many callers share: [`Rounds`] answers every caller that asked before a round began with its result.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::platform::tokio;
use crate::platform::tokio::sync::mpsc::error::TrySendError;
use crate::platform::tokio::sync::{mpsc, oneshot};

/// Why a caller got no result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRound {
    /// Too many callers wait already.
    TooMany,
    Ended,
}

/// The callers' side of [`Rounds`].
#[derive(Clone)]
pub struct RoundQueue<T> {
    waiting: mpsc::Sender<oneshot::Sender<T>>,
}

impl<T> RoundQueue<T> {
    /// Waits for a round that begins after this call, and returns its result.
    ///
    /// # Errors
    /// When too many callers wait already, or there are no more rounds.
    pub async fn next(&self) -> Result<T, NoRound> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.try_send(sender).map_err(|error| match error {
            TrySendError::Full(_) => NoRound::TooMany,
            TrySendError::Closed(_) => NoRound::Ended,
        })?;
        receiver.await.map_err(|_| NoRound::Ended)
    }
}

/// Runs one round at a time and gives its result to all callers that asked before it began.
pub struct Rounds<T> {
    waiting: mpsc::Receiver<oneshot::Sender<T>>,
}

impl<T: Clone> Rounds<T> {
    #[must_use]
    pub fn new(queue: usize) -> (RoundQueue<T>, Self) {
        let (sender, waiting) = mpsc::channel(queue);
        (RoundQueue { waiting: sender }, Rounds { waiting })
    }

    /// Runs until `shutdown`.
    pub async fn run<F, Fut>(mut self, round: F, shutdown: CancellationToken)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = T>,
    {
        const MAX_WAITERS: usize = 65_536;
        let mut waiters = Vec::new();
        loop {
            let some = tokio::select! {
                () = shutdown.cancelled() => return,
                some = self.waiting.recv_many(&mut waiters, MAX_WAITERS) => some,
            };
            if some == 0 {
                return;
            }
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = round() => result,
            };
            for waiter in waiters.drain(..) {
                drop(waiter.send(result.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::platform::{TaskTracker, tokio};

    #[tokio::test]
    async fn callers_share_a_round_that_begins_after_they_asked() {
        let (queue, rounds) = Rounds::new(100);
        let shutdown = CancellationToken::new();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let tasks = TaskTracker::new();
        let waiters = futures::future::join_all((0..50).map(|_| queue.next()));
        tasks.spawn(rounds.run(
            move || {
                let counter = counter.clone();
                async move {
                    tokio::task::yield_now().await;
                    counter.fetch_add(1, Ordering::Relaxed)
                }
            },
            shutdown.clone(),
        ));
        let results = waiters.await;
        assert!(results.iter().all(Result::is_ok));
        assert!(count.load(Ordering::Relaxed) <= 3, "{} rounds", count.load(Ordering::Relaxed));
        shutdown.cancel();
    }
}
