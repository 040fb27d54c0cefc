//! Changing what is stored: read, decide, commit if it has not changed since, otherwise again.
//!
//! The first decision is made on this member's own state, which costs no round. Only what it would refuse or leave
//! alone on that state is decided again on fresh state, because this member may lag.

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
use crate::pipeline::{condition, read};

/// How often a write whose object keeps changing under it is decided anew.
const MAX_ATTEMPTS: usize = 64;

/// The object as it is stored now.
pub(crate) struct Current {
    /// Without its `resourceVersion`.
    pub object: Value,
    pub encoded: Bytes,
    pub revision: Revision,
}

/// What a request makes of the current object.
pub(crate) enum Change {
    Keep,
    Put(Value),
    /// Remove it; the object is what the client is told.
    Remove(Value),
}

/// Runs `decide` on the target's object and commits what it says.
///
/// # Errors
/// What `decide` says of the newest state; `NotFound`; what the store says.
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
                let Current { object, encoded, revision } = current;
                return Ok(Written { object, encoded, revision, effect: Effect::Unchanged });
            }
            Change::Put(object) => (object, Effect::Written),
            Change::Remove(object) => (object, Effect::Removed),
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
        let mut all = Effects { guards: vec![Guard { key, revision: current.revision }], writes: vec![write] };
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
    let why = "the object kept changing while the request was tried; please try again";
    Err(Status::conflict(&target.resource.descriptor.resource, target.name(), why))
}

/// admit → allocate, for a change of `current`.
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
    let mut effects = admission::admit(operation, Some(&current.object), new).await?;
    let (change, allocated) = allocate::change(operation, change, &current.object, is_fresh).await?;
    effects.join(allocated);
    Ok((change, effects))
}

fn decode(kv: KeyValue) -> Result<Current, Status> {
    let object = serde_json::from_slice(&kv.value)
        .map_err(|error| Status::internal(format!("a stored object cannot be decoded: {error}")))?;
    Ok(Current { object, encoded: kv.value, revision: kv.mod_revision })
}
