//! Knowing when a database is closed.
//!
//! openraft's tasks hold readers and die on their own time. A directory may be opened again, in this process, only
//! after the last of them has let go.

use std::sync::Arc;
use std::time::Duration;

use crate::platform::tokio;
use crate::platform::tokio::sync::watch;

/// Lives inside what is to be closed, as its last field; dropping the last of its clones is the news.
#[derive(Clone, Debug)]
pub struct CloseSignal(#[expect(dead_code, reason = "it is held for its drop")] Arc<watch::Sender<()>>);

/// Sees a [`CloseSignal`] dropped.
#[derive(Clone, Debug)]
pub struct Closed(watch::Receiver<()>);

#[must_use]
pub fn close_signal() -> (CloseSignal, Closed) {
    let (sender, receiver) = watch::channel(());
    (CloseSignal(Arc::new(sender)), Closed(receiver))
}

impl Closed {
    /// Whether it has happened.
    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Whether it happened within `deadline`.
    pub async fn wait(mut self, deadline: Duration) -> bool {
        // Nothing is ever sent, so the only change is the end.
        tokio::time::timeout(deadline, self.0.changed()).await.is_ok()
    }
}
