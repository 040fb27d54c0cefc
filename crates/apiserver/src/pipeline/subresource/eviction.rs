//! `create` of a `policy/v1 Eviction`: a graceful deletion. Disruption budgets are not implemented yet.

use quorate_api::Status;
use serde_json::Value;

use crate::metadata;
use crate::pipeline::delete::{DeleteOptions, delete};
use crate::pipeline::{Operation, Written};
use crate::query::Query;

/// Deletes the target's object gracefully.
///
/// # Errors
/// Those of a deletion; `BadRequest` for another body.
pub(crate) async fn evict(operation: &mut Operation, mut eviction: Value) -> Result<Written, Status> {
    let named = metadata::text(&eviction, "name");
    if !named.is_empty() && named != operation.target.name() {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = DeleteOptions::parse(eviction["deleteOptions"].take(), &Query::default())?;
    operation.is_dry_run |= options.is_dry_run;
    delete(operation, &options).await
}
