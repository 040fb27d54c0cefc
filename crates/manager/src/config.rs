//! Settings of the manager that an operator may change.

use std::time::Duration;

use quorate_controllers::Settings;

#[derive(Clone, Debug, PartialEq)]
pub struct ManagerConfig {
    /// Settings of the controllers.
    pub settings: Settings,
    /// Maximum number of keys that one controller reconciles at a time.
    pub workers_per_controller: usize,
    /// Maximum number of actions of one `Batch` executed at a time.
    pub parallel_actions: usize,
    /// Maximum number of bindings (and status updates of unschedulable pods) in progress at a time.
    pub parallel_bindings: usize,
    /// Timeout of each request to the API.
    pub request_timeout: Duration,
    /// Time that an Event is kept after its last write.
    pub event_ttl: Duration,
    /// Number of objects that the informer reads per page when it lists the store.
    pub page_size: u64,
    /// Time after which a master that does not answer the leader is removed from the endpoints of `default/kubernetes`.
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
