//! Server-side apply: `PATCH` with a configuration, which becomes a part of the object.

use std::sync::Arc;

use quorate_api::{Cause, Reason, Status, StatusDetails, yaml};
use quorate_registry::Subresource;
use quorate_schema::apply::{self, Applied, Apply, Conflict, FieldSet, MAX_CONFLICTS, Managers};
use quorate_schema::{StrictError, cbor};
use serde_json::{Value, json};

use crate::decode::{self, Body, Expected, FieldValidation};
use crate::metadata;
use crate::pipeline::managed::ServedVersions;
use crate::pipeline::modify::{Change, Current};
use crate::pipeline::patch::ApplyFormat;
use crate::pipeline::update::{change, check_name, modify_or_create, successor};
use crate::pipeline::{Operation, Written, managed};
use crate::route::Target;

/// The manager that takes over the fields of its own client-side applies.
const KUBECTL: &str = "kubectl";
/// kubectl's annotation with the configuration of the last client-side apply.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A configuration in the shape of its kind.
struct Configuration {
    /// The decoded object, and the nulls of fields that it removes.
    object: Value,
    has_nulls: bool,
    force: bool,
}

/// Applies a configuration to an object, or to a part of it through a subresource. Creates an absent object.
///
/// # Errors
/// A `Status` from any stage; `Conflict` with a cause for each field that another manager has.
pub(crate) async fn apply(
    operation: &mut Operation,
    format: ApplyFormat,
    body: &[u8],
    force: bool,
) -> Result<Written, Status> {
    let document = document(format, body)?;
    let configuration = configuration(operation, document, force)?;
    let decide = |operation: &Operation, current: &Current| applied(operation, current, &configuration);
    let absent = |operation: &Operation, not_found| {
        if operation.target.subresource.is_some() {
            return Err(not_found);
        }
        match merged(operation, &json!({}), &Managers::default(), &configuration)? {
            Applied::Object(object, managers) => Ok((Body { object, strict_errors: Vec::new() }, Some(managers))),
            _ => Err(not_found),
        }
    };
    modify_or_create(operation, decide, absent).await
}

/// Parses the body, which is a whole or partial object.
fn document(format: ApplyFormat, body: &[u8]) -> Result<yaml::Document, Status> {
    let (name, parsed) = match format {
        ApplyFormat::Yaml => {
            let text = std::str::from_utf8(body).map_err(|error| error.to_string());
            ("YAML", text.and_then(|text| yaml::document(text).map_err(|error| error.to_string())))
        }
        ApplyFormat::Cbor => {
            let value = cbor::decode(body).map_err(|error| error.to_string());
            ("CBOR", value.map(|value| yaml::Document { value, duplicates: Vec::new() }))
        }
    };
    let malformed = |problem: &str| Status::bad_request(format!("error decoding {name}: {problem}"));
    let document = parsed.map_err(|error| malformed(&error))?;
    if !document.value.is_object() {
        return Err(malformed("the configuration is not an object"));
    }
    Ok(document)
}

/// Decodes the document into the shape of the kind.
fn configuration(operation: &mut Operation, document: yaml::Document, force: bool) -> Result<Configuration, Status> {
    let yaml::Document { value, duplicates } = document;
    report(operation, &duplicates)?;
    let served = Arc::clone(&operation.target.version);
    let mut object = value;
    if operation.target.subresource == Some(Subresource::Scale) {
        object = of_scale(operation, object)?;
    }
    let (api_version, kind) = (metadata::field(&object, "apiVersion"), metadata::field(&object, "kind"));
    if api_version != served.api_version || kind != served.descriptor.kind.kind {
        return Err(Status::bad_request(format!("invalid object type: {api_version}, Kind={kind}")));
    }
    if managed::of(&object).is_some_and(|managed_fields| !managed_fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    check_name(&operation.target, &object)?;
    let given = has_null(&object).then(|| object.clone());
    let decoded = served
        .descriptor
        .schema
        .decode(object)
        .map_err(|error| untyped(operation, &format!(".{}: {}", error.path, error.message)))?;
    let unknown = decoded.strict.iter().filter(|error| matches!(error, StrictError::Unknown(_)));
    let unknown: Vec<_> = unknown.map(|error| format!(".{}: field not declared in schema", error.path())).collect();
    match unknown.as_slice() {
        [] => {
            let mut object = decoded.object;
            let has_nulls = given.is_some_and(|given| restore_nulls(&given, &mut object));
            Ok(Configuration { object, has_nulls, force })
        }
        [one] => Err(untyped(operation, one)),
        many => Err(untyped(operation, &format!("errors:\n  {}", many.join("\n  ")))),
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

/// Puts the nulls of fields back into the decoded configuration; returns whether there are any. A null owns its field and
/// removes it, so a configuration can give up a default.
fn restore_nulls(given: &Value, decoded: &mut Value) -> bool {
    let mut is_found = false;
    match (given, decoded) {
        (Value::Object(given), Value::Object(decoded)) => {
            for (name, value) in given {
                match decoded.get_mut(name) {
                    Some(decoded) => is_found |= restore_nulls(value, decoded),
                    None if value.is_null() => {
                        decoded.insert(name.clone(), Value::Null);
                        is_found = true;
                    }
                    None => {}
                }
            }
        }
        (Value::Array(given), Value::Array(decoded)) => {
            for (given, decoded) in given.iter().zip(decoded) {
                is_found |= restore_nulls(given, decoded);
            }
        }
        _ => {}
    }
    is_found
}

/// Refuses duplicate keys, warns of them, or does nothing, as the request says.
fn report(operation: &mut Operation, duplicates: &[String]) -> Result<(), Status> {
    if duplicates.is_empty() || operation.validation == FieldValidation::Ignore {
        return Ok(());
    }
    let list = format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "));
    if operation.validation == FieldValidation::Strict {
        return Err(Status::bad_request(format!("error strict decoding YAML: {list}")));
    }
    operation.warnings.push(list);
    Ok(())
}

/// Returns the part of the object that a `Scale` sets.
fn of_scale(operation: &Operation, mut scale: Value) -> Result<Value, Status> {
    decode::check_kind(&mut scale, "autoscaling/v1", "Scale")?;
    let served = &operation.target.version;
    let mut object = json!({
        "apiVersion": served.api_version, "kind": served.descriptor.kind.kind,
        "metadata": { "name": metadata::text(&scale, "name") },
    });
    match &scale["spec"]["replicas"] {
        Value::Null => {}
        replicas => {
            let replicas = replicas
                .as_i64()
                .and_then(|replicas| i32::try_from(replicas).ok())
                .ok_or_else(|| untyped(operation, ".spec.replicas: the value is not an integer of 32 bits"))?;
            served.descriptor.strategy.set_scale(&mut object, replicas);
        }
    }
    Ok(object)
}

/// Returns Kubernetes' answer to a configuration that does not have the shape of its type.
fn untyped(operation: &Operation, why: &str) -> Status {
    let target = &operation.target;
    let kind = &target.version.descriptor.kind;
    let name = match &target.namespace {
        Some(namespace) => format!("{namespace}/{}", target.name()),
        None => format!("/{}", target.name()),
    };
    let message = format!(
        "failed to create typed patch object ({name}; {}, Kind={}): {why}",
        target.version.api_version, kind.kind
    );
    Status::new(Reason::Unknown, message)
}

/// Decides the change of an existing object.
fn applied(operation: &Operation, current: &Current, configuration: &Configuration) -> Result<Change, Status> {
    let Target { resource, version, .. } = &operation.target;
    let live = &current.object;
    let before = Managers::stored(current.managed_fields.as_ref());
    let (mut new, mut managers) = match merged(operation, &version.shown(live), &before, configuration)? {
        Applied::Object(object, managers) => (object, managers),
        Applied::Conflicts(conflicts) => return Err(conflict(conflicts)),
    };
    version.complete(&mut new);
    let mut new = successor(operation, current, new)?;
    if new == *live {
        managers.keep_times(&before);
    }
    managed::put(&mut new, current.managed_fields.as_ref().unwrap_or(&Value::Null), managers.into_json());
    Ok(change(resource, new, live))
}

/// Merges the configuration into an object of the request's version, which is empty if it does not exist.
fn merged(
    operation: &Operation,
    live: &Value,
    managers: &Managers,
    configuration: &Configuration,
) -> Result<Applied, Status> {
    const STATUS: &[&[&str]] = &[&["f:status"]];
    const ALL_BUT_STATUS: &[&[&str]] =
        &[&["f:spec"], &["f:metadata", "f:deletionTimestamp"], &["f:metadata", "f:ownerReferences"]];
    const ALL_BUT_APPROVAL: &[&[&str]] = &[&["f:spec"], &["f:status", "f:certificate"]];
    let subresources = &operation.target.resource.descriptor.subresources;
    let ignored = match operation.target.subresource {
        Some(Subresource::Status) => ALL_BUT_STATUS,
        Some(Subresource::Approval) => ALL_BUT_APPROVAL,
        _ if subresources.contains(&Subresource::Status) => STATUS,
        _ => &[],
    };
    let time = managed::now();
    let writer = managed::writer(operation, &time);
    let Configuration { object, has_nulls, force } = configuration;
    let version = &operation.target.version;
    let schema = version.descriptor.schema;
    let mut request = Apply { configuration: object, writer, ignored, force: *force, transferred: None };
    let run = |request: &Apply<'_>| {
        apply::apply(schema.model(), schema.ty(), &ServedVersions(operation), live, managers, request)
            .map_err(|errors| untyped(operation, &errors.to_string()))
    };
    let mut applied = run(&request)?;
    let is_kubectl = operation.manager.name == KUBECTL;
    if is_kubectl
        && matches!(applied, Applied::Conflicts(_))
        && let Some(fields) = last_applied(operation, live)
    {
        request.transferred = Some(&fields);
        applied = run(&request)?;
    }
    if let Applied::Object(new, _) = &mut applied {
        if is_kubectl {
            refresh_last_applied(new, object);
        }
        // Both parts of the merge were decoded, except for nulls.
        if *has_nulls {
            *new = Expected::served(version).decode_value(new.take())?.object;
        }
    }
    Ok(applied)
}

/// Returns the fields that kubectl's last client-side apply has set and nobody has changed since.
fn last_applied(operation: &Operation, live: &Value) -> Option<FieldSet> {
    let served = &operation.target.version;
    let schema = served.descriptor.schema;
    let annotation = live["metadata"]["annotations"].get(LAST_APPLIED)?.as_str()?;
    let last: Value = serde_json::from_str(annotation).ok()?;
    if metadata::field(&last, "apiVersion") != served.api_version {
        return None;
    }
    let last = schema.decode(last).ok()?.object;
    let mut fields = apply::extract(schema.model(), schema.ty(), &last).ok()?;
    let comparison = apply::compare(schema.model(), schema.ty(), &last, live);
    [&comparison.modified, &comparison.added, &comparison.removed].into_iter().for_each(|set| fields.subtract(set));
    Some(fields)
}

/// Keeps kubectl's annotation up to date on an object that has it, for a later client-side apply.
fn refresh_last_applied(object: &mut Value, configuration: &Value) {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotation) = annotations.and_then(|annotations| annotations.get_mut(LAST_APPLIED)) else { return };
    if annotation.as_str().is_none_or(str::is_empty) {
        return;
    }
    let mut last = configuration.clone();
    if let Some(annotations) = last["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = format!("{last}\n").into();
}

/// Returns the refusal of an apply that would take fields of other managers.
fn conflict(mut conflicts: Vec<Conflict>) -> Status {
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    let message = match conflicts.as_slice() {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path),
        many => {
            let mut lines = Vec::new();
            for conflicts in many.chunk_by(|a, b| a.manager == b.manager) {
                lines.extend(conflicts.first().map(|first| format!("conflicts with {}:", first.manager)));
                lines.extend(conflicts.iter().map(|conflict| format!("- {}", conflict.path)));
            }
            let at_least = if many.len() == MAX_CONFLICTS { "at least " } else { "" };
            format!("Apply failed with {at_least}{} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let cause = |conflict: Conflict| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path,
    };
    let causes = conflicts.into_iter().map(cause).collect();
    Status::new(Reason::Conflict, message).with_details(StatusDetails { causes, ..StatusDetails::default() })
}
