//! The fence annotation of a pod, which must be well formed and must not change.

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, fence};

pub fn validate(pod: &core::Pod) -> Vec<FieldError> {
    let Some(value) = annotation(pod) else { return Vec::new() };
    let error = fence::parse(value).err().map(|detail| FieldError::invalid(path(), value, detail));
    error.into_iter().collect()
}

/// Checks that the annotation did not change. The node acts on the value that it has seen last, perhaps without a
/// connection to the masters, and the masters rely on that.
pub fn validate_update(new: &core::Pod, old: &core::Pod) -> Vec<FieldError> {
    if annotation(new) == annotation(old) {
        return Vec::new();
    }
    vec![FieldError::invalid(path(), annotation(new).unwrap_or_default(), "field is immutable")]
}

fn annotation(pod: &core::Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(fence::ANNOTATION).map(String::as_str)
}

fn path() -> FieldPath {
    FieldPath::new("metadata").child("annotations").key(fence::ANNOTATION)
}
