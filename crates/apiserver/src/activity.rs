//! The activity of a connection, so that one on which nothing happens is closed.
//!
//! HTTP's own deadlines begin with the first byte of a request, or after the first one. A client that opens connections and
//! sends nothing would keep them forever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// The requests of a connection whose responses have not been handed over whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    running: AtomicU64,
    /// Beginnings and ends of requests.
    changes: AtomicU64,
}

/// A request that runs, until this is dropped.
#[derive(Debug)]
pub(crate) struct Running(Activity);

impl Activity {
    pub fn begin(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Returns when no request has run for `within`, which takes up to twice as long.
    pub async fn idle(&self, within: Duration) {
        let mut seen = self.0.changes.load(Ordering::Relaxed);
        loop {
            sleep(within).await;
            let changes = self.0.changes.load(Ordering::Relaxed);
            if changes == seen && self.0.running.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = changes;
        }
    }
}

impl Running {
    /// Keeps the request running for as long as a closure that calls this exists.
    pub fn hold(&self) {}
}

impl Drop for Running {
    fn drop(&mut self) {
        let Running(Activity(counters)) = self;
        counters.changes.fetch_add(1, Ordering::Relaxed);
        counters.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn a_connection_is_idle_while_no_request_runs() {
        let activity = Activity::default();
        activity.idle(WITHIN).await;
        let (first, second) = (activity.begin(), activity.begin());
        drop(first);
        tokio::select! {
            () = activity.idle(WITHIN) => panic!("a request runs"),
            () = sleep(20 * WITHIN) => {}
        }
        drop(second);
        activity.idle(WITHIN).await;
    }
}
