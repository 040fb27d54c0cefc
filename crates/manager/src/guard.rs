//! Panic guard for pure functions, so that one bad object cannot stop the whole manager.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a function that only reads shared state. A panic is logged and returns `None`; the state is intact, because the
/// function does not change it.
pub(crate) fn catch<T>(what: &str, run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(what, panic = text, "a pure function panicked; this is a bug");
            None
        }
    }
}
