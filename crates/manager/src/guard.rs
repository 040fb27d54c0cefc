//! Keeps a panic in a pure function from taking its caller down: one bad object must not stop the whole manager.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a function that reads shared state and changes none; `None` when it panicked, which is logged. What it was
/// called with is therefore intact afterwards.
pub(crate) fn catch<T>(what: &str, run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(what, panic = text, "a decision panicked; this is a bug");
            None
        }
    }
}
