//! The permissions that a user needs to set owner references (upstream's OwnerReferencesPermissionEnforcement). An owner
//! reference lets the garbage collector delete the object, so it needs the permission to delete. `blockOwnerDeletion` delays the deletion of the
//! owner, so it needs the permission to set the owner's finalizers.

use quorate_api::Status;
use quorate_registry::{Subresource, Verb};
use serde_json::Value;

use super::{Action, Attributes, PODS};
use crate::metadata;
use crate::pipeline::authorize::authorize;
use crate::query::Query;
use crate::route::{Route, Target};
use crate::user::MASTERS;

/// Refuses owner references that the user may not set.
///
/// # Errors
/// `Forbidden`; errors of the store.
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let operation = attributes.operation;
    if attributes.action == Action::Delete || operation.user.is_in(MASTERS) {
        return Ok(());
    }
    // A status write of a pod does not change its owners.
    if *attributes.resource() == PODS && attributes.subresource() == Some(Subresource::Status) {
        return Ok(());
    }
    let before = attributes.old.map(owners).unwrap_or_default();
    let owners = owners(attributes.new);
    if owners == before {
        return Ok(());
    }
    let name = Some(attributes.name().to_owned());
    let deletion = Target { verb: Verb::Delete, name, subresource: None, ..operation.target.clone() };
    let route = Route::Resource(deletion);
    if let Err(status) = authorize(&operation.api, &operation.user, &route, &Query::default()).await {
        let why = format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", status.message);
        return Err(attributes.refuse(&why));
    }
    let blocks = |owner: &Value| owner["blockOwnerDeletion"] == true;
    let did_block = |owner: &Value| before.iter().any(|old| old["uid"] == owner["uid"] && blocks(old));
    // Only administrators may set the finalizers of other objects, and they have passed already.
    if owners.iter().any(|owner| blocks(owner) && !did_block(owner)) {
        let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
        return Err(attributes.refuse(why));
    }
    Ok(())
}

fn owners(object: &Value) -> &[Value] {
    metadata::of(object).get("ownerReferences").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
