//! The decode stage: from a body to an object of the kind that the path names.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use quorate_api::{GroupVersion, Reason, Status};
use serde_json::Value;

use crate::catalog::Served;
use crate::protobuf::{self, ProtobufError};
use crate::query::Query;

/// What happens with fields that a kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// # Errors
    /// `Invalid` for another word.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        match query.get("fieldValidation") {
            None => Ok(FieldValidation::default()),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Warn") => Ok(FieldValidation::Warn),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(Status::new(
                Reason::Invalid,
                format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                ),
            )),
        }
    }
}

/// The body's media type without its parameters; JSON when none is given.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match given.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// Parses a body into a JSON value.
///
/// # Errors
/// `UnsupportedMediaType` for what is neither JSON nor YAML nor Protocol Buffers, `BadRequest` for what does not parse.
pub(crate) fn body(headers: &HeaderMap, body: &[u8], expected: &str) -> Result<Value, Status> {
    let unrecognized = |error: String| {
        Status::bad_request(format!("the object provided is unrecognized (must be of type {expected}): {error}"))
    };
    let value: Value = match media_type(headers) {
        "application/json" => serde_json::from_slice(body)
            .map_err(|error| unrecognized(format!("couldn't get version/kind; json parse error: {error}")))?,
        "application/yaml" | "application/x-yaml" | "text/yaml" => serde_yaml_ng::from_slice(body)
            .map_err(|error| unrecognized(format!("couldn't get version/kind; yaml parse error: {error}")))?,
        protobuf::MEDIA_TYPE => match protobuf::decode(body) {
            Ok(object) => object,
            // As Kubernetes answers for custom resources.
            Err(ProtobufError::Kind { .. }) => return Err(unsupported(&["application/json", "application/yaml"])),
            Err(error) => return Err(unrecognized(error.to_string())),
        },
        _ => return Err(unsupported(&["application/json", "application/yaml", protobuf::MEDIA_TYPE])),
    };
    if value.is_object() { Ok(value) } else { Err(unrecognized("it is not an object".to_owned())) }
}

/// `415` with the list of what would have been accepted.
pub(crate) fn unsupported(accepted: &[&str]) -> Status {
    let list = accepted.join(", ");
    Status::new(
        Reason::UnsupportedMediaType,
        format!("the body of the request was in an unknown format - accepted media types include: {list}"),
    )
}

/// Checks a body's `apiVersion` and `kind` against those that the path names; an absent one is filled in.
///
/// # Errors
/// `BadRequest` when they differ.
pub(crate) fn check_kind(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): it is not an object"
        )));
    }
    let given_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let given_kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        let version = GroupVersion::parse(api_version).version;
        return Err(Status::bad_request(format!(
            "{given_kind} in version \"{version}\" cannot be handled as a {kind}: the object is of another kind"
        )));
    }
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(())
}

/// Gives an object the shape of its kind, and says which of its fields the kind does not have.
///
/// # Errors
/// `BadRequest` for a wrong kind or a wrong type, and, when strict, for unknown fields.
pub(crate) fn object(
    served: &Served,
    mut object: Value,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let descriptor = &served.descriptor;
    check_kind(&mut object, &served.api_version, &descriptor.kind.kind)?;
    let decoded = descriptor.strategy.decode(object).map_err(|error| {
        let (kind, version) = (&descriptor.kind.kind, &descriptor.kind.version);
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
    })?;
    let unknown = decoded.unknown_fields.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    judge(served, validation, unknown, warnings)?;
    Ok(decoded.object)
}

/// Refuses, warns of, or ignores what is odd about a body.
///
/// # Errors
/// `BadRequest` when strict.
pub(crate) fn judge(
    served: &Served,
    validation: FieldValidation,
    odd: Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Strict if !odd.is_empty() => {
            let (kind, version) = (&served.descriptor.kind.kind, &served.descriptor.kind.version);
            let list = odd.join(", ");
            Err(Status::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {list}"
            )))
        }
        FieldValidation::Warn => {
            warnings.extend(odd);
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}
