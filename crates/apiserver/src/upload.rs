//! [`Upload`]: the body of a request that another server reads.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use parking_lot::Mutex;

/// The unread body of a request that is passed on. Its clones share the body, and the first one to take it gets it.
#[derive(Clone, Debug, Default)]
pub struct Upload(Arc<Mutex<Option<HttpBody>>>);

impl Upload {
    pub(crate) fn new(body: HttpBody) -> Self {
        Upload(Arc::new(Mutex::new(Some(body))))
    }

    /// Returns the body; `None` when it was taken before, and for a request without one.
    pub(crate) fn take(&self) -> Option<HttpBody> {
        self.0.lock().take()
    }
}
