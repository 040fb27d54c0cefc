//! The virtual kinds: questions about users and permissions, and the old form of a pod's binding. The pipeline answers
//! them, and nothing is stored.

use quorate_api::{FieldError, FieldPath};
use serde_json::Value;

use super::{Row, row};
use crate::descriptor::{Answer, Review};
use crate::value::{items, text};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

pub(super) fn rows() -> Vec<Row> {
    let authentication = |kind, resource| row(AUTHENTICATION, kind, resource).cluster();
    let authorization = |kind, resource| row(AUTHORIZATION, kind, resource);
    vec![
        row("", "Binding", "bindings").answer(Answer::Binding),
        authentication("SelfSubjectReview", "selfsubjectreviews").answer(Answer::Review(Review::SelfSubject)),
        authentication("TokenReview", "tokenreviews").answer(Answer::Review(Review::Token)),
        authorization("LocalSubjectAccessReview", "localsubjectaccessreviews")
            .answer(Answer::Review(Review::SubjectAccess))
            .validate(|object, errors| {
                subject(object, errors);
                local(object, errors);
            }),
        authorization("SelfSubjectAccessReview", "selfsubjectaccessreviews")
            .cluster()
            .answer(Answer::Review(Review::SelfSubjectAccess))
            .validate(|object, errors| {
                access(object, errors);
                no_metadata(object, &[], "must be empty", errors);
            }),
        authorization("SelfSubjectRulesReview", "selfsubjectrulesreviews")
            .cluster()
            .answer(Answer::Review(Review::SelfSubjectRules)),
        authorization("SubjectAccessReview", "subjectaccessreviews")
            .cluster()
            .answer(Answer::Review(Review::SubjectAccess))
            .validate(|object, errors| {
                subject(object, errors);
                no_metadata(object, &[], "must be empty", errors);
            }),
    ]
}

/// Checks that a review asks about one request.
fn access(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
        (Value::Null, Value::Null) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid(path.child("resourceAttributes"), Value::Null, detail));
        }
        (Value::Null, _) | (_, Value::Null) => {}
        (_, other) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid(path.child("nonResourceAttributes"), other, detail));
        }
    }
    for field in ["fieldSelector", "labelSelector"] {
        let (selector, path) = (&spec["resourceAttributes"][field], path.child("resourceAttributes").child(field));
        if selector.is_null() {
            continue;
        }
        let raw = text(&selector["rawSelector"]);
        match (raw.is_empty(), items(&selector["requirements"]).is_empty()) {
            (true, true) => {
                let detail = format!("when {path} is specified, requirements or rawSelector is required");
                errors.push(FieldError::required(path.child("requirements"), detail));
            }
            (false, false) => {
                let detail = "may not specified at the same time as requirements";
                errors.push(FieldError::invalid(path.child("rawSelector"), raw, detail));
            }
            _ => {}
        }
    }
}

/// Checks that a review names the user that it asks about.
fn subject(object: &Value, errors: &mut Vec<FieldError>) {
    access(object, errors);
    let spec = &object["spec"];
    if text(&spec["user"]).is_empty() && items(&spec["groups"]).is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(FieldPath::new("spec").child("user"), "", detail));
    }
}

/// Checks that a review asks about its own namespace.
fn local(object: &Value, errors: &mut Vec<FieldError>) {
    no_metadata(object, &["namespace"], "must be empty except for namespace", errors);
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    let attributes = &spec["resourceAttributes"];
    let namespace = text(&attributes["namespace"]);
    if !attributes.is_null() && namespace != text(&object["metadata"]["namespace"]) {
        let path = path.child("resourceAttributes").child("namespace");
        errors.push(FieldError::invalid(path, namespace, "must match metadata.namespace"));
    }
    let other = &spec["nonResourceAttributes"];
    if !other.is_null() {
        let detail = "disallowed on this kind of request";
        errors.push(FieldError::invalid(path.child("nonResourceAttributes"), other, detail));
    }
}

fn no_metadata(object: &Value, except: &[&str], detail: &str, errors: &mut Vec<FieldError>) {
    let metadata = &object["metadata"];
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    let mut fields = metadata.as_object().into_iter().flatten();
    if fields.any(|(name, value)| name != "managedFields" && !except.contains(&name.as_str()) && is_set(value)) {
        errors.push(FieldError::invalid(FieldPath::new("metadata"), metadata, detail));
    }
}
