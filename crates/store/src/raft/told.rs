//! What is told once, and is so from then on.

use crate::platform::tokio::sync::watch;

/// A reason that nobody takes back; the first one stays.
#[derive(Debug)]
pub struct Told(watch::Sender<Option<String>>);

impl Default for Told {
    fn default() -> Self {
        Told(watch::Sender::new(None))
    }
}

impl Told {
    pub fn tell(&self, reason: impl Into<String>) {
        self.0.send_if_modified(|told| {
            let is_news = told.is_none();
            told.get_or_insert_with(|| reason.into());
            is_news
        });
    }

    /// What was told.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Returns when something is told, with what it is.
    pub async fn wait(&self) -> String {
        let mut receiver = self.0.subscribe();
        // The sender lives in here.
        let told = receiver.wait_for(Option::is_some).await.map(|told| told.clone());
        match told {
            Ok(told) => told.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}
