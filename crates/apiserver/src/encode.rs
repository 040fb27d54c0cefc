//! The stored form of objects, and how stored bytes reach the client without being decoded.
//!
//! An object is stored as JSON that begins with `{"apiVersion":…,"kind":…,"metadata":{` and has no `resourceVersion`.
//! The `resourceVersion` is the revision under which the object is stored, and readers splice it in.

use bytes::Bytes;
use quorate_api::{Revision, Status};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalog::Served;
use crate::error;

/// Maximum size of a stored object, in bytes; etcd's default request limit.
pub(crate) const MAX_OBJECT_BYTES: usize = 1536 * 1024;

/// Encodes an object for the store.
///
/// # Errors
/// etcd's refusal of objects larger than [`MAX_OBJECT_BYTES`].
pub(crate) fn stored(served: &Served, object: &Value) -> Result<Bytes, Status> {
    let fields = object.as_object().ok_or_else(|| Status::internal("an object is not a JSON object"))?;
    let metadata = fields.get("metadata").and_then(Value::as_object);
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(served.stored_prefix.as_bytes());
    let mut first = true;
    for (name, value) in metadata.into_iter().flatten().filter(|(name, _)| *name != "resourceVersion") {
        member(&mut out, &mut first, name, value)?;
    }
    out.push(b'}');
    for (name, value) in fields {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            member(&mut out, &mut false, name, value)?;
        }
    }
    out.push(b'}');
    if out.len() > MAX_OBJECT_BYTES { Err(error::too_large_to_store()) } else { Ok(out.into()) }
}

fn member(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value) -> Result<(), Status> {
    if !*first {
        out.push(b',');
    }
    *first = false;
    serde_json::to_writer(&mut *out, name).map_err(Status::internal)?;
    out.push(b':');
    serde_json::to_writer(&mut *out, value).map_err(Status::internal)
}

/// Appends a stored object in a version, with its `resourceVersion`. A revision of zero, as of a dry run's creation, adds
/// none.
///
/// # Errors
/// When the stored bytes are not an object.
pub(crate) fn splice(served: &Served, value: &[u8], revision: Revision, out: &mut Vec<u8>) -> Result<(), Status> {
    let prefix = served.stored_prefix.as_bytes();
    if let Some(rest) = value.strip_prefix(prefix) {
        out.reserve(value.len() + 40);
        out.extend_from_slice(prefix);
        if !revision.is_zero() {
            push_resource_version(out, revision);
            // Metadata of a stored object is never empty.
            out.push(b',');
        }
        out.extend_from_slice(rest);
        return Ok(());
    }
    // This is not the stored version, or a client of the etcd API wrote an object that begins differently.
    let mut object = decoded(value, revision)?;
    served.show(&mut object);
    serde_json::to_writer(out, &object).map_err(Status::internal)
}

/// Appends the `PartialObjectMetadata` of a stored object in a version.
pub(crate) fn splice_partial(
    served: &Served,
    value: &[u8],
    revision: Revision,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    const PREFIX: &[u8] = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;
    out.extend_from_slice(PREFIX);
    if served.conversion().is_some() {
        let mut object = decoded(value, revision)?;
        served.show(&mut object);
        serde_json::to_writer(&mut *out, &object["metadata"]).map_err(Status::internal)?;
        out.push(b'}');
        return Ok(());
    }
    #[derive(Deserialize)]
    struct OnlyMetadata<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let object: OnlyMetadata<'_> = serde_json::from_slice(value).map_err(broken)?;
    out.push(b'{');
    push_resource_version(out, revision);
    let rest = object.metadata.get().trim_start().strip_prefix('{').unwrap_or("}");
    if !rest.trim_start().starts_with('}') {
        out.push(b',');
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'}');
    Ok(())
}

fn push_resource_version(out: &mut Vec<u8>, revision: Revision) {
    out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
}

/// Decodes a stored object and sets its `resourceVersion`.
///
/// # Errors
/// `InternalError` when the bytes are not an object.
pub(crate) fn decoded(value: &[u8], revision: Revision) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(value).map_err(broken)?;
    set_resource_version(&mut object, revision);
    Ok(object)
}

/// Sets `metadata.resourceVersion`. A revision of zero, as of a dry run's creation, sets none.
pub(crate) fn set_resource_version(object: &mut Value, revision: Revision) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && !revision.is_zero()
    {
        metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    }
}

fn broken(error: serde_json::Error) -> Status {
    Status::internal(format!("a stored object cannot be decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn stored_bytes_are_returned_with_their_version() {
        let catalog = Catalog::new(quorate_registry::builtin());
        let served = catalog.find("", "v1", "configmaps").expect("a built-in kind");
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "data": { "a": "{\"metadata\":{" },
            "metadata": { "name": "x", "resourceVersion": "3" },
        });
        let bytes = stored(served, &object).expect("it is encoded");
        assert_eq!(
            bytes.as_ref(),
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"{\"metadata\":{"}}"#
        );
        let mut out = Vec::new();
        splice(served, &bytes, Revision(7), &mut out).expect("it is spliced");
        let mut expected = object.clone();
        expected["metadata"]["resourceVersion"] = "7".into();
        assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON"), expected);
        assert_eq!(decoded(&bytes, Revision(7)).expect("it is decoded"), expected);
        let mut foreign = Vec::new();
        splice(served, object.to_string().as_bytes(), Revision(7), &mut foreign).expect("it is spliced");
        assert_eq!(serde_json::from_slice::<Value>(&foreign).expect("JSON"), expected);
        let mut partial = Vec::new();
        splice_partial(served, &bytes, Revision(7), &mut partial).expect("it is spliced");
        let partial: Value = serde_json::from_slice(&partial).expect("JSON");
        assert_eq!(partial["metadata"], expected["metadata"]);
    }

    #[test]
    fn objects_above_the_maximum_size_are_refused() {
        let catalog = Catalog::new(quorate_registry::builtin());
        let served = catalog.find("", "v1", "configmaps").expect("a built-in kind");
        let object = json!({ "metadata": { "name": "x" }, "data": { "a": "x".repeat(MAX_OBJECT_BYTES) } });
        assert_eq!(stored(served, &object).expect_err("it is too large"), error::too_large_to_store());
    }
}
