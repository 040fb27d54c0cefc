//! Crash and retry delays. They double up to a maximum, and start over after a container has run for long enough.

use jiff::{SignedDuration, Timestamp};

/// First delay between a crash and the next start, in seconds.
pub const CRASH_BASE_SECONDS: i64 = 10;
/// Longest delay between a crash and the next start, in seconds.
pub const CRASH_MAX_SECONDS: i64 = 300;
/// Time that a container must run for its backoff to start over, in seconds.
pub const CRASH_RESET_SECONDS: i64 = 600;

/// The crash backoff of a container. The first restart is immediate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashBackoff {
    delay_seconds: i64,
    last_restart: Option<Timestamp>,
}

impl CrashBackoff {
    /// Creates the backoff of a container that had been restarted `attempt` times before this agent started.
    #[must_use]
    pub fn adopted(attempt: u32, last_restart: Timestamp) -> Self {
        let mut backoff = CrashBackoff::default();
        for _ in 0..attempt.min(10) {
            backoff.restarted(last_restart);
        }
        backoff
    }

    /// Returns the delay before the next start of a container that ended at `finished_at`, in seconds.
    #[must_use]
    pub fn delay_after(&self, finished_at: Timestamp) -> i64 {
        match self.last_restart {
            Some(last) if seconds_between(last, finished_at) <= CRASH_RESET_SECONDS => self.delay_seconds,
            _ => 0,
        }
    }

    /// Returns the time at which a container that ended at `finished_at` may start again.
    #[must_use]
    pub fn until(&self, finished_at: Timestamp) -> Timestamp {
        after(finished_at, self.delay_after(finished_at))
    }

    /// Notes a restart, after which the next one waits longer.
    pub fn restarted(&mut self, now: Timestamp) {
        let quiet = self.last_restart.is_none_or(|last| seconds_between(last, now) > CRASH_RESET_SECONDS);
        self.delay_seconds = if quiet {
            CRASH_BASE_SECONDS
        } else {
            (self.delay_seconds * 2).clamp(CRASH_BASE_SECONDS, CRASH_MAX_SECONDS)
        };
        self.last_restart = Some(now);
    }
}

/// Returns `base` doubled for each earlier failure, at most `max`, in seconds.
#[must_use]
pub fn doubled(base: i64, max: i64, earlier_failures: u32) -> i64 {
    base.saturating_mul(1_i64 << earlier_failures.min(30)).min(max)
}

/// Returns `at` plus this many seconds.
#[must_use]
pub fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

/// Returns the whole seconds from `from` to `to`, negative when `to` is earlier.
#[must_use]
pub fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}
