//! The clock of fences. It counts while the machine is suspended, cannot be set, and is the same for all processes.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Returns the time since the machine was booted.
pub(crate) fn now() -> Duration {
    // Linux has had this clock since 2.6.39. A failure reads as the maximum, so that every fence has lapsed.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

/// Returns the id of this boot. Times of different boots cannot be compared.
pub(crate) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
