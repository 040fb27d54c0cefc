//! The entries of `metadata.managedFields`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{self, FieldSet, FieldSetError};
use super::track::Writer;

/// Maximum number of entries of updates, as in Kubernetes.
const MAX_UPDATERS: usize = 10;
/// The manager that takes over the fields of the oldest updates when there are too many.
const ANCIENT: &str = "ancient-changes";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// The fields that one manager has set in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// As Kubernetes formats it; such times order like their texts.
    pub time: Option<String>,
    pub fields: FieldSet,
}

impl Entry {
    /// Returns whether the fields are those of the writer's version.
    pub(super) fn is_in(&self, writer: &Writer<'_>) -> bool {
        self.api_version == writer.api_version
    }

    /// Returns whether two entries are of the same writer.
    fn is_same_writer(&self, other: &Entry) -> bool {
        self.writer() == other.writer()
    }

    /// Returns the operation, the manager, the subresource and the version of the writer. An applier is the same in all
    /// versions of its kind.
    fn writer(&self) -> (Operation, &str, &str, &str) {
        let version = if self.operation == Operation::Apply { "" } else { self.api_version.as_str() };
        (self.operation, &self.manager, &self.subresource, version)
    }
}

/// The reason why `metadata.managedFields` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    #[error("managedFields is not a list of objects")]
    Shape,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("fieldsType must be FieldsV1")]
    FieldsType,
    #[error(transparent)]
    Fields(#[from] FieldSetError),
}

/// The entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers {
    pub entries: Vec<Entry>,
}

impl Managers {
    /// Reads the entries that an object has; none when they cannot be read, as in Kubernetes.
    #[must_use]
    pub fn stored(managed_fields: Option<&Value>) -> Self {
        let list = managed_fields.and_then(Value::as_array);
        list.and_then(|list| Managers::read(list).ok()).unwrap_or_default()
    }

    /// Reads the entries of an object that replaces another: the client's, or the old object's if the client has sent
    /// none that can be used. An empty list, or a list with one empty entry, resets them.
    #[must_use]
    pub fn given_or_stored(given: Option<&Value>, stored: Option<&Value>) -> Self {
        match given.and_then(Value::as_array) {
            Some(list) if is_reset(list) => Managers::default(),
            Some(list) if Some(list) != stored.and_then(Value::as_array) => match Managers::read(list) {
                Ok(managers) if !managers.entries.is_empty() => managers,
                _ => Managers::stored(stored),
            },
            _ => Managers::stored(stored),
        }
    }

    fn read(list: &[Value]) -> Result<Self, EntryError> {
        let mut entries = list.iter().map(read_entry).collect::<Result<Vec<_>, _>>()?;
        // A client may send very many entries, so the entry of the same writer is not searched for. The last one counts,
        // in the place of the first.
        let mut places: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            places.entry(entry.writer()).or_insert((index, index)).1 = index;
        }
        if places.len() < entries.len() {
            let mut kept: Vec<(usize, usize)> = places.into_values().collect();
            kept.sort_unstable();
            entries = kept.into_iter().map(|(_, last)| entries[last].clone()).collect();
        }
        Ok(Managers { entries })
    }

    /// Returns the entries as `metadata.managedFields`; `None` when there are none.
    #[must_use]
    pub fn into_json(mut self) -> Option<Value> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.sort_by(|a, b| key(a).cmp(&key(b)));
        Some(Value::Array(self.entries.into_iter().map(write_entry).collect()))
    }

    /// Takes over the times of the entries whose fields are as they were.
    pub fn keep_times(&mut self, before: &Managers) {
        for entry in &mut self.entries {
            if let Some(known) = before.of(entry).filter(|known| known.fields == entry.fields) {
                entry.time.clone_from(&known.time);
            }
        }
    }

    /// Returns the entry of the same writer.
    pub(super) fn of(&self, writer: &Entry) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_same_writer(writer))
    }

    /// Sets a writer's entry.
    pub(super) fn put(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|known| known.is_same_writer(&entry)) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
    }

    /// Drops the writers without fields.
    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|entry| !entry.fields.is_empty());
    }

    /// Merges the oldest updates of each version until there are not more than the maximum.
    pub(super) fn cap_updaters(&mut self) {
        let mut updaters: Vec<usize> =
            (0..self.entries.len()).filter(|index| self.entries[*index].operation == Operation::Update).collect();
        let mut excess = updaters.len().saturating_sub(MAX_UPDATERS);
        if excess == 0 {
            return;
        }
        updaters.sort_by_key(|index| (&self.entries[*index].time, &self.entries[*index].manager));
        let mut firsts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut buckets: BTreeMap<&str, Entry> = BTreeMap::new();
        let mut merged = BTreeSet::new();
        for index in updaters {
            let entry = &self.entries[index];
            let Some(&first) = firsts.get(entry.api_version.as_str()) else {
                firsts.insert(&entry.api_version, index);
                continue;
            };
            if excess == 0 {
                break;
            }
            let bucket = buckets.entry(&entry.api_version).or_insert_with(|| {
                let manager = ANCIENT.to_owned();
                Entry { manager, subresource: String::new(), ..self.entries[first].clone() }
            });
            bucket.fields.extend(&entry.fields);
            bucket.time.clone_from(&entry.time);
            merged.extend([first, index]);
            excess -= 1;
        }
        let buckets: Vec<Entry> = buckets.into_values().collect();
        let mut index = 0;
        self.entries.retain(|_| {
            index += 1;
            !merged.contains(&(index - 1))
        });
        for mut bucket in buckets {
            if let Some(known) = self.of(&bucket) {
                bucket.fields.extend(&known.fields);
            }
            self.put(bucket);
        }
    }
}

/// Returns the entries of an object after an update that takes no field from another manager and gives its writer none
/// that is new: only the time of the writer's entry changes. `None` for every other update. Most updates repeat an earlier
/// one with other values, and then no set of fields is read and written again.
pub(super) fn repeated(stored: &Value, set: &FieldSet, removed: &FieldSet, writer: &Entry) -> Option<Value> {
    let is_own = |entry: &Value| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        text("operation") == Operation::Update.as_str()
            && text("manager") == writer.manager
            && text("apiVersion") == writer.api_version
            && text("subresource") == writer.subresource
    };
    let mut own = None;
    for (index, entry) in stored.as_array()?.iter().enumerate() {
        // Another version has other fields.
        if entry["apiVersion"] != writer.api_version {
            return None;
        }
        let fields = entry.get("fieldsV1").filter(|_| entry["fieldsType"] == "FieldsV1")?;
        // A client may have sent an entry without fields, which the update drops.
        if fields.as_object().is_none_or(Map::is_empty) {
            return None;
        }
        let is_kept = if is_own(entry) {
            own = Some(index);
            set::has_all(fields, set)
        } else {
            !set::has_any(fields, set)
        };
        if !is_kept || set::has_any(fields, removed) {
            return None;
        }
    }
    let mut entries = stored.as_array()?.clone();
    if !set.is_empty() {
        let mut entry = entries.remove(own?);
        entry["time"] = writer.time.as_deref()?.into();
        let order = |entry: &Value| {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            ["operation", "time", "manager", "apiVersion", "subresource"].map(text)
        };
        let key = order(&entry);
        let place = entries.partition_point(|other| order(other) <= key);
        entries.insert(place, entry);
    }
    Some(Value::Array(entries))
}

fn is_reset(list: &[Value]) -> bool {
    match list {
        [] => true,
        [one] => one.as_object().is_some_and(|entry| entry.values().all(|value| value == "" || value.is_null())),
        _ => false,
    }
}

/// The order of the entries in an object.
fn key(entry: &Entry) -> (Operation, &Option<String>, &str, &str, &str) {
    (entry.operation, &entry.time, &entry.manager, &entry.api_version, &entry.subresource)
}

fn read_entry(value: &Value) -> Result<Entry, EntryError> {
    let fields = value.as_object().ok_or(EntryError::Shape)?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(EntryError::Operation),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err(EntryError::ApiVersion);
    }
    if text("fieldsType") != "FieldsV1" {
        return Err(EntryError::FieldsType);
    }
    let set = fields.get("fieldsV1").filter(|fields| !fields.is_null());
    Ok(Entry {
        manager: text("manager"),
        operation,
        api_version,
        subresource: text("subresource"),
        time: Some(text("time")).filter(|time| !time.is_empty()),
        fields: set.map_or_else(|| Ok(FieldSet::default()), FieldSet::from_json)?,
    })
}

fn write_entry(entry: Entry) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            fields.insert(name.to_owned(), value.into());
        }
    };
    put("apiVersion", &entry.api_version);
    put("fieldsType", "FieldsV1");
    put("manager", &entry.manager);
    put("operation", entry.operation.as_str());
    put("subresource", &entry.subresource);
    put("time", entry.time.as_deref().unwrap_or_default());
    fields.insert("fieldsV1".to_owned(), entry.fields.into_json());
    Value::Object(fields)
}
