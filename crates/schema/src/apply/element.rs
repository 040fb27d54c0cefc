//! The steps of a path: `f:name` of a field or a map's key, `k:{…}` of an element with keys, `v:…` of a set's element,
//! `i:n` of an index.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::set::FieldSetError;
use super::walk::Place;
use crate::model::{Model, Text};

/// The reason why a list's element has no place in its list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    #[error("associative list with keys may not have a null element")]
    NullKeyed,
    #[error("associative list with keys may not have non-map elements")]
    NotAnObject,
    #[error(
        "associative list with keys has an element that omits all key fields [{0}] (and doesn't have default values for any key fields)"
    )]
    NoKeys(String),
    #[error("associative list without keys has an element that's a map type")]
    SetOfMaps,
    #[error("not supported: associative list with lists as elements")]
    SetOfLists,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
}

/// Returns the step to a field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// Returns the step to an element that is told apart by its keys. An absent key counts with its default, if it has one.
pub(super) fn keyed(model: &Model, item: Place<'_>, keys: &[Text], value: &Value) -> Result<String, ElementError> {
    let object = match value {
        Value::Object(object) => object,
        Value::Null => return Err(ElementError::NullKeyed),
        _ => return Err(ElementError::NotAnObject),
    };
    let mut found = BTreeMap::new();
    for key in keys {
        let value = object.get(key.as_ref()).or_else(|| item.field(model, key).and_then(|field| field.default()));
        if let Some(value) = value {
            found.insert(key.as_ref(), value);
        }
    }
    if found.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(ElementError::NoKeys(keys.join(" ")));
    }
    let mut element = "k:{".to_owned();
    for (index, (name, value)) in found.into_iter().enumerate() {
        if index > 0 {
            element.push(',');
        }
        element.push_str(&format!("{}:{value}", Value::from(name)));
    }
    element.push('}');
    Ok(element)
}

/// Returns the step to an element of a set of scalars.
pub(super) fn in_set(value: &Value) -> Result<String, ElementError> {
    match value {
        Value::Object(_) => Err(ElementError::SetOfMaps),
        Value::Array(_) => Err(ElementError::SetOfLists),
        Value::Null => Err(ElementError::NullInSet),
        scalar => Ok(format!("v:{scalar}")),
    }
}

/// Returns the canonical form of a step that a client has written; `None` for a kind of step that is not known.
pub(super) fn canonical(element: &str) -> Result<Option<String>, FieldSetError> {
    let invalid = || FieldSetError::Element(element.chars().take(256).collect());
    let (kind, rest) = element.split_once(':').ok_or_else(invalid)?;
    match kind {
        "f" => Ok(Some(element.to_owned())),
        "i" => rest.parse::<u32>().map(|index| Some(format!("i:{index}"))).map_err(|_| invalid()),
        "v" => serde_json::from_str::<Value>(rest).map(|value| Some(format!("v:{value}"))).map_err(|_| invalid()),
        // Keys are sorted, as in every map of ours.
        "k" => match serde_json::from_str::<BTreeMap<String, Value>>(rest) {
            Ok(keys) => serde_json::to_string(&keys).map(|keys| Some(format!("k:{keys}"))).map_err(|_| invalid()),
            Err(_) => Err(invalid()),
        },
        _ if kind.len() == 1 => Ok(None),
        _ => Err(invalid()),
    }
}

/// Returns the form of a step in messages.
pub(super) fn shown(element: &str) -> Cow<'_, str> {
    let Some((kind, rest)) = element.split_once(':') else { return Cow::Borrowed(element) };
    match kind {
        "f" => format!(".{rest}").into(),
        "v" => format!("[={rest}]").into(),
        "i" => format!("[{rest}]").into(),
        "k" => {
            let keys: BTreeMap<String, Value> = match serde_json::from_str(rest) {
                Ok(keys) => keys,
                Err(_) => return Cow::Borrowed(element),
            };
            let keys: Vec<String> = keys.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(",")).into()
        }
        _ => Cow::Borrowed(element),
    }
}
