//! Defaults of single fields: those that Kubernetes' Go types declare (`+default=`), from which its generated defaulting
//! comes. Defaults that depend on other fields, or on the kind, belong to the kind's strategy.

use serde_json::{Map, Value};

use crate::model::{Field, Kind, Model, Shape, TypeId};

/// Sets the absent fields of `object` that have a default, in all objects that it contains. Idempotent.
pub fn apply(model: &Model, ty: TypeId, object: &mut Value) {
    let ty = model.get(ty);
    let Value::Object(map) = object else { return };
    if !ty.has_defaults {
        return;
    }
    for field in &ty.fields {
        if let Some(default) = field.default()
            && is_missing(field, map)
            && !is_zero(field, default)
        {
            map.insert(field.name.clone().into_owned(), default.clone());
        }
        if let Some(value) = map.get_mut(field.name.as_ref()) {
            within(model, &field.shape, value);
        }
    }
}

fn within(model: &Model, shape: &Shape, value: &mut Value) {
    match (&shape.kind, value) {
        (Kind::Object(id), value) => apply(model, *id, value),
        (Kind::List(list), Value::Array(items)) => items.iter_mut().for_each(|item| within(model, &list.item, item)),
        (Kind::Map(shape), Value::Object(map)) => map.values_mut().for_each(|value| within(model, shape, value)),
        _ => {}
    }
}

/// Returns whether a field is absent. The zero of a field that is not a pointer in Go counts as absent.
fn is_missing(field: &Field, map: &Map<String, Value>) -> bool {
    match map.get(field.name.as_ref()) {
        None => true,
        // Where null is a value of its own, it stays.
        Some(Value::Null) => !field.shape.rules.as_ref().is_some_and(|rules| rules.is_nullable),
        Some(value) => is_zero(field, value),
    }
}

/// Returns whether a value is the zero of a field that is not a pointer, which Go cannot tell from absence.
fn is_zero(field: &Field, value: &Value) -> bool {
    !field.is_pointer
        && match value {
            Value::String(text) => text.is_empty(),
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64() == Some(0.0),
            _ => false,
        }
}

/// Returns whether a field has a default that [`apply`] sets.
pub(crate) fn is_defaulted(field: &Field) -> bool {
    field.default().is_some_and(|default| !is_zero(field, default))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::builtin;

    fn defaulted(api_version: &str, kind: &str, mut object: Value) -> Value {
        let ty = builtin().kind(api_version, kind).expect("a kind");
        apply(builtin(), ty, &mut object);
        let once = object.clone();
        apply(builtin(), ty, &mut object);
        assert_eq!(object, once);
        object
    }

    #[test]
    fn declared_defaults_are_set_at_every_depth() {
        let template = |ports: Value, volume: Value| json!({"spec": {"template": {"spec": {"containers": [{"ports": ports}], "volumes": [volume]}}}});
        let given = template(
            json!([{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}, {"protocol": ""}]),
            json!({"iscsi": {}, "azureDisk": {"fsType": "xfs"}}),
        );
        let expected = template(
            json!([
                {"containerPort": 80, "protocol": "TCP"},
                {"containerPort": 53, "protocol": "UDP"},
                {"protocol": "TCP"},
            ]),
            json!({
                "iscsi": {"iscsiInterface": "default"},
                "azureDisk": {"fsType": "xfs", "cachingMode": "ReadWrite", "kind": "Shared", "readOnly": false},
            }),
        );
        assert_eq!(defaulted("apps/v1", "Deployment", given), expected);
    }

    #[test]
    fn what_openapi_shows_of_a_zero_is_no_default() {
        let pod =
            json!({"spec": {"containers": [{"env": [{"valueFrom": {"secretKeyRef": {}}}]}], "imagePullSecrets": [{}]}});
        assert_eq!(defaulted("v1", "Pod", pod.clone()), pod);
        assert_eq!(defaulted("apps/v1", "Deployment", json!({})), json!({}));
        assert!(!builtin().get(builtin().kind("v1", "ConfigMap").expect("a kind")).has_defaults);
    }
}
