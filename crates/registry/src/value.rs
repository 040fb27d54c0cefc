//! Reading, defaulting and comparing objects in their JSON form.

use serde_json::{Map, Value};

/// Returns the map under `key`, and creates it when it is absent.
pub fn child<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object[key];
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot
}

/// Sets `key` when it is absent. `object` is a map, which decoding guarantees.
pub fn set_default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Value::Object(map) = object
        && map.get(key).is_none_or(Value::is_null)
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// Like [`set_default`], for strings that count as absent when empty.
pub fn set_default_text(object: &mut Value, key: &str, value: &str) {
    let is_absent = match object.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if let Value::Object(map) = object
        && is_absent
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// Makes `key` of `new` equal to that of `old`: present with the same value, or absent.
pub fn carry_over(new: &mut Value, old: &Value, key: &str) {
    let Value::Object(map) = new else { return };
    match old.get(key) {
        Some(value) => {
            map.insert(key.to_owned(), value.clone());
        }
        None => {
            map.remove(key);
        }
    }
}

/// Returns the elements of the list under `key`; none when it is absent.
pub fn items_mut<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Returns the elements of a list; none when it is absent.
pub fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// Returns the string, empty when it is absent.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns the number, zero when it is absent.
pub fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// Decodes the value as a `T`, for small parts such as selectors. `None` when it is absent or has another shape.
pub fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// Returns the value at a dotted path, such as `spec.replicas`; null when there is none.
pub fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, field| &value[field])
}

/// Returns whether two values mean the same: absent, null and empty lists and maps are equal.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| equal(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter().all(|(key, value)| a.contains_key(key) || is_empty(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (a, b) => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_and_empty_values_are_equal() {
        assert!(equal(&json!({"a": 1, "b": []}), &json!({"a": 1, "c": null, "d": {}})));
        assert!(!equal(&json!({"a": 1}), &json!({})));
        assert!(!equal(&json!({}), &json!({"a": ""})));
        assert!(!equal(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn defaults_do_not_overwrite() {
        let mut object = json!({"a": 1, "b": null, "c": ""});
        set_default(&mut object, "a", 2);
        set_default(&mut object, "b", 3);
        set_default_text(&mut object, "c", "x");
        child(&mut object, "d")["e"] = json!(true);
        assert_eq!(object, json!({"a": 1, "b": 3, "c": "x", "d": {"e": true}}));
    }
}
