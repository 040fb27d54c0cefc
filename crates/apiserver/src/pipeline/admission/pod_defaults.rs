//! The cluster's settings for new pods, which several plugins apply.

use std::time::Duration;

/// Defaults for fields that a pod leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodDefaults {
    /// Time for which a pod stays bound to a node that has failed.
    pub eviction_after: Duration,
    /// The fence of every new pod that sets none.
    pub fence_after: Option<Duration>,
}

impl Default for PodDefaults {
    fn default() -> Self {
        PodDefaults { eviction_after: Duration::from_secs(10), fence_after: None }
    }
}

impl PodDefaults {
    /// Returns the eviction time in whole seconds, rounded up, because a toleration counts whole seconds.
    pub(super) fn toleration_seconds(&self) -> u64 {
        self.eviction_after.as_secs() + u64::from(self.eviction_after.subsec_nanos() > 0)
    }
}

#[cfg(test)]
mod tests;
