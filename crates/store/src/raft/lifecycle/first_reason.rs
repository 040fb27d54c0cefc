//! [`FirstReason`]: a reason that is set once and never changes.

use crate::platform::tokio::sync::watch;

/// The first reason that was set; later ones are ignored.
#[derive(Debug)]
pub struct FirstReason(watch::Sender<Option<String>>);

impl Default for FirstReason {
    fn default() -> Self {
        FirstReason(watch::Sender::new(None))
    }
}

impl FirstReason {
    /// Sets the reason, unless there is one already.
    pub fn set(&self, reason: impl Into<String>) {
        self.0.send_if_modified(|first| {
            let is_news = first.is_none();
            first.get_or_insert_with(|| reason.into());
            is_news
        });
    }

    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until a reason is set, and returns it.
    pub async fn wait(&self) -> String {
        let mut receiver = self.0.subscribe();
        let reason = receiver.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(reason) => reason.unwrap_or_default(),
            // Unreachable: `self` keeps the sender open.
            Err(_) => std::future::pending().await,
        }
    }
}
