//! The `update` verb, and the stages that every change of an existing object passes.

use std::sync::Arc;

use quorate_api::{FieldError, Reason, Status, StatusDetails};
use quorate_registry::{Subresource, Verb};
use quorate_schema::apply::Managers;
use serde_json::Value;

use crate::catalog::Served;
use crate::decode::{self, Body, FieldValidation};
use crate::metadata;
use crate::pipeline::authorize::authorize;
use crate::pipeline::managed::FieldManager;
use crate::pipeline::modify::{Change, Current, modify};
use crate::pipeline::{Operation, Written, admission, allocate, create, managed, ratchet};
use crate::query::Query;
use crate::route::{Route, Target};

/// Kubernetes' message when the client's `resourceVersion` is not the current one.
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// Number of times that an update and a creation may each find that the other one is needed.
const MAX_TURNS: usize = 8;

/// Replaces an object, or a part of it through a subresource. Creates an absent object if its kind allows that.
///
/// # Errors
/// A `Status` from any stage; `NotFound` for an absent object of a kind that an update does not create; `Conflict`.
pub(crate) async fn update(operation: &mut Operation, body: Body) -> Result<Written, Status> {
    check_name(&operation.target, &body.object)?;
    let version = Arc::clone(&operation.target.version);
    let may_create = operation.target.subresource.is_none() && version.descriptor.creates_on_update;
    let given = may_create.then(|| Body { object: body.object.clone(), strict_errors: Vec::new() });
    decode::report_strict_errors(&version, operation.validation, body.strict_errors, &mut operation.warnings)?;
    let mut new = body.object;
    version.complete(&mut new);
    let decide = |operation: &Operation, current: &Current| transition(operation, current, new.clone());
    let absent = |_: &Operation, not_found| given.clone().map(|body| (body, None)).ok_or(not_found);
    modify_or_create(operation, decide, absent).await
}

/// Changes an object as `decide` says, or creates it as `absent` says when it is not there. `absent` gets the refusal for
/// an object that is not created, and returns the managers of one that an apply creates.
///
/// # Errors
/// Those of [`modify`] and [`create_absent`]; `Conflict` when the object comes and goes.
pub(crate) async fn modify_or_create(
    operation: &Operation,
    decide: impl Fn(&Operation, &Current) -> Result<Change, Status>,
    absent: impl Fn(&Operation, Status) -> Result<(Body, Option<Managers>), Status>,
) -> Result<Written, Status> {
    for _ in 0..MAX_TURNS {
        let not_found = match modify(operation, |current| decide(operation, current)).await {
            Err(status) if status.reason == Reason::NotFound => status,
            result => return result,
        };
        let (body, applied) = absent(operation, not_found)?;
        match create_absent(operation, body, applied).await {
            Err(status) if status.reason == Reason::AlreadyExists => {}
            result => return result,
        }
    }
    let why = "the object was created and deleted repeatedly during the request; please try again";
    Err(Status::conflict(&operation.target.resource.descriptor.resource, operation.target.name(), why))
}

/// Creates the object that an update or an apply did not find, if the user may create it. `applied` are the managers of
/// the object that an apply creates.
///
/// # Errors
/// A `Status` from any stage; `AlreadyExists`.
async fn create_absent(operation: &Operation, mut body: Body, applied: Option<Managers>) -> Result<Written, Status> {
    let target = Target { verb: Verb::Create, ..operation.target.clone() };
    authorize(&operation.api, &operation.user, &Route::Resource(target.clone()), &Query::default()).await?;
    let uid = metadata::text(&body.object, "uid");
    if !uid.is_empty() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
        return Err(Status::conflict(&target.resource.descriptor.resource, target.name(), &why));
    }
    metadata::of_mut(&mut body.object).remove("resourceVersion");
    // The update has already collected the warnings.
    let manager = FieldManager { applied, ..operation.manager.clone() };
    let mut creation = Operation { manager, validation: FieldValidation::Ignore, ..operation.at(target) };
    create::create(&mut creation, body).await
}

/// Checks that the body names the object that the path names.
pub(crate) fn check_name(target: &Target, body: &Value) -> Result<(), Status> {
    let given = metadata::text(body, "name");
    let wanted = target.name();
    if given.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({wanted})"
        )));
    }
    create::check_namespace(target.namespace.as_deref(), body)
}

/// Returns the change that replaces `current` by `new`, which is decoded and completed, and tracks who changed what.
///
/// # Errors
/// A `Status` from any stage.
pub(crate) fn transition(operation: &Operation, current: &Current, mut new: Value) -> Result<Change, Status> {
    let given = managed::take(&mut new);
    let mut new = successor(operation, current, new)?;
    managed::track_change(operation, current, &mut new, given.as_ref())?;
    Ok(change(&operation.target.resource, new, &current.object))
}

/// Runs precondition → mutate → fit → validate for `new` as the successor of `current`; `new` is decoded and completed.
///
/// # Errors
/// A `Status` from any stage.
pub(crate) fn successor(operation: &Operation, current: &Current, mut new: Value) -> Result<Value, Status> {
    let target = &operation.target;
    let served = &target.resource;
    let strategy = &served.descriptor.strategy;
    let old = &current.object;
    precondition(target, current, &new)?;
    metadata::carry_over(&mut new, old);
    match target.subresource.and_then(Subresource::change) {
        Some(change) => (change.prepare)(&served.descriptor, &mut new, old),
        None => {
            strategy.prepare_update(&mut new, old);
            allocate::fit(operation, &mut new, Some(old))?;
        }
    }
    admission::mutate_update(operation, &mut new, old);
    validate(target, &new, old)?;
    Ok(new)
}

/// Returns the change that stores the new object, or removes it if it is being deleted and has lost its last finalizer.
pub(crate) fn change(served: &Served, new: Value, old: &Value) -> Change {
    let is_released = metadata::is_terminating(old)
        && metadata::deletion_grace_seconds(old).unwrap_or_default() == 0
        && !is_held(served, &new);
    if is_released {
        Change::Remove(new)
    } else if new == *old {
        Change::Keep
    } else {
        Change::Put(new)
    }
}

/// Returns whether finalizers, or a rule of the kind, keep the object from being removed.
pub(crate) fn is_held(served: &Served, object: &Value) -> bool {
    !metadata::finalizers(object).is_empty() || served.descriptor.strategy.is_held(object)
}

/// Checks that the client's `resourceVersion` and uid, if given, are those of the object.
pub(crate) fn precondition(target: &Target, current: &Current, new: &Value) -> Result<(), Status> {
    let resource = &target.resource.descriptor.resource;
    let uid = metadata::text(new, "uid");
    let actual = metadata::text(&current.object, "uid");
    if !uid.is_empty() && uid != actual {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}");
        return Err(Status::conflict(resource, target.name(), &why));
    }
    let version = metadata::text(new, "resourceVersion");
    if !version.is_empty() && version != "0" && version != current.revision.to_string() {
        return Err(Status::conflict(resource, target.name(), MODIFIED));
    }
    Ok(())
}

fn validate(target: &Target, new: &Value, old: &Value) -> Result<(), Status> {
    let served = &target.resource;
    let mut errors = errors(target, new, old);
    if !errors.is_empty() {
        let mut before = old.clone();
        served.descriptor.default(&mut before);
        let known = self::errors(target, &before, &before);
        ratchet::drop_unchanged(&mut errors, new, known, &before);
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(served.invalid(metadata::text(new, "name"), &errors))
}

/// Returns the validation errors of `new` as the successor of `old`.
fn errors(target: &Target, new: &Value, old: &Value) -> Vec<FieldError> {
    let descriptor = &target.resource.descriptor;
    if let Some(change) = target.subresource.and_then(Subresource::change) {
        return descriptor.validate_change(change, new, old);
    }
    let mut errors = descriptor.validate_update(new, old);
    errors.extend(target.version.conversion().iter().flat_map(|version| (version.validate_update)(new, old)));
    errors
}

/// Returns a `Success` status with its details: the response to deletions and to creations of subresources.
pub(crate) fn success(code: u16, details: Option<StatusDetails>) -> Value {
    let mut status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code,
    });
    if let Some(details) = details {
        status["details"] = serde_json::json!(details);
    }
    status
}
