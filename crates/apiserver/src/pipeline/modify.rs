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
use crate::pipeline::commit::{Committed, Guard, Write, commit};
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
                decide(&current).map(|change| (change, current))
            }
            None => Err(read::not_found(target)),
        };
        let (change, current) = match decided {
            Ok((Change::Keep, _)) | Err(_) if !is_fresh => {
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
        let own = Guard { key: Bytes::copy_from_slice(key.as_bytes()), revision: current.revision };
        let guards: Vec<Guard> = std::iter::once(own).chain(conditions.iter().cloned()).collect();
        let write = if effect == Effect::Removed { Write::Delete } else { Write::Put(encoded.clone()) };
        match commit(store, &guards, &write).await? {
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

fn decode(kv: KeyValue) -> Result<Current, Status> {
    let object = serde_json::from_slice(&kv.value)
        .map_err(|error| Status::internal(format!("a stored object cannot be decoded: {error}")))?;
    Ok(Current { object, encoded: kv.value, revision: kv.mod_revision })
}
