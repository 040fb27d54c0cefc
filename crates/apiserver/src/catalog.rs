//! The kinds that are served now: the descriptors, and the data derived from them.

use std::sync::Arc;

use quorate_api::{FieldError, ObjectKey, ResourcePrefix, Status};
use quorate_registry::{Descriptor, Scope};

use crate::discovery::Documents;
use crate::{error, openapi};

/// A descriptor with the prefix of its objects' stored form.
pub(crate) struct Served {
    pub descriptor: Descriptor,
    pub api_version: String,
    /// `{"apiVersion":"…","kind":"…","metadata":{`, the prefix of each stored object.
    pub stored_prefix: String,
}

impl Served {
    fn new(descriptor: Descriptor) -> Self {
        let api_version = descriptor.kind.api_version();
        let stored_prefix =
            format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{}\",\"metadata\":{{", descriptor.kind.kind);
        Served { descriptor, api_version, stored_prefix }
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

/// All kinds, in the order of the table.
pub(crate) struct Catalog {
    pub rows: Vec<Arc<Served>>,
    pub documents: Documents,
    pub openapi: openapi::Documents,
}

impl Catalog {
    pub fn new(descriptors: Vec<Descriptor>) -> Self {
        let rows: Vec<_> = descriptors.into_iter().map(|d| Arc::new(Served::new(d))).collect();
        let documents = Documents::render(&rows);
        let openapi = openapi::Documents::new(&rows);
        Catalog { rows, documents, openapi }
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
