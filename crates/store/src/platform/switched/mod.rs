//! The system, or a simulated one where a simulation runs on this thread.

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

/// A map that is walked in the same order in every run.
pub type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// How much earlier a simulation comes to what takes long.
const SCALE: u64 = 4096;

/// A size from which on something happens that only long runs would come to; simulations are short.
#[must_use]
pub fn threshold(bytes: u64) -> u64 {
    if process::is_simulated() { bytes / SCALE } else { bytes }
}

/// Ends the process at once: nothing that was to be done at the end of it is done.
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
