//! Sets of fields, and their form `FieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element;

/// Maximum depth of a set that a client sends.
const MAX_DEPTH: usize = 64;
/// Maximum number of elements of a set that a client sends.
const MAX_ELEMENTS: usize = 100_000;
/// Maximum length of a path in a message. A set can have one long element around very many others.
const MAX_PATH_CHARS: usize = 1024;

/// The reason why a value is not a set of fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSetError {
    #[error("a set of fields is not an object")]
    NotAnObject,
    #[error("invalid path element {0:?}")]
    Element(String),
    #[error("a set of fields is too deep")]
    TooDeep,
    #[error("a set of fields has too many elements")]
    TooLarge,
}

/// A set of paths. Steps are kept in their written form (`f:spec`, `k:{"name":"web"}`), so that most operations need no
/// type. A path can be in the set while paths below it are not, and the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    children: BTreeMap<String, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub is_member: bool,
    pub below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl FieldSet {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Adds a path; the empty path, an object's root, is in no set.
    pub fn insert<S: AsRef<str>>(&mut self, path: &[S]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.node(first.as_ref());
        if rest.is_empty() {
            node.is_member = true;
        } else {
            node.below.insert(rest);
        }
    }

    pub(super) fn node(&mut self, element: &str) -> &mut Node {
        // A second search costs less than a copy of the element.
        if !self.children.contains_key(element) {
            self.children.insert(element.to_owned(), Node::default());
        }
        self.children.get_mut(element).expect("it was just inserted")
    }

    pub(super) fn entry(&mut self, element: String) -> &mut Node {
        self.children.entry(element).or_default()
    }

    /// Returns the node at a path, which is not empty.
    pub(super) fn at(&mut self, path: &[String]) -> &mut Node {
        let (first, rest) = path.split_first().expect("a path below the root");
        rest.iter().fold(self.node(first), |node, step| node.below.node(step))
    }

    pub(super) fn child(&self, element: &str) -> Option<&Node> {
        self.children.get(element)
    }

    pub(super) fn children_mut(&mut self) -> impl Iterator<Item = (&String, &mut Node)> {
        self.children.iter_mut()
    }

    /// Drops the nodes below which there is no path.
    pub(super) fn prune(&mut self, element: &str) {
        if self.children.get(element).is_some_and(Node::is_empty) {
            self.children.remove(element);
        }
    }

    /// Adds all paths of another set.
    pub fn extend(&mut self, other: &FieldSet) {
        for (element, theirs) in &other.children {
            let node = self.node(element);
            node.is_member |= theirs.is_member;
            node.below.extend(&theirs.below);
        }
    }

    /// Removes the paths of another set. Paths below them stay. Costs as much as the smaller of the two sets.
    pub fn subtract(&mut self, other: &FieldSet) {
        let without = |node: &mut Node, theirs: &Node| {
            node.is_member &= !theirs.is_member;
            node.below.subtract(&theirs.below);
        };
        if self.children.len() < other.children.len() {
            self.children.retain(|element, node| {
                let Some(theirs) = other.children.get(element) else { return true };
                without(node, theirs);
                !node.is_empty()
            });
            return;
        }
        for (element, theirs) in &other.children {
            if let Some(node) = self.children.get_mut(element) {
                without(node, theirs);
                self.prune(element);
            }
        }
    }

    /// Removes a path and all paths below it.
    pub fn remove_tree<S: AsRef<str>>(&mut self, path: &[S]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.children.remove(first.as_ref());
        } else if let Some(node) = self.children.get_mut(first.as_ref()) {
            node.below.remove_tree(rest);
            self.prune(first.as_ref());
        }
    }

    /// Returns the paths that are in both sets. Costs as much as the smaller of the two sets.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let (smaller, larger) = if self.children.len() <= other.children.len() { (self, other) } else { (other, self) };
        let common = smaller.children.iter().filter_map(|(element, node)| {
            let theirs = larger.children.get(element)?;
            let below = node.below.intersection(&theirs.below);
            let node = Node { is_member: node.is_member && theirs.is_member, below };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        FieldSet { children: common.collect() }
    }

    /// Returns the first paths in the form of messages, such as `.spec.ports[port=53,protocol="UDP"].name`. A path comes
    /// before those below it, and a long one is cut.
    #[must_use]
    pub fn paths(&self, max: usize) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), max, &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, max: usize, paths: &mut Vec<String>) {
        for (element, node) in &self.children {
            if paths.len() >= max {
                return;
            }
            let length = prefix.len();
            prefix.push_str(&element::shown(element));
            if node.is_member {
                paths.push(prefix.chars().take(MAX_PATH_CHARS).collect());
            }
            node.below.collect(prefix, max, paths);
            prefix.truncate(length);
        }
    }

    /// Reads `FieldsV1`. Elements of an unknown kind are left out, and the others are brought into their canonical form.
    ///
    /// # Errors
    /// When the value is not of this form, or exceeds the limits of depth and size.
    pub fn from_json(fields: &Value) -> Result<Self, FieldSetError> {
        let mut budget = MAX_ELEMENTS;
        read(fields, 0, &mut budget).map(|(set, _)| set)
    }

    /// Returns the set as `FieldsV1`.
    #[must_use]
    pub fn into_json(self) -> Value {
        Value::Object(self.write())
    }

    fn write(self) -> Map<String, Value> {
        let write = |(element, node): (String, Node)| {
            let mut below = node.below.write();
            if node.is_member && !below.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (element, Value::Object(below))
        };
        self.children.into_iter().map(write).collect()
    }
}

/// Returns whether `FieldsV1` in its canonical form has a path of the set.
pub(super) fn has_any(fields: &Value, set: &FieldSet) -> bool {
    set.children.iter().any(|(element, node)| {
        let Some(below) = fields.get(element) else { return false };
        (node.is_member && is_member(below)) || has_any(below, &node.below)
    })
}

/// Returns whether `FieldsV1` in its canonical form has all paths of the set.
pub(super) fn has_all(fields: &Value, set: &FieldSet) -> bool {
    set.children.iter().all(|(element, node)| {
        let Some(below) = fields.get(element) else { return false };
        (!node.is_member || is_member(below)) && has_all(below, &node.below)
    })
}

/// Returns whether an element is in the set itself, not only paths below it.
fn is_member(below: &Value) -> bool {
    below.as_object().is_some_and(|below| below.is_empty() || below.contains_key("."))
}

/// Reads the paths below an element, and whether the element itself is in the set.
fn read(fields: &Value, depth: usize, budget: &mut usize) -> Result<(FieldSet, bool), FieldSetError> {
    if depth > MAX_DEPTH {
        return Err(FieldSetError::TooDeep);
    }
    let fields = fields.as_object().ok_or(FieldSetError::NotAnObject)?;
    let (mut set, mut is_member) = (FieldSet::default(), false);
    for (key, value) in fields {
        *budget = budget.checked_sub(1).ok_or(FieldSetError::TooLarge)?;
        if key == "." {
            is_member = true;
            continue;
        }
        let Some(element) = element::canonical(key)? else { continue };
        let (below, is_child_member) = read(value, depth + 1, budget)?;
        let node = set.children.entry(element).or_default();
        node.is_member |= is_child_member;
        node.below.extend(&below);
    }
    let is_leaf = set.is_empty();
    Ok((set, is_member || is_leaf))
}

impl<S: AsRef<str>> FromIterator<Vec<S>> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Vec<S>>>(paths: I) -> Self {
        let mut set = FieldSet::default();
        paths.into_iter().for_each(|path| set.insert(&path));
        set
    }
}
