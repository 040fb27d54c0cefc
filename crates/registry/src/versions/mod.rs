//! Versions in which a kind is served besides the one in which it is stored. A file here has the conversions of one
//! kind. The pipeline works on the stored version; bodies are converted on their way in, objects on their way out.

mod autoscaling;
mod events;

use quorate_api::{FieldError, GroupVersionKind};
use serde_json::Value;

pub use autoscaling::AUTOSCALING_V1;
pub use events::EVENTS_V1;

/// A served version that is not the stored one.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Rewrites an object of this version in the stored one, except for `apiVersion`.
    pub to_stored: fn(&mut Value),
    /// Rewrites a stored object in this version, except for `apiVersion`.
    pub from_stored: fn(&mut Value),
    /// The fields of this version's field selectors, each with its name in the stored version. Empty when both versions
    /// have the same.
    pub selectable: &'static [(&'static str, &'static str)],
    /// Checks a stored object that is created through this version, beyond the kind's own rules.
    pub validate_create: fn(&Value) -> Vec<FieldError>,
    /// Checks the successor of a stored object that is written through this version, beyond the kind's own rules.
    pub validate_update: fn(new: &Value, old: &Value) -> Vec<FieldError>,
}

impl Version {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        to_stored: fn(&mut Value),
        from_stored: fn(&mut Value),
    ) -> Self {
        Version {
            group,
            version,
            kind,
            to_stored,
            from_stored,
            selectable: &[],
            validate_create: |_| Vec::new(),
            validate_update: |_, _| Vec::new(),
        }
    }

    #[must_use]
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::from_static(self.group, self.version, self.kind)
    }
}

/// Moves a value from one dotted path to another. Objects on the way are created, and removed when they become empty.
fn relocate(object: &mut Value, from: &str, to: &str) {
    if let Some(value) = take(object, from).filter(|value| !value.is_null()) {
        put(object, to, value);
    }
}

fn take(object: &mut Value, path: &str) -> Option<Value> {
    let fields = object.as_object_mut()?;
    let Some((first, rest)) = path.split_once('.') else { return fields.remove(path) };
    let inner = fields.get_mut(first)?;
    let taken = take(inner, rest);
    if taken.is_some() && inner.as_object().is_some_and(serde_json::Map::is_empty) {
        fields.remove(first);
    }
    taken
}

fn put(object: &mut Value, path: &str, value: Value) {
    match path.split_once('.') {
        Some((first, rest)) => put(crate::value::child(object, first), rest, value),
        None => object[path] = value,
    }
}

#[cfg(test)]
mod tests;
