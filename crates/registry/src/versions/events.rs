//! `events.k8s.io/v1 Event`: the fields of `v1 Event` under other names, and stricter rules for new events.

use quorate_api::{FieldError, FieldPath};
use serde_json::Value;

use super::{Version, relocate};
use crate::check;
use crate::value::{equal, int, text};

/// Fields of `events.k8s.io/v1` and of `v1`. The others have the same name in both.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// `Event` of `events.k8s.io/v1`, stored as `v1`.
pub const EVENTS_V1: &[Version] = &[Version {
    selectable: &[
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reason", "reason"),
        ("reportingController", "reportingComponent"),
        ("type", "type"),
    ],
    validate_create,
    validate_update,
    ..Version::new("events.k8s.io", "v1", "Event", to_stored, from_stored)
}];

fn to_stored(event: &mut Value) {
    NAMES.iter().for_each(|(name, stored)| relocate(event, name, stored));
}

fn from_stored(event: &mut Value) {
    NAMES.iter().for_each(|(name, stored)| relocate(event, stored, name));
}

// The rules of Kubernetes' `ValidateEventCreate`, whose errors name the fields of its internal version.
fn validate_create(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    series(event, &mut errors);
    if text(&event["eventTime"]).is_empty() {
        errors.push(FieldError::required(FieldPath::new("eventTime"), ""));
    }
    let kind = text(&event["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(FieldError::invalid(FieldPath::new("type"), "", format!("has invalid value: {kind}")));
    }
    let is_set = [
        ("firstTimestamp", !event["firstTimestamp"].is_null()),
        ("lastTimestamp", !event["lastTimestamp"].is_null()),
        ("count", int(&event["count"]) != 0),
        ("source", ["component", "host"].iter().any(|field| !text(&event["source"][field]).is_empty())),
    ];
    for (field, _) in is_set.iter().filter(|(_, is_set)| *is_set) {
        errors.push(FieldError::invalid(FieldPath::new(field), "", "needs to be unset"));
    }
    errors
}

// Only the series of an event changes.
fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    const IMMUTABLE: [&str; 13] = [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ];
    let mut errors = Vec::new();
    if !equal(&new["series"], &old["series"]) {
        series(new, &mut errors);
    }
    for field in IMMUTABLE {
        if !equal(&new[field], &old[field]) {
            let shown = if field == "reportingComponent" { "reportingController" } else { field };
            errors.push(FieldError::invalid(FieldPath::new(shown), &new[field], check::IMMUTABLE));
        }
    }
    errors
}

fn series(event: &Value, errors: &mut Vec<FieldError>) {
    let series = &event["series"];
    if series.is_null() {
        return;
    }
    let path = FieldPath::new("series");
    if int(&series["count"]) < 2 {
        errors.push(FieldError::invalid(path.child("count"), "", "should be at least 2"));
    }
    if text(&series["lastObservedTime"]).is_empty() {
        errors.push(FieldError::required(path.child("lastObservedTime"), ""));
    }
}
