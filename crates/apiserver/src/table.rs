//! The `Table` representation, which is what `kubectl get` prints.

use jiff::Timestamp;
use quorate_api::{Revision, Status};
use quorate_mvcc::KeyValue;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::encode;
use crate::representation::IncludeObject;

/// Collects the rows of a table; the columns are the kind's.
pub(crate) struct TableWriter<'a> {
    served: &'a Served,
    include: IncludeObject,
    now: Timestamp,
    rows: Vec<u8>,
}

impl<'a> TableWriter<'a> {
    pub fn new(served: &'a Served, include: IncludeObject) -> Self {
        TableWriter { served, include, now: Timestamp::now(), rows: Vec::new() }
    }

    /// Adds the row of a stored object.
    ///
    /// # Errors
    /// When the object cannot be decoded.
    pub fn stored(&mut self, kv: &KeyValue) -> Result<(), Status> {
        self.object(&encode::decoded(&kv.value, kv.mod_revision)?)
    }

    /// Adds the row of an object that has its `resourceVersion`.
    ///
    /// # Errors
    /// When the object cannot be encoded.
    pub fn object(&mut self, object: &Value) -> Result<(), Status> {
        let cells = self.served.descriptor.strategy.cells(object, self.now);
        if !self.rows.is_empty() {
            self.rows.push(b',');
        }
        self.rows.extend_from_slice(b"{\"cells\":");
        serde_json::to_writer(&mut self.rows, &cells).map_err(Status::internal)?;
        match self.include {
            IncludeObject::None => {}
            IncludeObject::Object => {
                self.rows.extend_from_slice(b",\"object\":");
                serde_json::to_writer(&mut self.rows, object).map_err(Status::internal)?;
            }
            IncludeObject::Metadata => {
                self.rows.extend_from_slice(
                    br#","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
                );
                serde_json::to_writer(&mut self.rows, &object["metadata"]).map_err(Status::internal)?;
                self.rows.push(b'}');
            }
        }
        self.rows.push(b'}');
        Ok(())
    }

    /// Writes the whole table; `metadata` is the list's.
    ///
    /// # Errors
    /// When the table cannot be encoded.
    pub fn finish(self, metadata: &Value, out: &mut Vec<u8>) -> Result<(), Status> {
        let columns: Vec<Value> = self
            .served
            .descriptor
            .columns
            .iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.data_type,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect();
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
        serde_json::to_writer(&mut *out, metadata).map_err(Status::internal)?;
        out.extend_from_slice(b",\"columnDefinitions\":");
        serde_json::to_writer(&mut *out, &columns).map_err(Status::internal)?;
        out.extend_from_slice(b",\"rows\":[");
        out.extend_from_slice(&self.rows);
        out.extend_from_slice(b"]}");
        Ok(())
    }
}

/// Returns the metadata of a list or table at a revision.
pub(crate) fn list_metadata(revision: Revision) -> Value {
    json!({ "resourceVersion": revision.to_string() })
}
