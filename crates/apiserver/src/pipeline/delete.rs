//! The `delete` verb: at once, after a grace period, or when the last finalizer is removed.

use jiff::{SignedDuration, Timestamp};
use quorate_api::{FieldError, FieldPath, Status, StatusDetails};
use quorate_registry::Deletion;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::decode::Expected;
use crate::metadata;
use crate::pipeline::modify::{Change, Current, modify};
use crate::pipeline::update::{is_held, success};
use crate::pipeline::{Effect, Operation, Written};
use crate::query::Query;
use crate::route::Target;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The treatment of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `meta/v1 DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub is_dry_run: bool,
}

impl DeleteOptions {
    /// Reads the options from the body, and from the query where the body leaves them out.
    ///
    /// # Errors
    /// `BadRequest` for a body of another kind, `Invalid` for unknown values.
    pub fn parse(mut body: Value, query: &Query) -> Result<Self, Status> {
        if body.is_null() {
            body = json!({});
        }
        check_options_kind(&body)?;
        let text = |field: &str| body[field].as_str().or_else(|| query.get(field)).filter(|t| !t.is_empty());
        let grace_seconds = match &body["gracePeriodSeconds"] {
            Value::Null => query.number("gracePeriodSeconds")?,
            value => Some(value.as_i64().ok_or_else(|| {
                Status::bad_request("DeleteOptions cannot be handled: gracePeriodSeconds is not an integer")
            })?),
        };
        let orphan = body["orphanDependents"].as_bool().or_else(|| query.get("orphanDependents").map(|v| v == "true"));
        let propagation = propagation(text("propagationPolicy"), orphan)?;
        let precondition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        let mut dry_run: Vec<&str> = metadata::strings(body.get("dryRun"));
        dry_run.extend(query.all("dryRun"));
        Ok(DeleteOptions {
            grace_seconds,
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            is_dry_run: is_dry_run(&dry_run)?,
        })
    }
}

/// Returns whether the request is a dry run; `All` is the only accepted value.
///
/// # Errors
/// `Invalid` for another value.
pub(crate) fn is_dry_run(values: &[&str]) -> Result<bool, Status> {
    if let Some(other) = values.iter().find(|v| **v != "All") {
        let error = FieldError::not_supported(FieldPath::new("dryRun"), [other], &["All"]);
        return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &[error]));
    }
    Ok(!values.is_empty())
}

fn check_options_kind(body: &Value) -> Result<(), Status> {
    match body["kind"].as_str() {
        None | Some("" | "DeleteOptions") if body.is_object() => Ok(()),
        kind => Err(Status::bad_request(format!(
            "{} cannot be handled as a DeleteOptions: the object is of another kind",
            kind.unwrap_or("the body")
        ))),
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    let invalid = |error| Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
    let path = FieldPath::new("propagationPolicy");
    match (policy, orphan) {
        (Some(policy), Some(_)) => {
            invalid(FieldError::invalid(path, policy, "orphanDependents and deletionPropagation cannot be both set"))
        }
        (Some("Background"), None) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some(other), None) => invalid(FieldError::not_supported(path, other, &["Background", "Foreground", "Orphan"])),
        (None, None) => Ok(None),
    }
}

/// Deletes the target's object, or marks it as being deleted.
///
/// # Errors
/// `NotFound`, `Conflict` when a precondition fails, `Forbidden` by admission.
pub(crate) async fn delete(operation: &Operation, options: &DeleteOptions) -> Result<Written, Status> {
    let now = Timestamp::now();
    modify(operation, |current| {
        precondition(&operation.target, current, options)?;
        Ok(decide(&operation.target.resource, &current.object, options, now))
    })
    .await
}

fn precondition(target: &Target, current: &Current, options: &DeleteOptions) -> Result<(), Status> {
    let resource = &target.resource.descriptor.resource;
    let uid = metadata::text(&current.object, "uid");
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(Status::conflict(resource, target.name(), &why));
    }
    let version = current.revision.to_string();
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        );
        return Err(Status::conflict(resource, target.name(), &why));
    }
    Ok(())
}

fn decide(served: &Served, old: &Value, options: &DeleteOptions, now: Timestamp) -> Change {
    let mut object = old.clone();
    propagate(&mut object, options.propagation);
    let is_held = is_held(served, &object);
    if metadata::is_terminating(old) {
        shorten(&mut object, options.grace_seconds);
    } else {
        let grace = match served.descriptor.strategy.deletion(&object, options.grace_seconds) {
            Deletion::Immediate => 0,
            Deletion::Graceful { seconds } => seconds.max(0),
        };
        if grace == 0 && !is_held {
            return Change::Remove(object);
        }
        mark(served, &mut object, now, grace);
    }
    if metadata::deletion_grace_seconds(&object).unwrap_or_default() == 0 && !is_held {
        Change::Remove(object)
    } else if object == *old {
        Change::Keep
    } else {
        Change::Put(object)
    }
}

/// Sets the finalizers that tell the garbage collector how to treat the dependents.
fn propagate(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<String> = metadata::finalizers(object)
        .into_iter()
        .filter(|finalizer| ![ORPHAN, FOREGROUND].contains(finalizer))
        .map(str::to_owned)
        .collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
    }
    if finalizers.is_empty() {
        metadata::of_mut(object).remove("finalizers");
    } else {
        metadata::of_mut(object).insert("finalizers".to_owned(), json!(finalizers));
    }
}

fn mark(served: &Served, object: &mut Value, now: Timestamp, grace_seconds: i64) {
    let metadata = metadata::of_mut(object);
    let at = now.saturating_add(SignedDuration::from_secs(grace_seconds)).unwrap_or(now);
    metadata.insert("deletionTimestamp".to_owned(), metadata::time(at).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace_seconds.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    served.descriptor.strategy.prepare_delete(object);
}

/// Shortens a running grace period; it never gets longer.
fn shorten(object: &mut Value, requested_seconds: Option<i64>) {
    let running = metadata::deletion_grace_seconds(object).unwrap_or_default();
    let Some(requested) = requested_seconds.map(|s| s.max(0)).filter(|s| *s < running) else { return };
    let ends = metadata::text(object, "deletionTimestamp").parse::<Timestamp>();
    let metadata = metadata::of_mut(object);
    if let Ok(ends) = ends {
        let at = ends.saturating_sub(SignedDuration::from_secs(running - requested)).unwrap_or(ends);
        metadata.insert("deletionTimestamp".to_owned(), metadata::time(at).into());
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), requested.into());
}

/// The response to a deletion: the object while it still exists or if its kind returns the last state, otherwise a
/// `Success` status.
pub(crate) enum DeleteResponse {
    Object(Written),
    Success(Value),
}

pub(crate) fn delete_response(served: &Served, written: Written) -> DeleteResponse {
    if written.effect != Effect::Removed || served.descriptor.returns_deleted {
        return DeleteResponse::Object(written);
    }
    let resource = &served.descriptor.resource;
    let details = StatusDetails {
        name: metadata::text(&written.object, "name").to_owned(),
        group: resource.group.to_string(),
        kind: resource.resource.to_string(),
        uid: metadata::text(&written.object, "uid").to_owned(),
        ..StatusDetails::default()
    };
    DeleteResponse::Success(success(200, Some(details)))
}

/// Parses the options of a request's body.
///
/// # Errors
/// As [`DeleteOptions::parse`].
pub(crate) fn options(headers: &http::HeaderMap, body: &[u8], query: &Query) -> Result<DeleteOptions, Status> {
    let body = if body.is_empty() {
        Value::Null
    } else {
        Expected::of_every_version("DeleteOptions")?.decode(headers, body)?.object
    };
    DeleteOptions::parse(body, query)
}
