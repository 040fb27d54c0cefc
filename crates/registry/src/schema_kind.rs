//! Kinds that are a row of data: the schema says what their objects look like, and [`Rules`] say the rest.

use jiff::Timestamp;
use quorate_api::{FieldError, FieldPath, name};
use serde_json::Value;

use crate::check;
use crate::kind::{set_generation, take_status};
use crate::strategy::{Scale, Strategy};
use crate::table::Printed;
use crate::value::{at, carry_over, equal};

/// The differences between kinds of this sort. The default is a kind that has none.
pub struct Rules {
    /// The status is written through its own subresource.
    pub has_status: bool,
    /// The status of a new object.
    pub new_status: fn() -> Value,
    /// `metadata.generation` counts the changes of everything but metadata and status.
    pub counts_generations: bool,
    pub check_name: fn(&str) -> Vec<String>,
    pub default: fn(&mut Value),
    /// Runs when a new object has its name and uid.
    pub named: fn(&mut Value),
    /// Carries over what an update does not change, besides the status.
    pub prepare_update: fn(&mut Value, &Value),
    /// Carries over what an update of the status does not change, besides the rest of the object.
    pub prepare_status_update: fn(&mut Value, &Value),
    pub validate: fn(&Value, &mut Vec<FieldError>),
    pub validate_update: fn(&Value, &Value, &mut Vec<FieldError>),
    pub validate_status_update: fn(&Value, &Value, &mut Vec<FieldError>),
    /// Dotted paths of fields that may not change.
    pub immutable: &'static [&'static str],
    /// Field selectors, with the dotted path of each one's value.
    pub selectable: &'static [(&'static str, &'static str)],
    pub scale: Option<fn(&Value) -> Option<Scale>>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            has_status: false,
            new_status: || Value::Null,
            counts_generations: false,
            check_name: name::dns1123_subdomain,
            default: |_| {},
            named: |_| {},
            prepare_update: |_, _| {},
            prepare_status_update: |_, _| {},
            validate: |_, _| {},
            validate_update: |_, _, _| {},
            validate_status_update: |_, _, _| {},
            immutable: &[],
            selectable: &[],
            scale: None,
        }
    }
}

/// The [`Strategy`] of a row.
pub struct SchemaKind {
    pub rules: Rules,
    pub selectable_names: Vec<&'static str>,
    pub printed: Vec<Printed>,
}

impl Strategy for SchemaKind {
    fn default(&self, object: &mut Value) {
        (self.rules.default)(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.rules.counts_generations {
            object["metadata"]["generation"] = Value::from(1);
        }
        if self.rules.has_status
            && let Value::Object(fields) = object
        {
            match (self.rules.new_status)() {
                Value::Null => fields.remove("status"),
                status => fields.insert("status".to_owned(), status),
            };
        }
    }

    fn named(&self, object: &mut Value) {
        (self.rules.named)(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.rules.has_status {
            carry_over(new, old, "status");
        }
        (self.rules.prepare_update)(new, old);
        let starts_new = self.rules.counts_generations && !equal(&desired(new), &desired(old));
        set_generation(new, old, starts_new);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        take_status(new, old, &[]);
        (self.rules.prepare_status_update)(new, old);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        (self.rules.validate)(object, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        (self.rules.validate_update)(new, old, &mut errors);
        for path in self.rules.immutable {
            let (new, old) = (at(new, path), at(old, path));
            if !equal(new, old) {
                errors.push(FieldError::invalid(path_of(path), new, check::IMMUTABLE));
            }
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        (self.rules.validate_status_update)(new, old, &mut errors);
        errors
    }

    fn check_name(&self, name: &str) -> Vec<String> {
        (self.rules.check_name)(name)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let value = |path: &str| match at(object, path) {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        self.rules.selectable.iter().map(|(name, path)| (*name, value(path))).collect()
    }

    fn selectable_field_names(&self) -> &[&'static str] {
        &self.selectable_names
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.printed.iter().map(|printed| printed.print(object, now)).collect()
    }

    fn scale(&self, object: &Value) -> Option<Scale> {
        self.rules.scale.and_then(|scale| scale(object))
    }

    fn set_scale(&self, object: &mut Value, replicas: i32) {
        object["spec"]["replicas"] = Value::from(replicas);
    }
}

/// Returns an object without its metadata and status.
fn desired(object: &Value) -> Value {
    let mut desired = object.clone();
    if let Value::Object(fields) = &mut desired {
        fields.remove("metadata");
        fields.remove("status");
    }
    desired
}

/// Returns the field path of a dotted path.
pub fn path_of(dotted: &str) -> FieldPath {
    let mut fields = dotted.split('.');
    let root = FieldPath::new(fields.next().unwrap_or_default());
    fields.fold(root, |path, field| path.child(field))
}
