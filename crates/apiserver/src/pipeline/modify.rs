//! Changes stored objects: read, decide, commit if the object has not changed since, otherwise start again.
//!
//! The first decision uses this member's own state, which costs no consensus round. Because this member may lag, a
//! refusal or a decision to change nothing is made again on fresh state.

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::KeyValue;
use quorate_store::Consistency;
use serde_json::Value;

use crate::encode;
use crate::pipeline::admission;
use crate::pipeline::allocate;
use crate::pipeline::commit::{Committed, Effects, Guard, Write, commit};
use crate::pipeline::{Effect, Operation, Written};
use crate::pipeline::{condition, managed, read};

/// Number of attempts when the object keeps changing under a write.
const MAX_ATTEMPTS: usize = 64;

/// The object as it is stored now.
pub(crate) struct Current {
    /// The object without its `resourceVersion` and its `managedFields`.
    pub object: Value,
    pub managed_fields: Option<Value>,
    pub encoded: Bytes,
    pub revision: Revision,
}

/// The change that a request makes to the current object. A new state without `managedFields` keeps those of the current
/// one; null removes them.
pub(crate) enum Change {
    Keep,
    Put(Value),
    /// Remove the object; the response shows this last state of it.
    Remove(Value),
}

/// Runs `decide` on the target's object and commits its change.
///
/// # Errors
/// The error of `decide` on the newest state; `NotFound`; errors of the store.
pub(crate) async fn modify(
    operation: &Operation,
    mut decide: impl FnMut(&Current) -> Result<Change, Status>,
) -> Result<Written, Status> {
    let (store, target) = (operation.api.store(), &operation.target);
    let conditions = condition::guards(operation).await?;
    let key = target.key();
    let mut found = read::key(store, &key, Consistency::Local).await?;
    let mut is_fresh = false;
    for _ in 0..MAX_ATTEMPTS {
        let decided = match found.take() {
            Some(kv) => {
                let current = decode(kv)?;
                let decided = match decide(&current) {
                    Ok(change) => admit(operation, change, &current, is_fresh).await,
                    Err(status) => Err(status),
                };
                decided.map(|(change, effects)| (change, effects, current))
            }
            None => Err(read::not_found(target)),
        };
        let (change, effects, current) = match decided {
            Ok((Change::Keep, ..)) | Err(_) if !is_fresh => {
                found = read::key(store, &key, Consistency::Linearizable).await?;
                is_fresh = true;
                continue;
            }
            decided => decided?,
        };
        let (object, effect) = match change {
            Change::Keep => {
                let Current { object, managed_fields, encoded, revision } = current;
                let object = managed::joined(object, managed_fields);
                return Ok(Written { object, encoded, revision, effect: Effect::Unchanged });
            }
            Change::Put(object) => (managed::joined(object, current.managed_fields), Effect::Written),
            Change::Remove(object) => (managed::joined(object, current.managed_fields), Effect::Removed),
        };
        let encoded = encode::stored(&target.resource, &object)?;
        if operation.is_dry_run {
            return Ok(Written { object, encoded, revision: current.revision, effect });
        }
        let key = Bytes::copy_from_slice(key.as_bytes());
        let write = match effect {
            Effect::Removed => Write::Delete { key: key.clone() },
            _ => Write::Put { key: key.clone(), value: encoded.clone() },
        };
        // The object's guard comes first, then those of the conditions.
        let guards = vec![Guard { key, revision: current.revision }];
        let mut all = Effects { guards, writes: vec![write], ..Effects::default() };
        all.guards.extend(conditions.iter().cloned());
        all.join(effects);
        match commit(store, &all).await? {
            Committed::Done(revision) => return Ok(Written { object, encoded, revision, effect }),
            Committed::Stale(now) => {
                condition::check(operation, &conditions, now.get(1..).unwrap_or_default())?;
                found = now.into_iter().next().flatten();
            }
        }
        is_fresh = true;
    }
    let why = "the object kept changing during the request; please try again";
    Err(Status::conflict(&target.resource.descriptor.resource, target.name(), why))
}

/// Runs the admit and allocate stages for a change of `current`.
async fn admit(
    operation: &Operation,
    change: Change,
    current: &Current,
    is_fresh: bool,
) -> Result<(Change, Effects), Status> {
    let new = match &change {
        Change::Keep => &current.object,
        Change::Put(object) | Change::Remove(object) => object,
    };
    let mut effects = admission::validate(operation, Some(&current.object), new).await?;
    if let Change::Remove(object) = &change {
        effects.join(admission::removal(operation, object).await?);
    }
    let (change, allocated) = allocate::change(operation, change, &current.object, is_fresh).await?;
    effects.join(allocated);
    Ok((change, effects))
}

fn decode(kv: KeyValue) -> Result<Current, Status> {
    let mut object = serde_json::from_slice(&kv.value)
        .map_err(|error| Status::internal(format!("a stored object cannot be decoded: {error}")))?;
    let managed_fields = managed::take(&mut object);
    Ok(Current { object, managed_fields, encoded: kv.value, revision: kv.mod_revision })
}
