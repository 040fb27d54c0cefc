//! Keeps the managers of an object up to date, and applies configurations.

use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::extract::{TypedErrors, extract};
use super::managers::{self, Entry, Managers, Operation};
use super::merge::merge;
use super::remove::prune;
use super::set::FieldSet;
use crate::model::{Model, TypeId};

/// Maximum number of conflicts that an apply reports. Each repeats the path of its field, so many of them below one long
/// key would take far more memory than the object.
pub const MAX_CONFLICTS: usize = 500;
/// The manager of an object's fields before the first apply, if they were not tracked until then.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The writer of a change.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The time of the change, as Kubernetes formats it.
    pub time: &'a str,
}

impl Writer<'_> {
    fn entry(&self, operation: Operation, fields: FieldSet) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: Some(self.time.to_owned()),
            fields,
        }
    }
}

/// The fields that nobody manages, because the server sets them.
static UNMANAGED: LazyLock<FieldSet> = LazyLock::new(|| {
    const METADATA: [&str; 8] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ];
    let mut fields: FieldSet = METADATA.into_iter().map(|field| vec!["f:metadata", field]).collect();
    ["f:apiVersion", "f:kind", "f:metadata"].into_iter().for_each(|field| fields.insert(&[field]));
    fields
});

/// A change of an object in the fields that managers have.
#[derive(Clone, Debug)]
pub struct Change {
    /// The fields that have a new value.
    set: FieldSet,
    removed: FieldSet,
}

impl Change {
    /// Returns the change from `old` to `new`; `None` when no field differs that a manager can have.
    #[must_use]
    pub fn between(model: &Model, ty: TypeId, old: &Value, new: &Value) -> Option<Self> {
        let Comparison { added: mut set, modified, mut removed } = compare(model, ty, old, new);
        set.extend(&modified);
        set.subtract(&UNMANAGED);
        removed.subtract(&UNMANAGED);
        (!set.is_empty() || !removed.is_empty()).then_some(Change { set, removed })
    }
}

/// Tracks a change that was not an apply. The writer gets the fields that it has set or changed. The others lose those,
/// and all lose the fields that are gone.
pub fn update(change: Change, managers: &mut Managers, writer: &Writer<'_>) {
    let Change { set, removed } = change;
    for entry in &mut managers.entries {
        entry.fields.subtract(&set);
        entry.fields.subtract(&removed);
    }
    if !set.is_empty() {
        let mut entry = writer.entry(Operation::Update, set);
        if let Some(known) = managers.of(&entry) {
            entry.fields.extend(&known.fields);
        }
        managers.put(entry);
    }
    managers.drop_empty();
    managers.cap_updaters();
}

/// Like [`update`], for the `managedFields` of a stored object. Returns those of the changed object.
#[must_use]
pub fn update_stored(change: Change, stored: &Value, writer: &Writer<'_>) -> Option<Value> {
    let own = writer.entry(Operation::Update, FieldSet::default());
    managers::repeated(stored, &change.set, &change.removed, &own).or_else(|| {
        let mut managers = Managers::stored(Some(stored));
        update(change, &mut managers, writer);
        managers.into_json()
    })
}

/// A field that an applier wants to change and another manager has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The manager in the form of messages: `"kubectl" with subresource "scale" using v1`.
    pub manager: String,
    /// Such as `.spec.replicas`.
    pub path: String,
}

/// The outcome of an apply.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The new object and its managers. The time of the applier's entry is the writer's.
    Object(Value, Managers),
    /// At most [`MAX_CONFLICTS`].
    Conflicts(Vec<Conflict>),
}

/// A configuration to apply.
#[derive(Clone, Copy, Debug)]
pub struct Apply<'a> {
    pub configuration: &'a Value,
    pub writer: Writer<'a>,
    /// Fields that this endpoint does not write, so that the configuration cannot own them.
    pub ignored: &'a [&'a [&'a str]],
    /// Takes fields from the managers that have them.
    pub force: bool,
    /// Fields that are taken although another manager has them: those of an earlier client-side apply.
    pub transferred: Option<&'a FieldSet>,
}

/// Applies a configuration to `live`, which is without its `managedFields`; an absent object is an empty one.
///
/// # Errors
/// When the configuration's lists have elements that cannot be told apart.
pub fn apply(
    model: &Model,
    ty: TypeId,
    live: &Value,
    managers: &Managers,
    request: &Apply<'_>,
) -> Result<Applied, TypedErrors> {
    let mut managers = managers.clone();
    let writer = &request.writer;
    if managers.entries.is_empty() && live.as_object().is_some_and(|live| !live.is_empty()) {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        if let Some(change) = Change::between(model, ty, &Value::Object(serde_json::Map::new()), live) {
            update(change, &mut managers, &before);
        }
    }
    let configured = extract(model, ty, request.configuration)?;
    let mut set = configured.clone();
    set.subtract(&UNMANAGED);
    request.ignored.iter().for_each(|path| set.remove_tree(path));
    let own = writer.entry(Operation::Apply, set);
    let last = managers.of(&own).map(|entry| entry.fields.clone()).unwrap_or_default();

    let mut new = merge(model, ty, live, request.configuration);
    if !last.is_empty() {
        // The name, which nobody manages, keeps the metadata as well.
        let mut owned = configured;
        let others = managers.entries.iter().filter(|entry| !is_own(entry, &own));
        others.for_each(|entry| owned.extend(&entry.fields));
        new = prune(model, ty, &new, &last, &owned);
    }
    let comparison = compare(model, ty, live, &new);
    let mut taken = comparison.set();
    request.ignored.iter().for_each(|path| taken.remove_tree(path));
    let mut contested = taken.clone();
    if let Some(transferred) = request.transferred {
        contested.subtract(transferred);
    }
    let conflicts = conflicts(&managers, &own, &contested);
    if !conflicts.is_empty() && !request.force {
        let shown = conflicts.iter().flat_map(|(entry, set)| shown(entry, set));
        return Ok(Applied::Conflicts(shown.take(MAX_CONFLICTS).collect()));
    }
    let mut gone = comparison.removed;
    request.ignored.iter().for_each(|path| gone.remove_tree(path));
    for entry in managers.entries.iter_mut().filter(|entry| !is_own(entry, &own)) {
        entry.fields.subtract(&taken);
        entry.fields.subtract(&gone);
    }
    managers.put(own);
    managers.drop_empty();
    Ok(Applied::Object(new, managers))
}

fn is_own(entry: &Entry, own: &Entry) -> bool {
    entry.operation == Operation::Apply && entry.manager == own.manager && entry.subresource == own.subresource
}

/// Returns the other managers' fields among those that change.
fn conflicts<'m>(managers: &'m Managers, own: &Entry, changed: &FieldSet) -> Vec<(&'m Entry, FieldSet)> {
    let others = managers.entries.iter().filter(|entry| !is_own(entry, own));
    let conflicts = others.map(|entry| (entry, entry.fields.intersection(changed)));
    conflicts.filter(|(_, set)| !set.is_empty()).collect()
}

fn shown(entry: &Entry, set: &FieldSet) -> Vec<Conflict> {
    let manager = ShownManager(entry).to_string();
    set.paths(MAX_CONFLICTS).into_iter().map(|path| Conflict { manager: manager.clone(), path }).collect()
}

struct ShownManager<'a>(&'a Entry);

impl fmt::Display for ShownManager<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { manager, subresource, operation, api_version, .. } = self.0;
        write!(f, "{manager:?}")?;
        if !subresource.is_empty() {
            write!(f, " with subresource {subresource:?}")?;
        }
        if *operation == Operation::Update {
            write!(f, " using {api_version}")?;
        }
        Ok(())
    }
}
