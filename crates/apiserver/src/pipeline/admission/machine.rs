//! The removal of a worker's machine row with its Node.

use quorate_api::{Revision, Status};
use quorate_store::Consistency;
use serde_json::Value;

use super::NODES;
use crate::join;
use crate::metadata;
use crate::pipeline::commit::{Effects, Guard, Write};
use crate::pipeline::{Operation, read};

/// Returns what the removal of a Node removes with it. A worker whose Node is removed can no longer renew its
/// certificates, because its machine row goes in the same transaction.
///
/// # Errors
/// Errors of the store.
pub(super) async fn removal(operation: &Operation, object: &Value) -> Result<Effects, Status> {
    if operation.target.resource.descriptor.resource != NODES {
        return Ok(Effects::default());
    }
    let row = join::machine_row(metadata::text(object, "name"));
    let found = read::key(operation.api.store(), &row, Consistency::Local).await?;
    // A machine may join at the same time, so an absent row has a guard too.
    let revision = found.as_ref().map_or(Revision::ZERO, |found| found.mod_revision);
    Ok(Effects {
        guards: vec![Guard { key: row.into(), revision }],
        writes: found.into_iter().map(|found| Write::Delete { key: found.key }).collect(),
        ..Effects::default()
    })
}
