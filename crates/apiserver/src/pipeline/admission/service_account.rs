//! The service account of pods that name none (a part of upstream's ServiceAccount).

use serde_json::{Value, json};

use super::is_pod;
use crate::pipeline::Operation;

/// The service account that exists in each namespace.
const DEFAULT_ACCOUNT: &str = "default";

/// Completes the account of a new pod.
pub(super) fn mutate(operation: &Operation, pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| is_pod(operation) && spec.is_object()) else { return };
    if spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        // Clients may still use the deprecated name of the field.
        let older = spec["serviceAccount"].as_str().filter(|name| !name.is_empty());
        spec["serviceAccountName"] = json!(older.unwrap_or(DEFAULT_ACCOUNT));
    }
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
}
