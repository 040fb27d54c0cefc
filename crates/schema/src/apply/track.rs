//! Keeps the managers of an object up to date, and applies configurations.

use std::collections::BTreeMap;
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

/// The other versions of an object, for the managers that have written in them.
pub trait Versions {
    /// Returns the type of a version, which may be the writer's, and an object of the writer's version in it; `None` if
    /// it is not served.
    fn convert(&self, object: &Value, api_version: &str) -> Option<(TypeId, Value)>;

    /// Returns an object of another version in the writer's.
    fn restore(&self, object: Value, api_version: &str) -> Value;
}

/// The versions of an object that is served in one.
#[derive(Clone, Copy, Debug)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn convert(&self, _object: &Value, _api_version: &str) -> Option<(TypeId, Value)> {
        None
    }

    fn restore(&self, object: Value, _api_version: &str) -> Value {
        object
    }
}

/// A change of an object in the fields that managers have.
#[derive(Clone, Debug, Default)]
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
/// and all lose the fields that are gone. `elsewhere` returns the change in another version, or `None` if that is not
/// served; its managers are dropped, as in Kubernetes.
pub fn update(
    change: Change,
    elsewhere: impl Fn(&str) -> Option<Change>,
    managers: &mut Managers,
    writer: &Writer<'_>,
) {
    let mut others: BTreeMap<String, Option<Change>> = BTreeMap::new();
    for entry in &mut managers.entries {
        let seen = if entry.api_version == writer.api_version {
            Some(&change)
        } else {
            others.entry(entry.api_version.clone()).or_insert_with(|| elsewhere(&entry.api_version)).as_ref()
        };
        match seen {
            Some(Change { set, removed }) => {
                entry.fields.subtract(set);
                entry.fields.subtract(removed);
            }
            None => entry.fields = FieldSet::default(),
        }
    }
    let set = change.set;
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
pub fn update_stored(
    change: Change,
    elsewhere: impl Fn(&str) -> Option<Change>,
    stored: &Value,
    writer: &Writer<'_>,
) -> Option<Value> {
    let own = writer.entry(Operation::Update, FieldSet::default());
    managers::repeated(stored, &change.set, &change.removed, &own).or_else(|| {
        let mut managers = Managers::stored(Some(stored));
        update(change, elsewhere, &mut managers, writer);
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
    versions: &dyn Versions,
    live: &Value,
    managers: &Managers,
    request: &Apply<'_>,
) -> Result<Applied, TypedErrors> {
    let mut managers = managers.clone();
    let writer = &request.writer;
    if managers.entries.is_empty() && live.as_object().is_some_and(|live| !live.is_empty()) {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        if let Some(change) = Change::between(model, ty, &Value::Object(serde_json::Map::new()), live) {
            update(change, |_| None, &mut managers, &before);
        }
    }
    let configured = extract(model, ty, request.configuration)?;
    let mut set = configured.clone();
    set.subtract(&UNMANAGED);
    request.ignored.iter().for_each(|path| set.remove_tree(path));
    let own = writer.entry(Operation::Apply, set);

    let mut new = merge(model, ty, live, request.configuration);
    if let Some(last) = managers.of(&own).filter(|last| !last.fields.is_empty()) {
        let others: Vec<&Entry> = managers.entries.iter().filter(|entry| !is_own(entry, &own)).collect();
        let (here, elsewhere): (Vec<&Entry>, Vec<&Entry>) =
            others.into_iter().partition(|entry| entry.api_version == last.api_version);
        let pruned = |ty, merged: &Value, mut owned: FieldSet| {
            here.iter().for_each(|entry| owned.extend(&entry.fields));
            prune(model, ty, merged, &last.fields, &owned)
        };
        let merged = new;
        // The name, which nobody manages, keeps the metadata as well, so the whole configuration counts as owned.
        new = if last.is_in(writer) {
            pruned(ty, &merged, configured)
        } else {
            let convert = |object| versions.convert(object, &last.api_version);
            match (convert(&merged), convert(request.configuration)) {
                (Some((ty, merged)), Some((_, configuration))) => {
                    let configured = extract(model, ty, &configuration)?;
                    versions.restore(pruned(ty, &merged, configured), &last.api_version)
                }
                _ => merged.clone(),
            }
        };
        for others in elsewhere.chunk_by(|a, b| a.api_version == b.api_version) {
            new = restored(model, versions, &merged, new, others);
        }
    }
    let seen = |api_version: &str| -> Option<Taken> {
        let mut taken = if api_version == writer.api_version {
            Taken::between(model, ty, live, &new)
        } else {
            let (ty, live) = versions.convert(live, api_version)?;
            Taken::between(model, ty, &live, &versions.convert(&new, api_version)?.1)
        };
        for path in request.ignored {
            taken.changed.remove_tree(path);
            taken.gone.remove_tree(path);
        }
        Some(taken)
    };
    let mut seen_in: BTreeMap<String, Taken> = BTreeMap::new();
    for entry in &managers.entries {
        if !seen_in.contains_key(&entry.api_version)
            && let Some(taken) = seen(&entry.api_version)
        {
            seen_in.insert(entry.api_version.clone(), taken);
        }
    }
    // As in Kubernetes, the managers of a version that is not served any more are dropped.
    managers.entries.retain(|entry| seen_in.contains_key(&entry.api_version));
    let conflicts: Vec<(&Entry, FieldSet)> = managers
        .entries
        .iter()
        .filter(|entry| !is_own(entry, &own))
        .filter_map(|entry| Some((entry, entry.fields.intersection(&seen_in.get(&entry.api_version)?.changed))))
        .map(|(entry, mut fields)| {
            if let Some(transferred) = request.transferred.filter(|_| entry.is_in(writer)) {
                fields.subtract(transferred);
            }
            (entry, fields)
        })
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if !conflicts.is_empty() && !request.force {
        let shown = conflicts.iter().flat_map(|(entry, set)| shown(entry, set));
        return Ok(Applied::Conflicts(shown.take(MAX_CONFLICTS).collect()));
    }
    for entry in managers.entries.iter_mut().filter(|entry| !is_own(entry, &own)) {
        if let Some(Taken { changed, gone }) = seen_in.get(&entry.api_version) {
            entry.fields.subtract(changed);
            entry.fields.subtract(gone);
        }
    }
    managers.put(own);
    managers.drop_empty();
    Ok(Applied::Object(new, managers))
}

/// The fields that an apply changes, in one version.
struct Taken {
    changed: FieldSet,
    gone: FieldSet,
}

impl Taken {
    fn between(model: &Model, ty: TypeId, live: &Value, new: &Value) -> Self {
        let comparison = compare(model, ty, live, new);
        Taken { changed: comparison.set(), gone: comparison.removed }
    }
}

/// Returns `pruned` with those fields of `merged` that managers of another version have.
fn restored(model: &Model, versions: &dyn Versions, merged: &Value, pruned: Value, others: &[&Entry]) -> Value {
    let Some(api_version) = others.first().map(|entry| entry.api_version.as_str()) else { return pruned };
    let Some((ty, merged)) = versions.convert(merged, api_version) else { return pruned };
    let Some((_, without)) = versions.convert(&pruned, api_version) else { return pruned };
    let removed = compare(model, ty, &merged, &without).removed;
    let mut owned = FieldSet::default();
    others.iter().for_each(|entry| owned.extend(&entry.fields));
    if removed.intersection(&owned).is_empty() {
        return pruned;
    }
    versions.restore(prune(model, ty, &merged, &removed, &owned), api_version)
}

fn is_own(entry: &Entry, own: &Entry) -> bool {
    entry.operation == Operation::Apply && entry.manager == own.manager && entry.subresource == own.subresource
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
