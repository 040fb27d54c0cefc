//! Certificate signing requests: sets the requesting user and the times of conditions, because signers trust them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use quorate_api::{FieldError, FieldPath, GroupVersionResource, Status};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use crate::metadata;
use crate::pipeline::Operation;

const REQUESTS: GroupVersionResource =
    GroupVersionResource::from_static("certificates.k8s.io", "v1", "certificatesigningrequests");

/// Checks the signature of a new request, and sets the user that makes it. The request never changes later.
///
/// # Errors
/// `Invalid` for a text that is not a PKCS#10 request, or is not signed by its own key.
pub(super) fn mutate(operation: &Operation, request: &mut Value) -> Result<(), Status> {
    let served = &operation.target.resource;
    if served.descriptor.resource != REQUESTS {
        return Ok(());
    }
    let name = metadata::text(request, "name").to_owned();
    let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let encoded = spec.get("request").and_then(Value::as_str).unwrap_or_default();
    if let Err(problem) = check_request(encoded) {
        let path = FieldPath::new("spec").child("request");
        return Err(served.invalid(&name, &[FieldError::invalid(path, encoded, problem)]));
    }
    for field in ["uid", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".to_owned(), operation.user.name.as_str().into());
    spec.insert("groups".to_owned(), json!(operation.user.groups));
    Ok(())
}

/// Checks that a text is a PKCS#10 request in base64 of PEM, signed by its own key.
fn check_request(encoded: &str) -> Result<(), String> {
    let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    let (_, block) = parse_x509_pem(&pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("the request is followed by other data".to_owned());
    }
    request.verify_signature().map_err(|error| error.to_string())
}

/// Sets the times of conditions that are new or have changed.
pub(super) fn mutate_update(operation: &Operation, new: &mut Value, old: &Value) {
    if operation.target.resource.descriptor.resource != REQUESTS {
        return;
    }
    let now = metadata::time(Timestamp::now());
    let known = old["status"]["conditions"].as_array();
    let conditions = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let before = known.into_iter().flatten().find(|known| known["type"] == condition["type"]);
        let is_same_status = before.is_some_and(|before| before["status"] == condition["status"]);
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if condition["lastTransitionTime"].is_null() {
            condition["lastTransitionTime"] = match before.filter(|_| is_same_status) {
                Some(before) if !before["lastTransitionTime"].is_null() => before["lastTransitionTime"].clone(),
                _ => now.as_str().into(),
            };
        }
    }
}
