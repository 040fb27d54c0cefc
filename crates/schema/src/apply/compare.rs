//! The fields in which two objects differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element;
use super::extract::step;
use super::set::FieldSet;
use super::walk::{EMPTY, Place, View, elements, members};
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
        if left == right {
            return;
        }
        let view = place.view(self.model);
        let is_done = match view {
            View::Leaf => false,
            View::Struct(_) | View::Map(_) => self.visit_members(view, left, right),
            View::Set | View::Keyed(..) => self.visit_elements(view, left, right),
        };
        match (is_done, left, right) {
            (_, None, _) => self.found.added.insert(&self.path),
            (_, _, None) => self.found.removed.insert(&self.path),
            (false, ..) => self.found.modified.insert(&self.path),
            (true, ..) => {}
        }
    }

    /// Compares two objects by their members; returns false when the two are to be compared as a whole.
    fn visit_members(&mut self, view: View<'m>, left: Option<&Value>, right: Option<&Value>) -> bool {
        let is_other = |value: Option<&Value>| value.is_some_and(|value| !value.is_object() && !value.is_null());
        if is_other(left) || is_other(right) {
            return false;
        }
        let is_present = (left.is_some(), right.is_some());
        let none = Map::new();
        let (left, right) = (members(left).unwrap_or(&none), members(right).unwrap_or(&none));
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
            let left = left.or(empty.filter(|_| is_present.0));
            let right = right.or(empty.filter(|_| is_present.1));
            self.enter(element::field(name), place, left, right);
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
    fn visit_elements(&mut self, view: View<'m>, left: Option<&Value>, right: Option<&Value>) -> bool {
        let is_other = |value: Option<&Value>| value.is_some_and(|value| !value.is_array() && !value.is_null());
        let (lefts, rights) = (elements(left).unwrap_or_default(), elements(right).unwrap_or_default());
        if is_other(left) || is_other(right) || (lefts.is_empty() && rights.is_empty()) {
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
