//! Label and field selectors: which objects of a collection a request selects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use quorate_api::selector::{FieldRequirement, FieldSelector, LabelSelector};
use quorate_api::{ObjectKey, Status};
use quorate_mvcc::KeyValue;
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::Served;
use crate::metadata;
use crate::query::Query;

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

/// The selectors of a request. The default selects everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The field selector names a field other than name and namespace, which only the decoded object yields.
    needs_object: bool,
}

/// The labels of an object, and nothing else of it.
#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow)]
    metadata: Labels<'a>,
}

#[derive(Deserialize)]
struct Labels<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Selection {
    /// Parses the selectors of a request for a version of a kind. The selection works on stored objects.
    ///
    /// # Errors
    /// `BadRequest` for a selector that does not parse or names a field that the kind cannot be selected by.
    pub fn parse(served: &Served, query: &Query) -> Result<Self, Status> {
        let (label_text, field_text) =
            (query.get("labelSelector").unwrap_or_default(), query.get("fieldSelector").unwrap_or_default());
        if label_text.is_empty() && field_text.is_empty() {
            return Ok(Selection::default());
        }
        let labels = LabelSelector::parse(label_text).map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(field_text).map_err(|error| Status::bad_request(error.to_string()))?;
        let known = served.descriptor.strategy.selectable_field_names();
        let renamed = served.conversion().map_or(&[][..], |version| version.selectable);
        // Returns the name of a field in the stored version.
        let stored_name = |field: &str| match renamed {
            [] => known.iter().find(|name| **name == field).copied(),
            renamed => renamed.iter().find(|(name, _)| *name == field).map(|(_, stored)| *stored),
        };
        let mut needs_object = false;
        let mut stored = Vec::new();
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            if field == NAME || (field == NAMESPACE && served.is_namespaced()) {
                stored.push(requirement.clone());
                continue;
            }
            needs_object = true;
            let Some(name) = stored_name(field) else {
                return Err(Status::bad_request(if known.is_empty() {
                    format!("{field:?} is not a known field selector: only {NAME:?}, {NAMESPACE:?}")
                } else {
                    format!("field label not supported: {field}")
                }));
            };
            stored.push(FieldRequirement { field: name.to_owned(), ..requirement.clone() });
        }
        Ok(Selection { labels, fields: stored.into(), needs_object })
    }

    /// Narrows the selection to one object, as when a single object is watched.
    pub fn and_name(mut self, name: &str) -> Result<Self, Status> {
        let text = format!("{}{}{NAME}={name}", self.fields, if self.fields.is_everything() { "" } else { "," });
        self.fields = FieldSelector::parse(&text).map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(self)
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Returns the only name that can match, if there is one.
    pub fn exact_name(&self) -> Option<&str> {
        self.fields.exact(NAME)
    }

    /// Returns the only namespace that can match, if there is one.
    pub fn exact_namespace(&self) -> Option<&str> {
        self.fields.exact(NAMESPACE)
    }

    /// Returns a field of the kind, other than name and namespace, and the only value of it that can match.
    pub fn exact_own_field(&self, served: &Served) -> Option<(&'static str, &str)> {
        let names = served.descriptor.strategy.selectable_field_names();
        names.iter().find_map(|name| Some((*name, self.fields.exact(name)?)))
    }

    /// Returns whether a stored object matches. It decodes only the parts that the selectors need.
    ///
    /// # Errors
    /// `InternalError` when the object cannot be decoded.
    pub fn matches_stored(&self, served: &Served, kv: &KeyValue) -> Result<bool, Status> {
        let broken = |error| Status::internal(format!("a stored object cannot be decoded: {error}"));
        if self.is_everything() {
            return Ok(true);
        }
        if self.needs_object {
            return Ok(self.matches(served, &serde_json::from_slice(&kv.value).map_err(broken)?));
        }
        if !self.fields.is_everything() {
            let key = std::str::from_utf8(&kv.key).ok().and_then(ObjectKey::parse);
            let Some(key) = key else { return Ok(false) };
            let lookup = |field: &str| match field {
                NAME => Some(key.name.as_str()),
                NAMESPACE => key.namespace.as_deref(),
                _ => None,
            };
            if !self.fields.matches(lookup) {
                return Ok(false);
            }
        }
        if self.labels.is_everything() {
            return Ok(true);
        }
        let object: Labelled<'_> = serde_json::from_slice(&kv.value).map_err(broken)?;
        let labels = object.metadata.labels.unwrap_or_default();
        Ok(self.labels.matches_with(|key| labels.get(key).map(|value| &**value)))
    }

    /// Returns whether a decoded object matches.
    pub fn matches(&self, served: &Served, object: &Value) -> bool {
        if !self.labels.is_everything() {
            let labels = metadata::of(object).get("labels");
            if !self.labels.matches_with(|key| labels?.get(key)?.as_str()) {
                return false;
            }
        }
        if self.fields.is_everything() {
            return true;
        }
        let own = if self.needs_object { served.descriptor.strategy.selectable_fields(object) } else { Vec::new() };
        self.fields.matches(|field| match field {
            NAME => Some(metadata::text(object, "name")),
            NAMESPACE => Some(metadata::text(object, "namespace")),
            _ => own.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str()),
        })
    }
}
