//! What an operator may tune.

use std::time::Duration;

use quorate_controllers::Settings;

#[derive(Clone, Debug, PartialEq)]
pub struct ManagerConfig {
    /// When nodes count as dead, and when their pods go.
    pub settings: Settings,
    /// How many keys of one controller are worked on at a time.
    pub workers_per_controller: usize,
    /// How many actions of one `Batch` are under way at a time.
    pub parallel_actions: usize,
    /// How many bindings (and status updates of unschedulable pods) are under way at a time.
    pub parallel_bindings: usize,
    /// The deadline of each request to the API.
    pub request_timeout: Duration,
    /// How long an Event is kept after its last write.
    pub event_ttl: Duration,
    /// How many objects the informer reads at a time when it starts.
    pub page_size: u64,
    /// A master that has not answered the leader for this long is no endpoint of `default/kubernetes` any more.
    pub forget_masters_after: Duration,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        ManagerConfig {
            settings: Settings::default(),
            workers_per_controller: 4,
            parallel_actions: 32,
            parallel_bindings: 64,
            request_timeout: Duration::from_secs(10),
            event_ttl: Duration::from_secs(60 * 60),
            page_size: 500,
            forget_masters_after: Duration::from_secs(10),
        }
    }
}
