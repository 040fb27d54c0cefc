//! Generic metadata: the fields that the server sets, and those that a client may not change. Validation is the
//! registry's.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// `generateName` is cut to this length, so that the suffix still fits into a label.
const MAX_GENERATED_BASE: usize = 58;
const SUFFIX_LENGTH: usize = 5;
/// No vowels and no look-alike characters, so that suffixes do not form words.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Returns the `metadata` of an object, empty if it has none.
pub(crate) fn of(object: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    object.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// Returns the `metadata` of an object, and creates it if it has none.
pub(crate) fn of_mut(object: &mut Value) -> &mut Map<String, Value> {
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("it was just made an object")
}

/// Returns a text field of an object or of a part of one; empty where it is absent.
pub(crate) fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a string of the metadata, empty if it is absent.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    of(object).get(field).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    strings(of(object).get("finalizers"))
}

/// Returns a list of strings, empty if it is absent.
pub(crate) fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(crate) fn is_terminating(object: &Value) -> bool {
    of(object).get("deletionTimestamp").is_some_and(Value::is_string)
}

/// Returns the grace period under which the object is being deleted, in seconds.
pub(crate) fn deletion_grace_seconds(object: &Value) -> Option<i64> {
    of(object).get("deletionGracePeriodSeconds").and_then(Value::as_i64)
}

/// Formats a time as Kubernetes does, to the second.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns `base` with a random suffix, as `generateName` asks for.
pub(crate) fn generated_name(base: &str) -> String {
    let base = base.get(..MAX_GENERATED_BASE).unwrap_or(base);
    let suffix = (0..SUFFIX_LENGTH).map(|_| {
        let index = rand::random_range(0..SUFFIX_ALPHABET.len());
        char::from(SUFFIX_ALPHABET[index])
    });
    base.chars().chain(suffix).collect()
}

/// Sets the server's fields of a new object, and drops those that a client may not set.
pub(crate) fn stamp_new(object: &mut Value, namespace: Option<&str>, now: Timestamp) {
    let metadata = of_mut(object);
    for field in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), namespace.into());
    } else {
        metadata.remove("namespace");
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), time(now).into());
}

/// Copies the fields that an update may not change, or may leave out, from the old object.
pub(crate) fn carry_over(new: &mut Value, old: &Value) {
    let old = of(old);
    let metadata = of_mut(new);
    metadata.remove("selfLink");
    metadata.remove("resourceVersion");
    for field in ["uid", "name", "namespace", "generateName", "generation"] {
        if !metadata.contains_key(field)
            && let Some(value) = old.get(field)
        {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        match old.get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
}
