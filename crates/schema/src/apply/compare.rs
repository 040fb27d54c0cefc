//! The fields in which two objects differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element;
use super::extract::step;
use super::set::{FieldSet, Node};
use super::walk::{EMPTY, Place, View};
use crate::model::{Model, TypeId};

/// The difference between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields that only the second object has.
    pub added: FieldSet,
    /// Fields with different values.
    pub modified: FieldSet,
    /// Fields that only the first object has.
    pub removed: FieldSet,
}

impl Comparison {
    /// Returns the fields whose value in the second object is new.
    #[must_use]
    pub fn set(&self) -> FieldSet {
        let mut set = self.added.clone();
        set.extend(&self.modified);
        set
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// Compares two objects of a type. A field that every object of the type has in Go, such as a struct held by value, counts
/// as empty where it is absent.
#[must_use]
pub fn compare(model: &Model, ty: TypeId, left: &Value, right: &Value) -> Comparison {
    let mut walk = Walk { model, path: Vec::new(), found: Comparison::default() };
    walk.visit(Place::Object(ty), Some(left), Some(right));
    walk.found
}

struct Walk<'m> {
    model: &'m Model,
    path: Vec<String>,
    found: Comparison,
}

impl<'m> Walk<'m> {
    fn visit(&mut self, place: Place<'m>, left: Option<&Value>, right: Option<&Value>) {
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (None, None) => return,
            (None, Some(added)) => return whole(self.model, place, added, self.found.added.at(&self.path)),
            (Some(removed), None) => return whole(self.model, place, removed, self.found.removed.at(&self.path)),
        };
        if left == right {
            return;
        }
        let view = place.view(self.model);
        let is_done = match view {
            View::Leaf => false,
            View::Struct(_) | View::Map(_) => self.visit_members(view, left, right),
            View::Set | View::Keyed(..) => self.visit_elements(view, left, right),
        };
        if !is_done {
            self.found.modified.insert(&self.path);
        }
    }

    /// Compares two objects by their members; returns false when the two are to be compared as a whole.
    fn visit_members(&mut self, view: View<'m>, left: &Value, right: &Value) -> bool {
        let none = Map::new();
        let (Some(left), Some(right)) = (members(left, &none), members(right, &none)) else { return false };
        if left.is_empty() && right.is_empty() {
            return false;
        }
        let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
        for name in names {
            let (left, right) = (left.get(name), right.get(name));
            if left == right {
                continue;
            }
            let (place, _) = view.member(self.model, name);
            let empty = self.empty(view, name);
            self.enter(element::field(name), place, left.or(empty), right.or(empty));
        }
        true
    }

    /// Returns the value that an absent field has in Go; `None` for a field that can be absent there.
    fn empty(&self, view: View<'m>, name: &str) -> Option<&'static Value> {
        let View::Struct(id) = view else { return None };
        let field = self.model.get(id).field(name).filter(|field| !field.is_pointer)?;
        match Place::Shape(&field.shape).view(self.model) {
            View::Struct(_) => Some(&EMPTY),
            View::Map(_) | View::Set | View::Keyed(..) if field.is_always_written => Some(&Value::Null),
            _ => None,
        }
    }

    fn enter(&mut self, step: String, place: Place<'m>, left: Option<&Value>, right: Option<&Value>) {
        self.path.push(step);
        self.visit(place, left, right);
        self.path.pop();
    }

    /// Compares two lists by their elements; returns false when the two are to be compared as a whole.
    fn visit_elements(&mut self, view: View<'m>, left: &Value, right: &Value) -> bool {
        let (Some(lefts), Some(rights)) = (elements(left), elements(right)) else { return false };
        if lefts.is_empty() && rights.is_empty() {
            return false;
        }
        let (Some(lefts), Some(rights)) = (index(self.model, view, lefts), index(self.model, view, rights)) else {
            return false;
        };
        for (step, (place, left)) in &lefts {
            let right = rights.get(step).map(|(_, right)| right.as_slice()).unwrap_or_default();
            self.visit_element(step, *place, left, right);
        }
        for (step, (place, right)) in rights.iter().filter(|(step, _)| !lefts.contains_key(*step)) {
            self.visit_element(step, *place, &[], right);
        }
        true
    }

    /// Compares the elements with the same keys, of which there should be one on each side.
    fn visit_element(&mut self, step: &str, place: Place<'m>, left: &[&Value], right: &[&Value]) {
        let (first_left, first_right) = (left.first().copied(), right.first().copied());
        match (left.len(), right.len()) {
            (0 | 1, 0 | 1) => self.enter(step.to_owned(), place, first_left, first_right),
            (0 | 1, _) => {
                self.enter(step.to_owned(), place, first_left, None);
                self.mark(step, |found| &mut found.added);
            }
            (_, 0 | 1) => {
                self.enter(step.to_owned(), place, None, first_right);
                self.mark(step, |found| &mut found.removed);
            }
            _ if left != right => self.mark(step, |found| &mut found.modified),
            _ => {}
        }
    }

    fn mark(&mut self, step: &str, set: impl Fn(&mut Comparison) -> &mut FieldSet) {
        self.path.push(step.to_owned());
        set(&mut self.found).insert(&self.path);
        self.path.pop();
    }
}

/// Adds a value that only one of the objects has, with all that it contains.
fn whole<'m>(model: &'m Model, place: Place<'m>, value: &Value, node: &mut Node) {
    node.is_member = true;
    let view = place.view(model);
    match (view, value) {
        (View::Struct(_) | View::Map(_), Value::Object(members)) => {
            for (name, value) in members {
                whole(model, view.member(model, name).0, value, node.below.entry(element::field(name)));
            }
        }
        (View::Set | View::Keyed(..), Value::Array(elements)) => {
            for (step, (place, values)) in index(model, view, elements).unwrap_or_default() {
                match values.as_slice() {
                    [value] => whole(model, place, value, node.below.entry(step)),
                    _ => node.below.entry(step).is_member = true,
                }
            }
        }
        _ => {}
    }
}

/// Returns the members of an object, of which null has none; `None` for another value.
fn members<'v>(value: &'v Value, none: &'v Map<String, Value>) -> Option<&'v Map<String, Value>> {
    if value.is_null() { Some(none) } else { value.as_object() }
}

/// Returns the elements of a list, of which null has none; `None` for another value.
fn elements(value: &Value) -> Option<&[Value]> {
    if value.is_null() { Some(&[]) } else { value.as_array().map(Vec::as_slice) }
}

/// Elements by their step, with their place.
type Elements<'m, 'v> = BTreeMap<String, (Place<'m>, Vec<&'v Value>)>;

fn index<'m, 'v>(model: &'m Model, view: View<'m>, list: &'v [Value]) -> Option<Elements<'m, 'v>> {
    let mut index: Elements<'m, 'v> = BTreeMap::new();
    for value in list {
        let (step, place) = step(model, view, value).ok()?;
        index.entry(step).or_insert_with(|| (place, Vec::new())).1.push(value);
    }
    Some(index)
}
