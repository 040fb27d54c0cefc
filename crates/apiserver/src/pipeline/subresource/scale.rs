//! `autoscaling/v1 Scale`: reads and sets the replicas of any scalable kind.

use quorate_api::{FieldError, FieldPath, Revision, Status};
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::pipeline::modify::{Change, Current, modify};
use crate::pipeline::patch::Patch;
use crate::pipeline::update::transition;
use crate::pipeline::{Operation, Written};
use crate::{decode, encode, error, metadata};

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";

/// Returns the `Scale` of an object.
///
/// # Errors
/// `NotFound` for a kind that does not scale.
pub(crate) fn show(served: &Served, object: &Value, revision: Revision) -> Result<Value, Status> {
    let scale = served.descriptor.strategy.scale(object).ok_or_else(error::no_such_path)?;
    let mut shown = json!({
        "kind": KIND,
        "apiVersion": API_VERSION,
        "metadata": {
            "name": metadata::text(object, "name"),
            "namespace": metadata::text(object, "namespace"),
            "uid": metadata::text(object, "uid"),
            "creationTimestamp": metadata::text(object, "creationTimestamp"),
        },
        "spec": { "replicas": scale.spec_replicas },
        "status": { "replicas": scale.status_replicas, "selector": scale.selector },
    });
    encode::set_resource_version(&mut shown, revision);
    Ok(shown)
}

/// Sets the replicas from a `Scale`.
///
/// # Errors
/// A `Status` from any stage.
pub(crate) async fn update(operation: &Operation, mut scale: Value) -> Result<Written, Status> {
    decode::check_kind(&mut scale, API_VERSION, KIND)?;
    modify(operation, |current| set(operation, current, &scale)).await
}

/// Sets the replicas from a patch of the `Scale`.
///
/// # Errors
/// A `Status` from any stage.
pub(crate) async fn patch(operation: &Operation, patch: &Patch) -> Result<Written, Status> {
    modify(operation, |current| {
        let served = &operation.target.resource;
        let mut scale = show(served, &current.object, current.revision)?;
        match patch {
            // A Scale has no lists, so a strategic patch of it equals a merge patch.
            Patch::Strategic(patch) => quorate_api::patch::merge::apply(&mut scale, patch),
            patch => patch.apply(served, &mut scale)?,
        }
        decode::check_kind(&mut scale, API_VERSION, KIND)?;
        set(operation, current, &scale)
    })
    .await
}

fn set(operation: &Operation, current: &Current, scale: &Value) -> Result<Change, Status> {
    let path = FieldPath::new("spec").child("replicas");
    let replicas = &scale["spec"]["replicas"];
    let wanted = match replicas {
        Value::Null => 0,
        value => value
            .as_i64()
            .and_then(|n| i32::try_from(n).ok())
            .ok_or_else(|| Status::bad_request(format!("Scale cannot be handled: {path} is not an integer")))?,
    };
    if wanted < 0 {
        let error = FieldError::invalid(path, wanted, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", KIND, operation.target.name(), &[error]));
    }
    let mut new = current.object.clone();
    for field in ["resourceVersion", "uid"] {
        if let Some(value) = metadata::of(scale).get(field).filter(|v| v.as_str().is_some_and(|v| !v.is_empty())) {
            metadata::of_mut(&mut new).insert(field.to_owned(), value.clone());
        }
    }
    operation.target.resource.descriptor.strategy.set_scale(&mut new, wanted);
    transition(operation, current, new)
}
