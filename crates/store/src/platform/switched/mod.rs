//! The real system, or a simulated one when a simulation runs on this thread.

pub mod fs;
mod runtime;
mod spawn;
pub mod tokio;
pub mod watch;

pub use runtime::Runtime;
pub use spawn::{TaskTracker, ThreadBuilder};

use std::hash::{BuildHasherDefault, DefaultHasher};

use rand::distr::{Distribution, StandardUniform};

use crate::raft::simulation::process::{self, Process};

/// A map whose iteration order is the same in every run.
pub type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Divisor of size thresholds in a simulation.
const SCALE: u64 = 4096;

/// Returns a size threshold, scaled down in a simulation, whose runs are too short to reach the real one.
#[must_use]
pub fn threshold(bytes: u64) -> u64 {
    if process::is_simulated() { bytes / SCALE } else { bytes }
}

/// Ends the process immediately, without running exit handlers.
pub fn exit(code: i32) -> ! {
    match Process::current() {
        Some(process) => process.exit(),
        None => signal_hook::low_level::exit(code),
    }
}

#[must_use]
pub fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    match Process::current() {
        Some(process) => process.random().value(),
        None => rand::random(),
    }
}
