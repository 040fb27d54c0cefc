//! Objects with lists as long as decoding lets them be. Checks that compare each element with all others, or that show the
//! whole list in the error of each element, would take minutes or all memory.

use quorate_api::FieldError;
use quorate_registry::{Descriptor, builtin};
use serde_json::{Value, json};

const LENGTH: usize = 49_000;

fn descriptor(kind: &str) -> Descriptor {
    builtin().into_iter().find(|descriptor| descriptor.kind.kind == kind).expect("a kind")
}

/// Returns the errors of a new object and of an update that keeps it, after a check of their size.
fn errors(kind: &str, mut object: Value) -> Vec<FieldError> {
    let descriptor = descriptor(kind);
    object["apiVersion"] = descriptor.kind.api_version().into();
    object["kind"] = kind.into();
    object["metadata"] = json!({ "name": "a", "namespace": "b" });
    let mut object = descriptor.schema.decode(object).expect("an object of the kind").object;
    descriptor.default(&mut object);
    let mut errors = descriptor.validate(&object);
    errors.extend(descriptor.validate_update(&object, &object));
    let bytes: usize = errors.iter().map(|error| error.to_string().len()).sum();
    assert!(bytes < 4 * LENGTH * 1200, "{kind}: errors of {bytes} bytes");
    errors
}

fn list(item: impl Fn(usize) -> Value) -> Value {
    (0..LENGTH).map(item).collect()
}

fn pod(field: &str, value: Value) -> Value {
    let mut pod = json!({ "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    pod["spec"][field] = value;
    pod
}

#[test]
fn long_lists_are_checked_in_bounded_time_and_space() {
    let named = |index: usize| json!({ "name": format!("n{index}") });
    let text = |index: usize| Value::from(format!("x{index}"));
    let tolerations = list(|index| json!({ "key": format!("k{index}"), "operator": "Exists" }));
    assert_eq!(errors("Pod", pod("tolerations", tolerations)), []);
    errors("Pod", pod("schedulingGates", list(named)));
    errors("Pod", pod("imagePullSecrets", list(named)));
    errors("Pod", pod("volumes", list(named)));
    errors("LimitRange", json!({ "spec": { "limits": list(|index| json!({ "type": format!("t{index}") })) } }));
    errors("ValidatingWebhookConfiguration", json!({ "webhooks": list(named) }));
    errors("Service", json!({ "spec": { "ipFamilies": list(text), "clusterIPs": [] } }));
    errors("Service", json!({ "spec": { "clusterIPs": list(text) } }));
    let scopes = errors("ResourceQuota", json!({ "spec": { "scopes": list(text) } }));
    assert!(scopes.len() >= LENGTH, "{} errors", scopes.len());
}
