//! Detection of the moment when a database is closed.
//!
//! openraft's tasks hold readers of a database and may outlive the instance. This process may open the directory again
//! only after the last of them has dropped its reader.

use std::sync::Arc;
use std::time::Duration;

use crate::platform::tokio;
use crate::platform::tokio::sync::watch;

/// Last field of the type that owns a database; [`Closed`] completes when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct CloseSignal(#[expect(dead_code, reason = "it is held for its drop")] Arc<watch::Sender<()>>);

/// Observes the drop of a [`CloseSignal`].
#[derive(Clone, Debug)]
pub struct Closed(watch::Receiver<()>);

#[must_use]
pub fn close_signal() -> (CloseSignal, Closed) {
    let (sender, receiver) = watch::channel(());
    (CloseSignal(Arc::new(sender)), Closed(receiver))
}

impl Closed {
    /// Returns whether the signal was dropped.
    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits for the drop; false when `deadline` passes first.
    pub async fn wait(mut self, deadline: Duration) -> bool {
        // Nothing is ever sent, so this completes only when the sender is dropped.
        tokio::time::timeout(deadline, self.0.changed()).await.is_ok()
    }
}
