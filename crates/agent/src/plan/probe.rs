//! Probe thresholds: turns single results into a verdict.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;

use super::backoff;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    /// Returns the name that the kubelet's messages use.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// The results of one probe of one container so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// Id of the container that was probed. The results do not count for another container.
    pub container_id: String,
    pub last_run: Option<Timestamp>,
    successes: i32,
    failures: i32,
    /// The verdict, once a threshold has been reached.
    pub verdict: Option<bool>,
}

impl ProbeState {
    #[must_use]
    pub fn new(container_id: &str) -> Self {
        ProbeState { container_id: container_id.to_owned(), ..ProbeState::default() }
    }

    /// Creates the state of a probe for which an earlier agent has reported a verdict.
    #[must_use]
    pub fn adopted(container_id: &str, verdict: bool) -> Self {
        ProbeState { verdict: Some(verdict), ..ProbeState::new(container_id) }
    }

    /// Returns the time of the next probe of a container that started at `started_at`.
    #[must_use]
    pub fn due(&self, probe: &Probe, started_at: Timestamp) -> Timestamp {
        let first = backoff::after(started_at, i64::from(probe.initial_delay_seconds.unwrap_or(0)));
        match self.last_run {
            Some(last) => backoff::after(last, i64::from(probe.period_seconds.unwrap_or(10).max(1))).max(first),
            None => first,
        }
    }

    pub fn record(&mut self, probe: &Probe, healthy: bool, now: Timestamp) {
        self.last_run = Some(now);
        if healthy {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= probe.success_threshold.unwrap_or(1).max(1) {
                self.verdict = Some(true);
            }
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= probe.failure_threshold.unwrap_or(3).max(1) {
                self.verdict = Some(false);
            }
        }
    }
}
