//! What happened to a lease and the key that hangs on it.

use serde::{Deserialize, Serialize};

use super::Micros;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseEvent {
    /// The grant or a keep-alive was acknowledged, with this time to live. The server's clock began somewhere between
    /// the two moments.
    Kept { called: Micros, returned: Micros, ttl_seconds: u64 },
    /// A keep-alive was answered: there is no such lease.
    NotFound { called: Micros, returned: Micros },
    /// The key was written with the lease, and that was acknowledged.
    Attached { called: Micros, returned: Micros },
    /// A linearizable read found the key, or did not.
    Read { called: Micros, returned: Micros, found: bool },
    /// A revocation was sent; whether it was acknowledged.
    Revoked { called: Micros, returned: Micros, acknowledged: bool },
}

/// One lease with one key of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseLog {
    pub id: i64,
    pub key: String,
    pub events: Vec<LeaseEvent>,
    /// The key was there after the run, when its time was long over.
    pub left_over: bool,
}
