//! The system as it is.

pub use std::collections::HashMap;
pub use std::thread::Builder as ThreadBuilder;

pub use openraft::impls::TokioRuntime as Runtime;
pub use rand::random;
/// Ends the process at once: nothing that was to be done at the end of it is done.
pub use signal_hook::low_level::exit;
pub use tokio;
pub use tokio_util::task::TaskTracker;

/// Files.
pub mod fs {
    pub use std::fs::*;
    pub use std::os::unix::fs::FileExt;
}

/// A size from which on something happens that only long runs would come to; simulations are short.
#[must_use]
pub const fn threshold(bytes: u64) -> u64 {
    bytes
}
