//! Decodes any JSON into the JSON of a type.
//!
//! The object passes through the Rust type once, and the output is compared with the input. The comparison finds unknown
//! fields without a second decoder for every type, which would double the compile time of this crate.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::strategy::{DecodeError, Decoded};
use crate::typed;

/// Maximum number of unknown fields that are collected, and of characters of each path. More tell a client nothing new.
const MAX_UNKNOWN_FIELDS: usize = 100;
const MAX_PATH_CHARS: usize = 256;

/// Decodes `object` as a `T` and encodes it again, which drops nulls and fields that `T` does not have.
///
/// # Errors
/// Names the first field whose type is wrong.
pub fn decode<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Decoded, DecodeError> {
    let typed: T = typed::read(object).map_err(|error| DecodeError {
        path: locate(object, &|candidate| typed::read::<T>(candidate).is_err()),
        message: error.to_string(),
    })?;
    let encoded =
        serde_json::to_value(typed).map_err(|error| DecodeError { path: String::new(), message: error.to_string() })?;
    let mut unknown_fields = Vec::new();
    note_dropped(object, &encoded, "", &mut unknown_fields);
    Ok(Decoded { object: encoded, unknown_fields })
}

/// Collects the paths in `before` that are not in `after`, such as `spec.containers[0].foo`. Nulls do not count.
fn note_dropped(before: &Value, after: &Value, path: &str, dropped: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                match after.get(key) {
                    Some(Value::Object(_) | Value::Array(_)) | None => {
                        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        match after.get(key) {
                            Some(kept) => note_dropped(value, kept, &path, dropped),
                            None if dropped.len() >= MAX_UNKNOWN_FIELDS => return,
                            None => dropped.push(path.chars().take(MAX_PATH_CHARS).collect()),
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                if before.is_object() || before.is_array() {
                    note_dropped(before, after, &format!("{path}[{index}]"), dropped);
                }
            }
        }
        _ => {}
    }
}

/// Returns the path of the first value that makes `fails` true of `object`.
///
/// No field is required for decoding, so an object that is cut off after a field fails exactly when that field or an
/// earlier one is wrong. The search for the shortest such prefix, level by level, finds the wrong value in few
/// attempts.
fn locate(object: &Value, fails: &dyn Fn(&Value) -> bool) -> String {
    match object {
        Value::Object(map) => {
            let entries: Vec<(&String, &Value)> = map.iter().collect();
            let prefix = |length: usize| {
                let kept = entries[..length].iter().map(|(key, value)| ((*key).clone(), (*value).clone()));
                Value::Object(kept.collect::<Map<String, Value>>())
            };
            let Some(culprit) = first_failing(entries.len(), |length| fails(&prefix(length))) else {
                return String::new();
            };
            let (key, value) = entries[culprit];
            let inner = |candidate: &Value| fails(&Value::Object(Map::from_iter([(key.clone(), candidate.clone())])));
            match locate(value, &inner).as_str() {
                "" => key.clone(),
                rest if rest.starts_with('[') => format!("{key}{rest}"),
                rest => format!("{key}.{rest}"),
            }
        }
        Value::Array(list) => {
            let prefix = |length: usize| Value::Array(list[..length].to_vec());
            let Some(culprit) = first_failing(list.len(), |length| fails(&prefix(length))) else {
                return String::new();
            };
            let inner = |candidate: &Value| fails(&Value::Array(vec![candidate.clone()]));
            match locate(&list[culprit], &inner).as_str() {
                "" => format!("[{culprit}]"),
                rest if rest.starts_with('[') => format!("[{culprit}]{rest}"),
                rest => format!("[{culprit}].{rest}"),
            }
        }
        _ => String::new(),
    }
}

/// Returns the index of the element that makes prefixes fail; `None` when even the empty prefix fails, or none does.
fn first_failing(length: usize, fails: impl Fn(usize) -> bool) -> Option<usize> {
    if fails(0) || !fails(length) {
        return None;
    }
    let (mut passing, mut failing) = (0, length);
    while failing - passing > 1 {
        let middle = passing.midpoint(failing);
        if fails(middle) {
            failing = middle;
        } else {
            passing = middle;
        }
    }
    Some(passing)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_named_and_dropped() {
        let decoded = decode::<Pod>(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "colour": "red"},
            "spec": {"containers": [{"name": "c", "imagee": "x"}], "replicas": 1, "nodeName": null},
        }))
        .expect("a pod");
        assert_eq!(decoded.unknown_fields, ["metadata.colour", "spec.containers[0].imagee", "spec.replicas"]);
        assert_eq!(
            decoded.object,
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]},
            })
        );
    }

    #[test]
    fn a_body_full_of_unknown_fields_costs_little() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []}});
        for i in 0..1000 {
            pod["spec"][format!("{}{i}", "k".repeat(1000))] = json!(1);
        }
        let decoded = decode::<Pod>(&pod).expect("a pod");
        assert_eq!(decoded.unknown_fields.len(), MAX_UNKNOWN_FIELDS);
        assert!(decoded.unknown_fields.iter().all(|path| path.len() == MAX_PATH_CHARS));
    }

    #[test]
    fn a_wrong_type_is_located() {
        for (spec, path) in [
            (
                json!({"containers": [{"name": "ok"}, {"name": "b", "ports": [{"containerPort": "x"}]}]}),
                "spec.containers[1].ports[0].containerPort",
            ),
            (json!({"containers": {}}), "spec.containers"),
            (json!([]), "spec"),
            (json!({"containers": [7], "nodeName": 5}), "spec.containers[0]"),
            (json!({"hostNetwork": true, "nodeName": 5, "nodeSelector": {"a": 1}}), "spec.nodeName"),
            (json!({"nodeSelector": {"a": "b", "c": 1}}), "spec.nodeSelector.c"),
        ] {
            let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec});
            let error = decode::<Pod>(&object).expect_err("a wrong type");
            assert_eq!(error.path, path, "{}", error.message);
        }
        assert_eq!(decode::<Pod>(&json!([])).expect_err("no object").path, "");
    }

    #[test]
    fn a_malformed_quantity_is_located() {
        let error = decode::<Pod>(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1gb"}}}]},
        }))
        .expect_err("no quantity");
        assert_eq!(error.path, "spec.containers[0].resources.limits.memory");
    }

    #[test]
    fn quantities_may_be_numbers() {
        let decoded = decode::<Pod>(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 2}}}]},
        }))
        .expect("a pod");
        assert_eq!(decoded.object["spec"]["containers"][0]["resources"]["limits"]["cpu"], json!("2"));
    }
}
