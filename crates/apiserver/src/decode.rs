//! The decode stage: turns a body into an object of the kind that the path names.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use quorate_api::{GroupVersion, Reason, Status, yaml};
use quorate_schema::protobuf::{self, ProtobufError};
use serde_json::Value;

use crate::catalog::Served;
use crate::duplicates::duplicates;
use crate::query::Query;

/// Maximum number of strict decoding errors that one response lists, as in Kubernetes.
const MAX_STRICT_ERRORS: usize = 100;

/// Treatment of fields that a kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// # Errors
    /// `Invalid` for another value.
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

/// Returns the body's media type without its parameters; JSON when the request gives none.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match given.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// The document of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub object: Value,
    /// Strict decoding errors, such as duplicate fields, of which parsing keeps the last.
    pub strict_errors: Vec<String>,
}

impl From<Value> for Body {
    fn from(object: Value) -> Self {
        Body { object, strict_errors: Vec::new() }
    }
}

/// Parses a body into a JSON value. Duplicate fields are searched only if `validation` reports them.
///
/// # Errors
/// `UnsupportedMediaType` for a body that is not JSON, YAML or Protocol Buffers, `BadRequest` for a body that does not
/// parse.
pub(crate) fn body(
    headers: &HeaderMap,
    body: &[u8],
    expected: &str,
    validation: FieldValidation,
) -> Result<Body, Status> {
    let unrecognized = |error: String| {
        Status::bad_request(format!("the object provided is unrecognized (must be of type {expected}): {error}"))
    };
    let mut strict_errors = Vec::new();
    let object: Value = match media_type(headers) {
        "application/json" => {
            let object = serde_json::from_slice(body)
                .map_err(|error| unrecognized(format!("couldn't get version/kind; json parse error: {error}")))?;
            strict_errors = duplicate_fields(body, validation);
            object
        }
        "application/yaml" | "application/x-yaml" | "text/yaml" => {
            let document = std::str::from_utf8(body)
                .map_err(|error| unrecognized(error.to_string()))
                .and_then(|text| yaml::document(text).map_err(|error| unrecognized(in_yaml(&error))))?;
            if !document.duplicates.is_empty() {
                let list = document.duplicates.join("\n  ");
                strict_errors.push(in_yaml(&format_args!("yaml: unmarshal errors:\n  {list}")));
            }
            document.value
        }
        protobuf::MEDIA_TYPE => match protobuf::decode(quorate_schema::builtin(), body) {
            Ok(object) => object,
            // Kubernetes gives this answer for custom resources.
            Err(ProtobufError::Kind { .. }) => return Err(unsupported(&["application/json", "application/yaml"])),
            Err(error) => return Err(unrecognized(error.to_string())),
        },
        _ => return Err(unsupported(&["application/json", "application/yaml", protobuf::MEDIA_TYPE])),
    };
    if object.is_object() {
        Ok(Body { object, strict_errors })
    } else {
        Err(unrecognized("it is not an object".to_owned()))
    }
}

fn in_yaml(error: &dyn std::fmt::Display) -> String {
    format!("error converting YAML to JSON: {error}")
}

/// Lists the duplicate fields of a JSON document, unless validation ignores them.
pub(crate) fn duplicate_fields(json: &[u8], validation: FieldValidation) -> Vec<String> {
    if validation == FieldValidation::Ignore {
        return Vec::new();
    }
    duplicates(json).into_iter().map(|path| format!("duplicate field \"{path}\"")).collect()
}

/// Returns a `415` that lists the accepted media types.
pub(crate) fn unsupported(accepted: &[&str]) -> Status {
    let list = accepted.join(", ");
    Status::new(
        Reason::UnsupportedMediaType,
        format!("the body of the request was in an unknown format - accepted media types include: {list}"),
    )
}

/// Checks a body's `apiVersion` and `kind` against those of the path, and fills them in where they are absent.
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

/// Decodes an object into its kind's shape, and reports unknown fields together with the earlier strict errors.
///
/// # Errors
/// `BadRequest` for a wrong kind or type and, when strict, for all strict errors and unknown fields together.
pub(crate) fn object(
    served: &Served,
    body: Body,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let descriptor = &served.descriptor;
    let Body { mut object, mut strict_errors } = body;
    check_kind(&mut object, &served.api_version, &descriptor.kind.kind)?;
    let decoded = descriptor.strategy.decode(object).map_err(|error| {
        let (kind, version) = (&descriptor.kind.kind, &descriptor.kind.version);
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
    })?;
    strict_errors.extend(decoded.unknown_fields.iter().map(|path| format!("unknown field \"{path}\"")));
    report_strict_errors(served, validation, strict_errors, warnings)?;
    Ok(decoded.object)
}

/// Refuses the request, warns the client, or does nothing, as `validation` says.
///
/// # Errors
/// `BadRequest` when validation is strict and there are errors.
pub(crate) fn report_strict_errors(
    served: &Served,
    validation: FieldValidation,
    mut strict_errors: Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    strict_errors.truncate(MAX_STRICT_ERRORS);
    match validation {
        FieldValidation::Strict if !strict_errors.is_empty() => {
            let (kind, version) = (&served.descriptor.kind.kind, &served.descriptor.kind.version);
            let list = strict_errors.join(", ");
            Err(Status::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {list}"
            )))
        }
        FieldValidation::Warn => {
            warnings.extend(strict_errors);
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}
