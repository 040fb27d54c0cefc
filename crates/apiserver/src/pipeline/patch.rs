//! The `patch` verb: applies the patch to the current object, then continues as an update.

use http::HeaderMap;
use quorate_api::{Status, patch};
use serde_json::Value;

use crate::catalog::Served;
use crate::decode::Expected;
use crate::pipeline::modify::{Current, modify};
use crate::pipeline::update::{check_name, transition};
use crate::pipeline::{Operation, Written, managed};
use crate::{decode, encode};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY_YAML: &str = "application/apply-patch+yaml";
const APPLY_CBOR: &str = "application/apply-patch+cbor";

/// Media types of patches that are served.
pub(crate) const MEDIA_TYPES: &[&str] = &[JSON, MERGE, STRATEGIC, APPLY_YAML, APPLY_CBOR];

/// The format of a configuration to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApplyFormat {
    /// YAML, of which JSON is a part.
    Yaml,
    Cbor,
}

impl ApplyFormat {
    /// Returns the format if the body is a configuration to apply, not a patch of the other formats.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        match decode::media_type(headers) {
            APPLY_YAML => Some(ApplyFormat::Yaml),
            APPLY_CBOR => Some(ApplyFormat::Cbor),
            _ => None,
        }
    }
}

/// A patch in one of the three formats that say what to change.
#[derive(Clone, Debug)]
pub(crate) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// # Errors
    /// `UnsupportedMediaType` for another format, `BadRequest` for a body that does not parse.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Status> {
        let (make, is_list): (fn(Value) -> Patch, bool) = match decode::media_type(headers) {
            JSON => (Patch::Json, true),
            MERGE => (Patch::Merge, false),
            STRATEGIC => (Patch::Strategic, false),
            _ => return Err(decode::unsupported(MEDIA_TYPES)),
        };
        let patch: Value = serde_json::from_slice(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        if is_list && !patch.is_array() {
            return Err(Status::bad_request("error decoding patch: a JSON patch is an array of operations"));
        }
        if !is_list && !patch.is_object() {
            return Err(Status::bad_request("error decoding patch: a merge patch is an object"));
        }
        Ok(make(patch))
    }

    /// Returns whether the patch depends on the object's `managedFields`.
    fn names_managers(&self) -> bool {
        const PATH: &str = "/metadata/managedFields";
        match self {
            Patch::Json(patch) => patch.as_array().into_iter().flatten().any(|operation| {
                let named = ["path", "from"].map(|field| operation[field].as_str());
                // A path above the field names it as well.
                named.into_iter().flatten().any(|path| path.starts_with(PATH) || PATH.starts_with(path))
            }),
            Patch::Merge(patch) => patch.pointer(PATH).is_some(),
            Patch::Strategic(patch) => {
                let metadata = patch["metadata"].as_object();
                metadata.is_some_and(|metadata| metadata.keys().any(|key| key.ends_with("managedFields")))
            }
        }
    }

    /// Applies the patch to an object of the kind, or to another document such as a `Scale`.
    ///
    /// # Errors
    /// `Invalid` or `BadRequest` when the patch does not fit the object.
    pub fn apply(&self, served: &Served, object: &mut Value) -> Result<(), Status> {
        match self {
            Patch::Json(patch) => patch::json::apply(object, patch).map_err(Status::from),
            Patch::Merge(patch) => {
                patch::merge::apply(object, patch);
                Ok(())
            }
            Patch::Strategic(patch) => {
                patch::strategic::apply(&served.descriptor.kind, object, patch).map_err(Status::from)
            }
        }
    }
}

impl std::fmt::Display for Patch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Patch::Json(patch) | Patch::Merge(patch) | Patch::Strategic(patch)) = self;
        patch.fmt(f)
    }
}

/// Patches an object, or a part of it through a subresource. `strict_errors` are those that parsing the patch found.
///
/// # Errors
/// A `Status` from any stage; `NotFound`, `Conflict`.
pub(crate) async fn patch(
    operation: &mut Operation,
    patch: &Patch,
    strict_errors: Vec<String>,
) -> Result<Written, Status> {
    let mut warnings = Vec::new();
    let written = modify(operation, |current| {
        warnings.clear();
        let new = patched(operation, current, patch, &strict_errors, &mut warnings)?;
        transition(operation, current, new)
    })
    .await?;
    operation.warnings.append(&mut warnings);
    Ok(written)
}

fn patched(
    operation: &Operation,
    current: &Current,
    patch: &Patch,
    strict_errors: &[String],
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let target = &operation.target;
    let version = &target.version;
    let mut object = version.shown(&current.object).into_owned();
    if patch.names_managers() {
        managed::set(&mut object, current.managed_fields.clone());
    }
    encode::set_resource_version(&mut object, current.revision);
    patch.apply(version, &mut object)?;
    let decoded = Expected::served(version).decode_value(object)?;
    let strict_errors = [strict_errors, &decoded.strict_errors].concat();
    decode::report_strict_patch_errors(version, operation.validation, patch, strict_errors, warnings)?;
    let mut new = decoded.object;
    version.complete(&mut new);
    check_name(target, &new)?;
    Ok(new)
}
