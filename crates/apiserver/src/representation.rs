//! Content negotiation by `Accept`: the form in which a client wants objects.

use http::HeaderMap;
use http::header::ACCEPT;
use quorate_api::{Reason, Status, yaml};
use quorate_schema::cbor;
use quorate_schema::protobuf::{self, ProtobufError};
use serde_json::Value;

use crate::headers::elements;

/// Media types of objects in responses.
pub(crate) const MEDIA_TYPES: &[&str] =
    &["application/json", "application/yaml", protobuf::MEDIA_TYPE, cbor::MEDIA_TYPE];
/// Media types of the lists of groups and versions, as in Kubernetes.
pub(crate) const DISCOVERY_MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];
/// Media types of a watch's events, beside those of objects.
pub(crate) const STREAM_MEDIA_TYPES: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq"];

/// The part of each object that a table's row carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum IncludeObject {
    #[default]
    Metadata,
    Object,
    None,
}

impl IncludeObject {
    /// # Errors
    /// `BadRequest` for another value.
    pub fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some("Object") => Ok(IncludeObject::Object),
            Some("None") => Ok(IncludeObject::None),
            Some(other) => Err(Status::bad_request(format!(
                "includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// The form of objects in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Representation {
    Object,
    Table(IncludeObject),
    /// `PartialObjectMetadata`.
    Partial,
}

/// The encoding of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => protobuf::MEDIA_TYPE,
            Encoding::Cbor => cbor::MEDIA_TYPE,
        }
    }

    /// Returns the media type of a watch. YAML has none, so its watchers receive JSON.
    pub fn stream_media_type(self) -> &'static str {
        match self {
            Encoding::Json | Encoding::Yaml => "application/json",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Encoding::Cbor => "application/cbor-seq",
        }
    }

    /// Encodes a document that has an `apiVersion` and a `kind`.
    ///
    /// # Errors
    /// `NotAcceptable` for a kind without a protobuf message.
    pub fn encode(self, value: &Value) -> Result<Vec<u8>, Status> {
        match self {
            Encoding::Json => serde_json::to_vec(value).map_err(Status::internal),
            Encoding::Yaml => Ok(yaml::to_string(value).into_bytes()),
            Encoding::Cbor => cbor::encode(value).map_err(Status::internal),
            Encoding::Protobuf => protobuf::encode(quorate_schema::builtin(), value).map_err(|error| match error {
                ProtobufError::Kind { .. } => not_acceptable(),
                other => Status::internal(other),
            }),
        }
    }
}

/// The result of the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub representation: Representation,
    pub encoding: Encoding,
}

/// One alternative of an `Accept` header.
struct Alternative<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Alternative<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type {
            "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            protobuf::MEDIA_TYPE => Some(Encoding::Protobuf),
            cbor::MEDIA_TYPE | "application/cbor-seq" => Some(Encoding::Cbor),
            _ => None,
        }
    }

    fn representation(&self, include: IncludeObject) -> Option<Representation> {
        let is_meta =
            self.parameter("g") == Some("meta.k8s.io") && matches!(self.parameter("v"), None | Some("v1" | "v1beta1"));
        match self.parameter("as") {
            None => Some(Representation::Object),
            Some("Table") if is_meta => Some(Representation::Table(include)),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if is_meta => Some(Representation::Partial),
            Some(_) => None,
        }
    }
}

/// Returns the alternatives in the client's order of preference.
fn alternatives(headers: &HeaderMap) -> Vec<Alternative<'_>> {
    let mut list: Vec<_> = elements(headers, &ACCEPT)
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let parameters: Vec<_> = parts.filter_map(|p| p.split_once('=')).collect();
            let quality = parameters.iter().find(|(n, _)| *n == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
            Alternative { media_type, parameters, quality }
        })
        .collect();
    list.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    list
}

/// Picks the first alternative that can be served, or JSON objects when the client names none. `has_table` tells whether the
/// kind can be shown as a table; the answers to questions cannot.
///
/// # Errors
/// `NotAcceptable` when none of the alternatives can be served.
pub(crate) fn negotiate(headers: &HeaderMap, include: IncludeObject, has_table: bool) -> Result<Negotiated, Status> {
    let list = alternatives(headers);
    if list.is_empty() {
        return Ok(Negotiated { representation: Representation::Object, encoding: Encoding::Json });
    }
    list.iter()
        .find_map(|alternative| {
            let encoding = alternative.encoding()?;
            let representation = alternative.representation(include)?;
            // A table has no protobuf message, so the next alternative is taken.
            let is_table = matches!(representation, Representation::Table(_));
            let has_form = !is_table || (has_table && encoding != Encoding::Protobuf);
            has_form.then_some(Negotiated { representation, encoding })
        })
        .ok_or_else(not_acceptable)
}

/// Returns the version of aggregated discovery that the client prefers, if any.
pub(crate) fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    alternatives(headers)
        .iter()
        .find_map(|alternative| {
            // Aggregated discovery has no protobuf message.
            alternative.encoding().filter(|encoding| *encoding != Encoding::Protobuf)?;
            match (alternative.parameter("as"), alternative.parameter("g"), alternative.parameter("v")) {
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(Some("v2")),
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => Some(Some("v2beta1")),
                (None, None, None) => Some(None),
                _ => None,
            }
        })
        .flatten()
}

fn not_acceptable() -> Status {
    let accepted = MEDIA_TYPES.join(", ");
    Status::new(Reason::NotAcceptable, format!("only the following media types are accepted: {accepted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<(Representation, Encoding)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header value"));
        let negotiated = negotiate(&headers, IncludeObject::Metadata, true).ok();
        assert_eq!(negotiated.map(|n| (n.representation, n.encoding)), expected, "{accept}");
    }

    #[test]
    fn the_first_served_alternative_is_picked() {
        let table = Representation::Table(IncludeObject::Metadata);
        check("application/json", Some((Representation::Object, Encoding::Json)));
        check("*/*", Some((Representation::Object, Encoding::Json)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some((table, Encoding::Json)),
        );
        check(
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
            Some((table, Encoding::Json)),
        );
        check(
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            Some((Representation::Partial, Encoding::Json)),
        );
        check("application/json;as=Other;v=v1;g=x,application/json", Some((Representation::Object, Encoding::Json)));
        check("application/json;q=0.5,application/yaml", Some((Representation::Object, Encoding::Yaml)));
        check(
            "application/vnd.kubernetes.protobuf, application/json",
            Some((Representation::Object, Encoding::Protobuf)),
        );
        check("application/cbor, application/json;q=0.5", Some((Representation::Object, Encoding::Cbor)));
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None);
        check("text/html", None);
    }
}
