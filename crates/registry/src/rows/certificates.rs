//! Certificate signing requests: who may change which part of one.

use std::collections::BTreeMap;

use quorate_api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::{Row, row};
use crate::subresource::Subresource;
use crate::table::{Cell, NONE, printed, printed_age, printed_name};
use crate::value::{at, carry_over, child, equal, items, text};

/// The decisions about a request. Only its `approval` subresource sets them.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Conditions that cannot be removed and whose status must be True.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("certificates.k8s.io", "CertificateSigningRequest", "certificatesigningrequests")
            .short(&["csr"])
            .cluster()
            .status()
            .subresources(&[Subresource::Approval, Subresource::Status])
            .prepare_update(|new, old| carry_over(new, old, "spec"))
            .prepare_status_update(keep_decisions)
            .named_by(super::rbac::path_segment)
            .validate(signing_request)
            .validate_status_update(|new, old, errors| {
                signing_request(new, errors);
                changed_conditions(new, old, &DECISIONS, errors);
                let (new, old) = (at(new, "status.certificate"), at(old, "status.certificate"));
                if !old.is_null() && !equal(new, old) {
                    let path = FieldPath::new("status").child("certificate");
                    errors.push(FieldError::forbidden(path, "updates may not modify existing certificate content"));
                }
            })
            .selectable(&[("spec.signerName", "spec.signerName")])
            .columns(vec![
                printed_name(),
                printed_age(),
                printed("SignerName", Cell::FieldOr("spec.signerName", NONE)),
                printed("Requestor", Cell::Field("spec.username")),
                printed("RequestedDuration", Cell::FieldOr("spec.expirationSeconds", NONE)),
                printed("Condition", Cell::Of(shown_condition)),
            ]),
    ]
}

/// Carries over everything that `approval` does not change: all but the conditions and the metadata.
pub(crate) fn keep_only_approval(new: &mut Value, old: &Value) {
    let conditions = new.pointer_mut("/status/conditions").map(Value::take);
    carry_over(new, old, "spec");
    carry_over(new, old, "status");
    match conditions {
        Some(conditions) => child(new, "status")["conditions"] = conditions,
        None => {
            new.get_mut("status").and_then(Value::as_object_mut).map(|status| status.remove("conditions"));
        }
    }
}

/// Checks the conditions after an update through `approval`.
pub(crate) fn validate_approval(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    changed_conditions(new, old, &[], &mut errors);
    errors
}

/// Restores the decisions of `old` that an update of the status has changed or left out.
fn keep_decisions(new: &mut Value, old: &Value) {
    let is_decision = |condition: &&Value| DECISIONS.contains(&text(&condition["type"]));
    let decided: Vec<Value> = items(at(old, "status.conditions")).iter().filter(is_decision).cloned().collect();
    for decision in decided {
        let conditions = &mut child(new, "status")["conditions"];
        match conditions.as_array_mut() {
            None => *conditions = json!([decision]),
            Some(list) => match list.iter_mut().find(|condition| condition["type"] == decision["type"]) {
                Some(condition) => *condition = decision,
                None => list.push(decision),
            },
        }
    }
}

fn conditions_path() -> FieldPath {
    FieldPath::new("status").child("conditions")
}

/// Checks that no final condition went away, and that none of `kept` was added.
fn changed_conditions(new: &Value, old: &Value, kept: &[&str], errors: &mut Vec<FieldError>) {
    let has = |object: &Value, kind: &str| {
        items(at(object, "status.conditions")).iter().any(|condition| text(&condition["type"]) == kind)
    };
    for kind in FINAL {
        if has(old, kind) && !has(new, kind) {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.push(FieldError::forbidden(conditions_path(), detail));
        }
        if !has(old, kind) && has(new, kind) && kept.contains(&kind) {
            let detail = format!("updates may not add a condition of type {kind:?}");
            errors.push(FieldError::forbidden(conditions_path(), detail));
        }
    }
}

fn signing_request(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    if items(&spec["usages"]).is_empty() {
        errors.push(FieldError::required(path.child("usages"), ""));
    }
    let signer = text(&spec["signerName"]);
    if signer.is_empty() {
        errors.push(FieldError::required(path.child("signerName"), ""));
    } else if !signer.contains('/') {
        let detail = "must be a fully qualified domain and path of the form \"example.com/signer-name\"";
        errors.push(FieldError::invalid(path.child("signerName"), signer, detail));
    }
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, detail));
    }
    conditions(object, errors);
}

fn conditions(object: &Value, errors: &mut Vec<FieldError>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, condition) in items(at(object, "status.conditions")).iter().enumerate() {
        let path = conditions_path().index(index);
        let (kind, status) = (text(&condition["type"]), text(&condition["status"]));
        if kind.is_empty() {
            errors.push(FieldError::required(path.child("type"), ""));
        }
        if status.is_empty() {
            errors.push(FieldError::required(path.child("status"), ""));
        } else if FINAL.contains(&kind) && status != "True" {
            errors.push(FieldError::not_supported(path.child("status"), status, &["True"]));
        } else if !matches!(status, "True" | "False" | "Unknown") {
            errors.push(FieldError::not_supported(path.child("status"), status, &["False", "True", "Unknown"]));
        }
        if seen.insert(kind, index).is_some() {
            errors.push(FieldError::duplicate(path.child("type"), kind));
        }
    }
    if let (Some(approved), Some(denied)) = (seen.get("Approved"), seen.get("Denied")) {
        let (later, kind) = if approved > denied { (approved, "Approved") } else { (denied, "Denied") };
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(conditions_path().index(*later).child("type"), kind, detail));
    }
}

fn shown_condition(object: &Value) -> Value {
    let conditions = items(at(object, "status.conditions"));
    let mut shown: Vec<&str> = conditions.iter().map(|condition| text(&condition["type"])).collect();
    if shown.is_empty() {
        shown.push("Pending");
    }
    if at(object, "status.certificate").is_string() {
        shown.push("Issued");
    }
    shown.join(",").into()
}
