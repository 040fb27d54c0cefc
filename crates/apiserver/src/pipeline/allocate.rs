//! The fit and allocate stages: the items that an object takes from the cluster's pools are written, one key each, in
//! the transaction that writes the object.
//!
//! The guard on an item's key makes two objects that want the same item exclude each other, on whichever masters they
//! are written. An allocation changes only together with its object, so the two agree at every revision.

use std::collections::HashSet;

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::{KeyRange, KeyValue, RangeRequest};
use quorate_registry::pool::{Claim, Item, Pool, Pooled, Refusal, Unmet};
use quorate_store::{Consistency, Store};
use rand::seq::IteratorRandom;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::Served;
use crate::error;
use crate::metadata;
use crate::pipeline::commit::{Effects, Guard, Write};
use crate::pipeline::modify::Change;
use crate::pipeline::{Operation, read};

/// The prefix of allocation keys. They hold no API objects: the Kubernetes API neither lists nor watches them, and the
/// etcd API must not write them.
pub const ALLOCATIONS: &str = "/quorate/allocations/";
/// Number of items that are tried at random before all allocations are read.
const PROBES: usize = 8;

/// The holder of an item: the value of an allocation's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    /// The storage key of the object.
    pub object: String,
    pub uid: String,
}

impl Holder {
    pub fn new(served: &Served, object: &Value) -> Self {
        let namespace = Some(metadata::text(object, "namespace")).filter(|namespace| !namespace.is_empty());
        Holder {
            object: served.key(namespace, metadata::text(object, "name")),
            uid: metadata::text(object, "uid").to_owned(),
        }
    }

    /// # Errors
    /// When the holder cannot be encoded.
    pub fn encode(&self) -> Result<Bytes, Status> {
        serde_json::to_vec(self).map(Bytes::from).map_err(Status::internal)
    }

    /// Returns `None` for a value of another shape, which belongs to no object.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

/// Returns the key of an item's allocation.
pub(crate) fn key(item: Item) -> String {
    match item {
        Item::Address(address) => format!("{ALLOCATIONS}addresses/{address}"),
        Item::Port(port) => format!("{ALLOCATIONS}ports/{port}"),
    }
}

/// Returns the item that an allocation's key names.
pub(crate) fn item(key: &[u8]) -> Option<Item> {
    let (kind, text) = std::str::from_utf8(key).ok()?.strip_prefix(ALLOCATIONS)?.split_once('/')?;
    match kind {
        "addresses" => text.parse().ok().map(Item::Address),
        "ports" => text.parse().ok().map(Item::Port),
        _ => None,
    }
}

/// Fills in the fields that depend on the cluster's pools, before the object is validated.
///
/// # Errors
/// `Invalid` when the object asks for something that the cluster does not have.
pub(crate) fn fit(operation: &Operation, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    let served = &operation.target.resource;
    let Some(pooled) = served.descriptor.strategy.pooled() else { return Ok(()) };
    let errors = pooled.fit(object, old, operation.api.pools());
    if errors.is_empty() {
        return Ok(());
    }
    Err(served.invalid(metadata::text(object, "name"), &errors))
}

/// Allocates the items that a new object claims. Returns the object with its items, or `None` if it claims nothing.
///
/// # Errors
/// `Invalid` for an item that is taken, `InternalError` when the pool is full; errors of the store.
pub(crate) async fn creation(
    operation: &Operation,
    object: &Value,
    is_fresh: bool,
) -> Result<(Option<Value>, Effects), Status> {
    let Some(pooled) = operation.target.resource.descriptor.strategy.pooled() else {
        return Ok((None, Effects::default()));
    };
    Allocator { operation, pooled, is_fresh }.allocate(object, None).await
}

/// Allocates the items that a change of `old` claims, and releases those that it gives up.
///
/// # Errors
/// As [`creation`].
pub(crate) async fn change(
    operation: &Operation,
    change: Change,
    old: &Value,
    is_fresh: bool,
) -> Result<(Change, Effects), Status> {
    let Some(pooled) = operation.target.resource.descriptor.strategy.pooled() else {
        return Ok((change, Effects::default()));
    };
    let allocator = Allocator { operation, pooled, is_fresh };
    if let Change::Remove(object) = change {
        let effects = allocator.release(old, &[]).await?;
        return Ok((Change::Remove(object), effects));
    }
    if operation.target.subresource.is_some() {
        return Ok((change, Effects::default()));
    }
    let new = if let Change::Put(object) = &change { object } else { old };
    let (allocated, mut effects) = allocator.allocate(new, Some(old)).await?;
    effects.join(allocator.release(old, &pooled.holds(new)).await?);
    Ok((allocated.map_or(change, Change::Put), effects))
}

struct Allocator<'a> {
    operation: &'a Operation,
    pooled: &'a dyn Pooled,
    /// This member has applied every write that the request may depend on, so an item that is taken here is taken.
    is_fresh: bool,
}

impl Allocator<'_> {
    fn store(&self) -> &Store {
        self.operation.api.store()
    }

    async fn allocate(&self, object: &Value, old: Option<&Value>) -> Result<(Option<Value>, Effects), Status> {
        let claims = self.pooled.claims(object, old);
        if claims.is_empty() {
            return Ok((None, Effects::default()));
        }
        let value = Holder::new(&self.operation.target.resource, object).encode()?;
        let (mut effects, mut taken, mut allocated) = (Effects::default(), HashSet::new(), object.clone());
        // Claims of a particular item come first, so that none of these items is drawn for another claim.
        let (wanted, any): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.wanted.is_some());
        for claim in wanted.into_iter().chain(any) {
            let found = match claim.wanted {
                Some(item) => {
                    if !taken.contains(&item) && self.is_free(item).await? {
                        Ok(item)
                    } else {
                        Err(Unmet::Taken)
                    }
                }
                None => self.draw(claim, &taken).await?.ok_or(Unmet::Full),
            };
            let item = found.map_err(|unmet| self.refuse(object, claim, unmet))?;
            taken.insert(item);
            self.pooled.assign(&mut allocated, claim, item);
            let key = Bytes::from(key(item));
            effects.guards.push(Guard { key: key.clone(), revision: Revision::ZERO });
            effects.writes.push(Write::Put { key, value: value.clone() });
        }
        Ok((Some(allocated), effects))
    }

    /// Releases the items of `old` that are not in `kept` and whose allocation names this object.
    async fn release(&self, old: &Value, kept: &[Item]) -> Result<Effects, Status> {
        let holder = Holder::new(&self.operation.target.resource, old);
        let mut effects = Effects::default();
        for item in self.pooled.holds(old).into_iter().filter(|item| !kept.contains(item)) {
            let Some(kv) = read::key(self.store(), &key(item), Consistency::Local).await? else { continue };
            if Holder::decode(&kv.value).as_ref() == Some(&holder) {
                effects.guards.push(Guard { key: kv.key.clone(), revision: kv.mod_revision });
                effects.writes.push(Write::Delete { key: kv.key });
            }
        }
        Ok(effects)
    }

    /// Returns whether the item is free. If this member may lag, an item that is taken here is read again linearizably.
    async fn is_free(&self, item: Item) -> Result<bool, Status> {
        if read::key(self.store(), &key(item), Consistency::Local).await?.is_none() {
            return Ok(true);
        }
        if self.is_fresh {
            return Ok(false);
        }
        Ok(read::key(self.store(), &key(item), Consistency::Linearizable).await?.is_none())
    }

    /// Draws a free item at random, if there is one. The reserved part of the pool is used only when the rest is taken.
    async fn draw(&self, claim: &Claim, taken: &HashSet<Item>) -> Result<Option<Item>, Status> {
        let Some(pool) = self.operation.api.pools().pool(claim.pool) else { return Ok(None) };
        let (reserved, size) = (pool.reserved(), pool.size());
        for _ in 0..PROBES {
            let item = pool.nth(rand::random_range(reserved..size));
            if !taken.contains(&item) && read::key(self.store(), &key(item), Consistency::Local).await?.is_none() {
                return Ok(Some(item));
            }
        }
        for consistency in [Consistency::Local, Consistency::Linearizable] {
            let held = self.held(consistency).await?;
            let is_free = |item: &Item| !held.contains(item) && !taken.contains(item);
            let free = |range: std::ops::Range<u64>| pick(&pool, range, is_free);
            if let Some(item) = free(reserved..size).or_else(|| free(0..reserved)) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    async fn held(&self, consistency: Consistency) -> Result<HashSet<Item>, Status> {
        let rows = rows(self.store(), Revision::ZERO, consistency).await?;
        Ok(rows.iter().filter_map(|kv| item(&kv.key)).collect())
    }

    fn refuse(&self, object: &Value, claim: &Claim, unmet: Unmet) -> Status {
        let served = &self.operation.target.resource;
        match self.pooled.refusal(object, claim, unmet) {
            Refusal::Invalid(error) => served.invalid(metadata::text(object, "name"), &[error]),
            Refusal::Internal(message) => Status::internal(message),
        }
    }
}

fn pick(pool: &Pool, range: std::ops::Range<u64>, is_free: impl Fn(&Item) -> bool) -> Option<Item> {
    range.map(|index| pool.nth(index)).filter(is_free).choose(&mut rand::rng())
}

/// Returns all allocations at a revision; zero stands for the newest.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn rows(store: &Store, at: Revision, consistency: Consistency) -> Result<Vec<KeyValue>, Status> {
    let request = RangeRequest::new(KeyRange::prefix(ALLOCATIONS)).at(at);
    let response = store.range(&request, consistency).await.map_err(|e| error::from_store(&e))?;
    Ok(response.kvs)
}
