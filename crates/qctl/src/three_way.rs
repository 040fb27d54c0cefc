//! Computes the patch of `apply`, which changes the live object into the manifest. Pure.

use quorate_api::GroupVersionKind;
use quorate_api::patch::{PatchError, diff};
use serde_json::{Value, json};

use crate::verbs::PatchType;

/// Annotation with the manifest that was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Returns the manifest with its own text as the last-applied annotation, ready to be created or compared.
#[must_use]
pub fn annotated(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    if let Some(annotations) = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    let text = format!("{object}\n");
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    object
}

/// Returns the patch from `live` to `manifest` and its type, or `None` if the object matches the manifest already.
///
/// # Errors
/// When the annotation of the live object is not JSON, or the objects cannot be compared.
pub fn patch(
    kind: &GroupVersionKind,
    manifest: &Value,
    live: &Value,
) -> Result<Option<(Value, PatchType)>, ThreeWayError> {
    let original = match live["metadata"]["annotations"][LAST_APPLIED].as_str() {
        Some(text) => serde_json::from_str(text).map_err(ThreeWayError::Annotation)?,
        None => Value::Null,
    };
    let modified = annotated(manifest);
    let (patch, patch_type) = match diff::strategic(kind, &original, &modified, live) {
        Err(PatchError::NoStrategies) => (diff::merge(&original, &modified, live)?, PatchType::Merge),
        strategic => (strategic?, PatchType::Strategic),
    };
    let empty = patch.as_object().is_none_or(serde_json::Map::is_empty);
    Ok((!empty).then_some((patch, patch_type)))
}

/// Why the patch cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum ThreeWayError {
    #[error("the annotation {LAST_APPLIED} of the live object is not JSON: {0}")]
    Annotation(serde_json::Error),
    #[error(transparent)]
    Patch(#[from] PatchError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: GroupVersionKind = GroupVersionKind::from_static("apps", "v1", "Deployment");

    fn manifest(replicas: u32, labels: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": labels},
            "spec": {"replicas": replicas}})
    }

    #[test]
    fn applying_an_unchanged_manifest_makes_no_patch() {
        let manifest = manifest(2, json!({"a": "b"}));
        let mut live = annotated(&manifest);
        live["metadata"]["uid"] = "u".into();
        live["status"] = json!({"replicas": 2});
        assert_eq!(patch(&DEPLOYMENT, &manifest, &live).expect("comparable"), None);
    }

    #[test]
    fn changes_deletions_and_the_annotation_are_in_the_patch() {
        let mut live = annotated(&manifest(2, json!({"a": "b"})));
        live["metadata"]["labels"]["other"] = "kept".into();
        let next = manifest(3, json!({}));
        let (patch, patch_type) = patch(&DEPLOYMENT, &next, &live).expect("comparable").expect("a change");
        assert_eq!(patch_type, PatchType::Strategic);
        assert_eq!(patch["spec"], json!({"replicas": 3}));
        assert_eq!(patch["metadata"]["labels"], json!({"a": null}));
        let annotation = patch["metadata"]["annotations"][LAST_APPLIED].as_str().expect("the annotation");
        let mut expected = next;
        expected["metadata"]["annotations"] = json!({});
        assert_eq!(serde_json::from_str::<Value>(annotation).expect("JSON"), expected);
    }

    #[test]
    fn kinds_without_strategies_get_merge_patches() {
        let kind = GroupVersionKind::from_static("example.com", "v1", "Widget");
        let manifest =
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"l": [2]}});
        let live =
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"l": [1]}});
        let (patch, patch_type) = patch(&kind, &manifest, &live).expect("comparable").expect("a change");
        assert_eq!((patch_type, &patch["spec"]), (PatchType::Merge, &json!({"l": [2]})));
    }
}
