//! Checks of single fields: the rules that Kubernetes' Go types declare (`+k8s:required`, `+k8s:maxItems=32`, …). The
//! wording is that of `k8s.io/apimachinery/pkg/api/validate`. Rules across fields belong to the kind's strategy, and so do
//! the enumerations, for which Kubernetes has a different wording from kind to kind.

mod format;

use quorate_api::{FieldError, FieldErrorKind, FieldPath};
use serde_json::Value;

use crate::model::{Field, Kind, Model, Rules, Shape, TypeId};

/// Checks the fields of `object` and of all objects in it. With the object as it was before, fields that may not change
/// are compared.
#[must_use]
pub fn check(model: &Model, ty: TypeId, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    fields(model, ty, object, old, &FieldPath::default(), &mut errors);
    errors
}

fn fields(
    model: &Model,
    ty: TypeId,
    object: &Value,
    old: Option<&Value>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let ty = model.get(ty);
    if !ty.has_rules {
        return;
    }
    for field in &ty.fields {
        let value = object.get(field.name.as_ref()).unwrap_or(&Value::Null);
        let before = old.map(|old| old.get(field.name.as_ref()).unwrap_or(&Value::Null));
        if let Some(rules) = field.shape.rules.as_deref()
            && !ruled(field, rules, value, before, path, errors)
        {
            continue;
        }
        // A struct in Go is never absent. Most fields have no objects with rules, so their paths are not made.
        let is_struct = matches!(field.shape.kind, Kind::Object(_)) && !field.is_pointer;
        if has_rules(model, &field.shape) && (is_struct || !value.is_null()) {
            within(model, &field.shape, value, before, &path.child(&field.name), errors);
        }
    }
}

fn has_rules(model: &Model, shape: &Shape) -> bool {
    shape.kind.object().is_some_and(|inner| model.get(inner).has_rules)
}

fn within(
    model: &Model,
    shape: &Shape,
    value: &Value,
    old: Option<&Value>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    match (&shape.kind, value) {
        (Kind::Object(id), Value::Object(_) | Value::Null) => fields(model, *id, value, old, path, errors),
        (Kind::List(list), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                within(model, &list.item, item, None, &path.index(index), errors);
            }
        }
        (Kind::Map(shape), Value::Object(map)) => {
            for (key, value) in map {
                within(model, shape, value, None, &path.key(key), errors);
            }
        }
        _ => {}
    }
}

/// Checks a field against its rules. Returns whether its value is worth a look inside.
fn ruled(
    field: &Field,
    rules: &Rules,
    value: &Value,
    old: Option<&Value>,
    parent: &FieldPath,
    errors: &mut Vec<FieldError>,
) -> bool {
    let path = || parent.child(&field.name);
    let is_missing = is_missing(field, value);
    if rules.is_immutable
        && let Some(old) = old
        && !same(field, value, old)
    {
        errors.push(FieldError::invalid(path(), value, "field is immutable"));
        return false;
    }
    if is_missing {
        if rules.is_required {
            errors.push(FieldError::required(path(), ""));
        }
        return false;
    }
    if let (Some(max), Some(items)) = (rules.max_items, value.as_array())
        && items.len() > max
    {
        let detail = format!("must have at most {max} items");
        let value = Some(items.len().to_string());
        errors.push(FieldError { path: path(), kind: FieldErrorKind::TooMany, value, detail });
        return false;
    }
    if let Some(number) = value.as_i64() {
        if let Some(minimum) = rules.minimum.filter(|minimum| number < *minimum) {
            let detail = format!("must be greater than or equal to {minimum}");
            errors.push(FieldError::invalid(path(), number, detail));
        }
        if let Some(maximum) = rules.maximum.filter(|maximum| number > *maximum) {
            errors.push(FieldError::invalid(path(), number, format!("must be less than or equal to {maximum}")));
        }
    }
    if let Some(text) = value.as_str() {
        if let Some(max) = rules.max_bytes.filter(|max| text.len() > *max) {
            errors.push(FieldError::too_long(path(), max));
        }
        if let Some(max) = rules.max_length.filter(|max| text.len() > *max && text.chars().count() > *max) {
            let detail = format!("may not be more than {max} characters");
            errors.push(FieldError { path: path(), kind: FieldErrorKind::TooLong, value: None, detail });
        }
        if let Some(name) = &rules.format {
            errors.extend(format::check(name, text, &path()));
        }
    }
    if rules.has_unique_items
        && let Some(items) = value.as_array()
    {
        let twice = items.iter().enumerate().filter(|(index, item)| items[..*index].contains(item));
        errors.extend(twice.map(|(index, item)| FieldError::duplicate(path().index(index), item)));
    }
    true
}

/// Returns whether a value is absent, or the zero of a field that is not a pointer in Go, which is the same there.
fn is_missing(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.shape.kind, Kind::Map(_)),
        _ if field.is_pointer => false,
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}

fn same(field: &Field, new: &Value, old: &Value) -> bool {
    new == old || (is_missing(field, new) && is_missing(field, old))
}

/// Returns whether a field has a rule that [`check`] knows.
pub(crate) fn is_ruled(rules: &Rules) -> bool {
    rules.is_required
        || rules.is_immutable
        || rules.has_unique_items
        || rules.format.is_some()
        || rules.max_items.or(rules.max_bytes).or(rules.max_length).is_some()
        || rules.minimum.or(rules.maximum).is_some()
}

#[cfg(test)]
mod tests;
