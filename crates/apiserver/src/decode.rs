//! The decode stage: turns a body into an object of the kind that the path names.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use quorate_api::patch::duplicates;
use quorate_api::{FieldError, FieldPath, GroupVersion, Reason, Status, yaml};
use quorate_registry::Schema;
use quorate_schema::decode::JsonError;
use quorate_schema::protobuf::{self, ProtobufError};
use quorate_schema::{DecodeError, Decoded, cbor};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::query::Query;
use crate::representation::MEDIA_TYPES;

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

/// A document in the shape of its type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub object: Value,
    /// Unknown and duplicate fields. Of duplicate fields, decoding keeps the last.
    pub strict_errors: Vec<String>,
}

impl From<Decoded> for Body {
    fn from(Decoded { object, strict }: Decoded) -> Self {
        Body { object, strict_errors: strict.iter().map(ToString::to_string).collect() }
    }
}

/// The kind that a document has to be of.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// `None` for a kind of every group version, such as `DeleteOptions`.
    pub api_version: Option<&'a str>,
    pub kind: &'a str,
    pub schema: Schema,
}

impl<'a> Expected<'a> {
    pub fn served(served: &'a Served) -> Self {
        let Served { api_version, descriptor, .. } = served;
        Expected { api_version: Some(api_version), kind: &descriptor.kind.kind, schema: descriptor.schema }
    }

    /// # Errors
    /// `InternalError` for a kind that the schema does not have.
    pub fn builtin(api_version: &'a str, kind: &'a str) -> Result<Self, Status> {
        let schema = Schema::named(api_version, kind);
        let schema = schema.ok_or_else(|| Status::internal(format!("{kind} has no type in {api_version}")))?;
        Ok(Expected { api_version: Some(api_version), kind, schema })
    }

    /// # Errors
    /// `InternalError` for a kind that the schema does not have.
    pub fn of_every_version(kind: &'a str) -> Result<Self, Status> {
        Ok(Expected { api_version: None, ..Self::builtin("v1", kind)? })
    }

    fn unrecognized(&self, error: impl std::fmt::Display) -> Status {
        let kind = self.kind;
        Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {error}"))
    }

    fn mistyped(&self, error: &DecodeError) -> Status {
        let (kind, version) = (self.kind, GroupVersion::parse(self.api_version.unwrap_or("v1")).version);
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
    }

    /// Decodes a body of JSON, YAML, Protocol Buffers or CBOR.
    ///
    /// # Errors
    /// `UnsupportedMediaType` for another format; `BadRequest` for a body that does not parse, is of another kind, or
    /// has a value of a wrong type.
    pub fn decode(&self, headers: &HeaderMap, body: &[u8]) -> Result<Body, Status> {
        match media_type(headers) {
            "application/json" => self.decode_json(body),
            "application/yaml" | "application/x-yaml" | "text/yaml" => {
                let document = std::str::from_utf8(body)
                    .map_err(|error| self.unrecognized(error))
                    .and_then(|text| yaml::document(text).map_err(|error| self.unrecognized(in_yaml(&error))))?;
                let mut decoded = self.decode_value(document.value)?;
                if !document.duplicates.is_empty() {
                    let list = document.duplicates.join("\n  ");
                    let duplicates = in_yaml(&format_args!("yaml: unmarshal errors:\n  {list}"));
                    decoded.strict_errors.insert(0, duplicates);
                }
                Ok(decoded)
            }
            protobuf::MEDIA_TYPE => match protobuf::decode(self.schema.model(), body) {
                Ok(object) => self.decode_value(object),
                // Kubernetes gives this answer for custom resources.
                Err(ProtobufError::Kind { .. }) => Err(unsupported(&["application/json", "application/yaml"])),
                Err(error) => Err(self.unrecognized(error)),
            },
            cbor::MEDIA_TYPE => self.decode_value(cbor::decode(body).map_err(|error| self.unrecognized(error))?),
            _ => Err(unsupported(MEDIA_TYPES)),
        }
    }

    fn decode_json(&self, body: &[u8]) -> Result<Body, Status> {
        let syntax = |error| self.unrecognized(format!("couldn't get version/kind; json parse error: {error}"));
        match self.schema.decode_json(body) {
            Ok(decoded) => {
                let mut body = Body::from(decoded);
                self.check_kind(&mut body.object)?;
                Ok(body)
            }
            Err(JsonError::Syntax(error)) => Err(syntax(error)),
            Err(JsonError::Type(error)) => {
                // The value may be right for the kind that the document says it is, or a syntax error may follow.
                serde_json::from_slice::<IgnoredAny>(body).map_err(syntax)?;
                if !body.trim_ascii_start().starts_with(b"{") {
                    return Err(self.unrecognized("it is not an object"));
                }
                if let Ok(named) = serde_json::from_slice::<Named<'_>>(body) {
                    self.check_kind(&mut named.into_object())?;
                }
                Err(self.mistyped(&error))
            }
        }
    }

    /// Decodes a document that was parsed from another format, patched, or made by this server.
    ///
    /// # Errors
    /// `BadRequest` for another kind, and for a value of a wrong type.
    pub fn decode_value(&self, mut object: Value) -> Result<Body, Status> {
        if !object.is_object() {
            return Err(self.unrecognized("it is not an object"));
        }
        self.check_kind(&mut object)?;
        self.schema.decode(object).map(Body::from).map_err(|error| self.mistyped(&error))
    }

    fn check_kind(&self, object: &mut Value) -> Result<(), Status> {
        self.api_version.map_or(Ok(()), |api_version| check_kind(object, api_version, self.kind))
    }
}

/// The type that a document says it is of.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default, rename = "apiVersion")]
    api_version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    kind: Option<&'a RawValue>,
}

impl Named<'_> {
    fn into_object(self) -> Value {
        let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        json!({ "apiVersion": text(self.api_version), "kind": text(self.kind) })
    }
}

fn in_yaml(error: &dyn std::fmt::Display) -> String {
    format!("error converting YAML to JSON: {error}")
}

/// Lists the duplicate fields of a patch, which has no type, unless validation ignores them.
pub(crate) fn duplicate_fields(json: &[u8], validation: FieldValidation) -> Vec<String> {
    if validation == FieldValidation::Ignore {
        return Vec::new();
    }
    duplicates::find(json).into_iter().map(|path| format!("duplicate field \"{path}\"")).collect()
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
    let given_version = object["apiVersion"].as_str().unwrap_or_default();
    let given_kind = object["kind"].as_str().unwrap_or_default();
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

/// Maximum number of characters of a patch that its refusal repeats.
const MAX_SHOWN_PATCH: usize = 1000;

/// As [`report_strict_errors`], for a patch, which Kubernetes refuses as invalid. `patch` is its text.
///
/// # Errors
/// `Invalid` when validation is strict and there are errors.
pub(crate) fn report_strict_patch_errors(
    served: &Served,
    validation: FieldValidation,
    patch: impl std::fmt::Display,
    mut strict_errors: Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    if validation != FieldValidation::Strict || strict_errors.is_empty() {
        return report_strict_errors(served, validation, strict_errors, warnings);
    }
    strict_errors.truncate(MAX_STRICT_ERRORS);
    let shown: String = patch.to_string().chars().take(MAX_SHOWN_PATCH).collect();
    let detail = format!("strict decoding error: {}", strict_errors.join(", "));
    let error = FieldError::invalid(FieldPath::new("patch"), shown, detail);
    Err(Status::invalid("", "", "", &[error]))
}
