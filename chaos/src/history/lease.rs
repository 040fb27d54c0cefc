//! Events of a lease and the key attached to it.

use serde::{Deserialize, Serialize};

use super::Micros;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LeaseEvent {
    /// The grant or a keep-alive was acknowledged with this time to live, which began between the call and the return.
    Kept { called: Micros, returned: Micros, ttl_seconds: u64 },
    /// A keep-alive was answered with "lease not found".
    NotFound { called: Micros, returned: Micros },
    /// The write of the key with the lease was acknowledged.
    Attached { called: Micros, returned: Micros },
    /// A linearizable read of the key returned; `found` says whether the key existed.
    Read { called: Micros, returned: Micros, found: bool },
    /// A revocation was sent; `acknowledged` says whether it was confirmed.
    Revoked { called: Micros, returned: Micros, acknowledged: bool },
}

/// One lease with one key of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseLog {
    pub id: i64,
    pub key: String,
    pub events: Vec<LeaseEvent>,
    /// The key still existed after the run, long after its lease expired.
    pub left_over: bool,
}
