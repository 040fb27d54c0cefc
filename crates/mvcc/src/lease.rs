//! Leases and the keys attached to them. The state machine has no clock: the leader decides when a lease expires.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Cursor, Table};
use crate::index::Index;
use crate::kv::LeaseId;
use crate::layout;

/// A lease without its keys, as the leader's expiry timer needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    pub id: LeaseId,
    pub ttl_seconds: u64,
    /// Increments with every keep-alive. An expiry names the generation that expired.
    pub generation: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Lease {
    ttl_seconds: u64,
    generation: u64,
    keys: BTreeSet<Bytes>,
}

/// All leases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    pub(crate) fn load(backend: &impl Backend, index: &Index) -> Result<Self, BackendError> {
        let mut leases = BTreeMap::new();
        let mut cursor = backend.cursor(Table::Leases, &[], None);
        let mut found = cursor.seek(&[])?;
        while found {
            let (id, ttl_seconds, generation) = layout::read_lease(cursor.key(), cursor.value())?;
            leases.insert(id, Lease { ttl_seconds, generation, keys: BTreeSet::new() });
            found = cursor.next()?;
        }
        let mut leases = Leases { leases };
        for (key, id) in index.leased() {
            leases.attach(key.clone(), id);
        }
        Ok(leases)
    }

    pub(crate) fn get(&self, id: LeaseId) -> Option<LeaseInfo> {
        let lease = self.leases.get(&id)?;
        Some(LeaseInfo { id, ttl_seconds: lease.ttl_seconds, generation: lease.generation })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = LeaseInfo> {
        self.leases.iter().map(|(&id, lease)| LeaseInfo {
            id,
            ttl_seconds: lease.ttl_seconds,
            generation: lease.generation,
        })
    }

    /// The keys attached to the lease, in order.
    pub(crate) fn keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.leases.get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// Sets the TTL and generation of a lease, and keeps its keys.
    pub(crate) fn set(&mut self, info: LeaseInfo) {
        let lease =
            self.leases.entry(info.id).or_insert(Lease { ttl_seconds: 0, generation: 0, keys: BTreeSet::new() });
        lease.ttl_seconds = info.ttl_seconds;
        lease.generation = info.generation;
    }

    pub(crate) fn remove(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    pub(crate) fn attach(&mut self, key: Bytes, id: LeaseId) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    pub(crate) fn detach(&mut self, key: &[u8], id: LeaseId) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}
