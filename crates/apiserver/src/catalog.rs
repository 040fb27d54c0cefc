//! The kinds that are served now, each in all its versions: the descriptors, and the data derived from them.

use std::borrow::Cow;
use std::sync::Arc;

use quorate_api::{FieldError, ObjectKey, ResourcePrefix, Status};
use quorate_registry::{Descriptor, Scope, Version, group_rank};
use serde_json::Value;

use crate::discovery::Documents;
use crate::{error, openapi};

/// A kind in one of its versions.
pub(crate) struct Served {
    pub descriptor: Descriptor,
    pub api_version: String,
    /// `{"apiVersion":"…","kind":"…","metadata":{`, the prefix of each object that is stored in this version.
    pub stored_prefix: String,
    /// The stored version, if it is another, and the conversions between it and this one.
    other: Option<(Arc<Served>, &'static Version)>,
}

impl Served {
    fn new(descriptor: Descriptor, other: Option<(Arc<Served>, &'static Version)>) -> Self {
        let api_version = descriptor.kind.api_version();
        let stored_prefix =
            format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{}\",\"metadata\":{{", descriptor.kind.kind);
        Served { descriptor, api_version, stored_prefix, other }
    }

    /// Returns the version in which the kind is stored.
    pub fn stored_version(self: &Arc<Self>) -> &Arc<Served> {
        self.other.as_ref().map_or(self, |(stored, _)| stored)
    }

    /// Returns the conversions of this version; `None` for the stored one.
    pub fn conversion(&self) -> Option<&'static Version> {
        self.other.as_ref().map(|(_, version)| *version)
    }

    /// Sets what the client left out of an object of this version, and rewrites it in the stored one.
    pub fn complete(&self, object: &mut Value) {
        match &self.other {
            None => self.descriptor.default(object),
            Some((stored, _)) => {
                self.descriptor.schema.default(object);
                self.store(object);
                stored.descriptor.default(object);
            }
        }
    }

    /// Rewrites an object of this version in the stored one.
    pub fn store(&self, object: &mut Value) {
        if let Some((stored, version)) = &self.other {
            (version.to_stored)(object);
            object["apiVersion"] = stored.api_version.as_str().into();
        }
    }

    /// Rewrites a stored object in this version.
    pub fn show(&self, object: &mut Value) {
        if let Some((_, version)) = &self.other {
            (version.from_stored)(object);
            object["apiVersion"] = self.api_version.as_str().into();
        }
    }

    /// Returns a stored object in this version.
    pub fn shown<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        if self.other.is_none() {
            return Cow::Borrowed(object);
        }
        let mut object = object.clone();
        self.show(&mut object);
        Cow::Owned(object)
    }

    /// Returns the refusal of an object with these errors.
    pub fn invalid(&self, name: &str, errors: &[FieldError]) -> Status {
        let kind = &self.descriptor.kind;
        Status::invalid(&kind.group, &kind.kind, name, errors)
    }

    pub fn is_namespaced(&self) -> bool {
        self.descriptor.scope == Scope::Namespaced
    }

    /// Returns the storage key of one object.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        ObjectKey {
            group: self.descriptor.resource.group.to_string(),
            resource: self.descriptor.resource.resource.to_string(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
        .storage_key()
    }

    /// Returns the storage prefix of the collection.
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        ResourcePrefix {
            group: self.descriptor.resource.group.to_string(),
            resource: self.descriptor.resource.resource.to_string(),
            namespace: namespace.map(str::to_owned),
        }
        .storage_prefix()
    }
}

/// All kinds in all versions, in discovery's order.
pub(crate) struct Catalog {
    pub rows: Vec<Arc<Served>>,
    pub documents: Documents,
    pub openapi: openapi::Documents,
}

impl Catalog {
    pub fn new(descriptors: Vec<Descriptor>) -> Self {
        let mut rows = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let stored = Arc::new(Served::new(descriptor, None));
            rows.push(Arc::clone(&stored));
            rows.extend(stored.descriptor.versions.iter().map(|version| {
                let other = Some((Arc::clone(&stored), version));
                Arc::new(Served::new(stored.descriptor.in_version(version), other))
            }));
        }
        // A version may be in another group than the stored one.
        rows.sort_by_key(|row| group_rank(&row.descriptor.kind.group));
        let documents = Documents::render(&rows);
        let openapi = openapi::Documents::new(&rows);
        Catalog { rows, documents, openapi }
    }

    /// Returns the version of a kind with this `apiVersion`; `None` if it is not served.
    pub fn version_of(&self, stored: &Served, api_version: &str) -> Option<&Arc<Served>> {
        let is_same_kind = |row: &Arc<Served>| row.stored_version().descriptor.resource == stored.descriptor.resource;
        self.rows.iter().find(|row| row.api_version == api_version && is_same_kind(row))
    }

    /// Finds a kind by linear search: there are some dozens of rows, and most names differ in the first bytes.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Result<&Arc<Served>, Status> {
        self.rows
            .iter()
            .find(|row| {
                let name = &row.descriptor.resource;
                name.resource == resource && name.group == group && name.version == version
            })
            .ok_or_else(error::no_such_path)
    }
}
