//! The clock of fences: it goes on while the machine is suspended, nobody can set it, and all processes share it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since the machine was started.
pub(crate) fn now() -> Duration {
    // Linux has had this clock since 2.6.39. A failure counts as the end of all time, where every fence has lapsed.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

/// The identity of this start of the machine; times of another one mean nothing.
pub(crate) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
