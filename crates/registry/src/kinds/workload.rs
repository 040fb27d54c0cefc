//! The common part of Deployments and ReplicaSets: a replica count, a selector, and a template that the selector must
//! match.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use quorate_api::{FieldError, FieldPath, LabelSelector};
use serde_json::Value;

use crate::check;
use crate::metadata;
use crate::pod_template::{self, TemplateOwner};
use crate::strategy::Scale;
use crate::table::selector_text;
use crate::value::{child, int};

/// Returns the owner of a template whose pods run until they are deleted.
pub const fn long_running(kind: &'static str) -> TemplateOwner {
    TemplateOwner { kind, restart_policies: &["Always"], allows_deadline: false }
}

/// Returns the owner of a template whose pods end.
pub const fn finite(kind: &'static str) -> TemplateOwner {
    TemplateOwner { kind, restart_policies: &["Never", "OnFailure"], allows_deadline: true }
}

/// Returns the owner of a template that others use.
pub const fn any_policy(kind: &'static str) -> TemplateOwner {
    TemplateOwner { kind, restart_policies: &["Always", "Never", "OnFailure"], allows_deadline: true }
}

/// Checks the replicas, selector and template of a workload's spec.
pub fn validate(
    owner: &TemplateOwner,
    replicas: Option<i32>,
    selector: &meta::LabelSelector,
    template: &PodTemplateSpec,
    errors: &mut Vec<FieldError>,
) {
    let path = FieldPath::new("spec");
    if let Some(replicas) = replicas {
        check::non_negative(replicas, path.child("replicas"), errors);
    }
    let at = path.child("selector");
    let empty = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    if empty {
        errors.push(FieldError::required(at.clone(), ""));
    }
    metadata::labels(selector.match_labels.iter().flatten(), &at.child("matchLabels"), errors);
    let no_labels = BTreeMap::new();
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref()).unwrap_or(&no_labels);
    match LabelSelector::from_object(selector) {
        Err(error) => errors.push(FieldError::invalid(at, selector, error.to_string())),
        Ok(parsed) if empty || !parsed.matches(labels) => {
            let path = path.child("template").child("metadata").child("labels");
            errors.push(FieldError::invalid(path, labels, "`selector` does not match template `labels`"));
        }
        Ok(_) => {}
    }
    pod_template::validate_template(template, owner, &path.child("template"), errors);
}

/// Checks that the selector did not change, because it determines which pods belong to the workload.
pub fn immutable_selector(new: &meta::LabelSelector, old: &meta::LabelSelector) -> Vec<FieldError> {
    if new == old {
        return Vec::new();
    }
    vec![FieldError::invalid(FieldPath::new("spec").child("selector"), new, check::IMMUTABLE)]
}

pub fn scale(object: &Value) -> Option<Scale> {
    let count = |value: &Value| i32::try_from(int(value)).unwrap_or(i32::MAX);
    Some(Scale {
        spec_replicas: count(&object["spec"]["replicas"]),
        status_replicas: count(&object["status"]["replicas"]),
        selector: selector_text(&object["spec"]["selector"]),
    })
}

pub fn set_scale(object: &mut Value, replicas: i32) {
    child(object, "spec")["replicas"] = Value::from(replicas);
}
