//! JSON merge patch (RFC 7386): objects merge, `null` deletes, everything else replaces.

use serde_json::Value;

/// Applies `patch` to `target`.
pub fn apply(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[a-c]".prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn patches_merge_delete_and_replace() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "list": [1, 2]});
        apply(&mut target, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "list": [3]}));
        assert_eq!(target, json!({"a": {"c": 2, "d": {"f": 1}}, "list": [3]}));
    }

    proptest! {
        #[test]
        fn patches_are_idempotent(mut target in json_value(), patch in json_value()) {
            apply(&mut target, &patch);
            let once = target.clone();
            apply(&mut target, &patch);
            prop_assert_eq!(target, once);
        }
    }
}
