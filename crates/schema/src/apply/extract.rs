//! The fields of an object.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::element::{self, ElementError};
use super::set::{FieldSet, Node};
use super::walk::{Place, View};
use crate::model::{Model, TypeId};

/// Maximum number of errors about one configuration.
const MAX_ERRORS: usize = 20;

/// An element of a list that server-side apply cannot tell from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedError {
    /// Such as `.spec.ports`.
    pub path: String,
    pub message: String,
}

/// The reasons why a configuration cannot be applied, in upstream's form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TypedErrors(pub Vec<TypedError>);

impl fmt::Display for TypedErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "{}: {}", one.path, one.message),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|error| write!(f, "\n  {}: {}", error.path, error.message))
            }
        }
    }
}

/// Returns the fields that an applied configuration sets.
///
/// # Errors
/// When a list has two elements with the same keys, or an element without keys.
pub fn extract(model: &Model, ty: TypeId, object: &Value) -> Result<FieldSet, TypedErrors> {
    let mut walk = Walk { model, path: Vec::new(), errors: Vec::new() };
    let mut root = Node::default();
    walk.visit(Place::Object(ty), object, &mut root);
    if walk.errors.is_empty() { Ok(root.below) } else { Err(TypedErrors(walk.errors)) }
}

/// Returns the fields of a merged object. Of elements with the same keys, only the first is seen.
pub(super) fn extract_leniently(model: &Model, ty: TypeId, object: &Value) -> FieldSet {
    let mut walk = Walk { model, path: Vec::new(), errors: Vec::new() };
    let mut root = Node::default();
    walk.visit(Place::Object(ty), object, &mut root);
    root.below
}

struct Walk<'m> {
    model: &'m Model,
    path: Vec<String>,
    errors: Vec<TypedError>,
}

impl<'m> Walk<'m> {
    fn visit(&mut self, place: Place<'m>, value: &Value, node: &mut Node) {
        let view = place.view(self.model);
        match (view, value) {
            (View::Struct(_) | View::Map(_), Value::Object(members)) => {
                for (name, value) in members {
                    let (place, is_declared) = view.member(self.model, name);
                    let step = element::field(name);
                    let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                    self.enter(step, place, value, &mut node.below, is_empty || !is_declared);
                }
            }
            (View::Set | View::Keyed(..), Value::Array(elements)) => self.visit_list(view, elements, node),
            (View::Leaf, _) => node.is_member = true,
            // An untyped value that is no map is a leaf, and null says nothing.
            (View::Map(Place::Untyped), value) if !value.is_null() => node.is_member = true,
            _ => {}
        }
    }

    fn visit_list(&mut self, view: View<'m>, elements: &[Value], node: &mut Node) {
        let mut seen = BTreeSet::new();
        for (index, value) in elements.iter().enumerate() {
            let (step, place) = match step(self.model, view, value) {
                Ok(found) => found,
                Err(error) => {
                    self.fail(format!("element {index}: {error}"));
                    continue;
                }
            };
            if !seen.insert(step.clone()) {
                self.fail(format!("duplicate entries for key {}", element::shown(&step)));
                continue;
            }
            self.enter(step, place, value, &mut node.below, true);
        }
    }

    fn enter(&mut self, step: String, place: Place<'m>, value: &Value, set: &mut FieldSet, is_member: bool) {
        let node = set.node(&step);
        node.is_member |= is_member;
        self.path.push(step);
        self.visit(place, value, node);
        if let Some(step) = self.path.pop() {
            set.prune(&step);
        }
    }

    fn fail(&mut self, message: String) {
        if self.errors.len() < MAX_ERRORS {
            let path = self.path.iter().map(|step| element::shown(step)).collect();
            self.errors.push(TypedError { path, message });
        }
    }
}

/// Returns the step to an element of a list, and the element's place.
pub(super) fn step<'m>(model: &'m Model, view: View<'m>, value: &Value) -> Result<(String, Place<'m>), ElementError> {
    match view {
        View::Keyed(keys, item) => element::keyed(model, item, keys, value).map(|step| (step, item)),
        _ => element::in_set(value).map(|step| (step, Place::Untyped)),
    }
}
