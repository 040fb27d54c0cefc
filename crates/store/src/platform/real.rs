//! The real system, by re-export.

pub use std::collections::HashMap;
pub use std::thread::Builder as ThreadBuilder;

pub use openraft::impls::TokioRuntime as Runtime;
pub use rand::random;
/// Ends the process immediately, without running exit handlers.
pub use signal_hook::low_level::exit;
pub use tokio;
pub use tokio_util::task::TaskTracker;

/// Files.
pub mod fs {
    pub use std::fs::*;
    pub use std::os::unix::fs::FileExt;
}

/// Returns a size threshold, which a simulation scales down because its runs are too short to reach it.
#[must_use]
pub const fn threshold(bytes: u64) -> u64 {
    bytes
}
