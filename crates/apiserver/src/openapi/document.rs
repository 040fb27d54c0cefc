//! Whole documents: the table of contents, and one document of v3 for each group version and each discovery document.

use std::collections::{BTreeMap, BTreeSet};

use quorate_schema::TypeId;
use quorate_schema::openapi::{self, Version, component_name};
use serde_json::{Map, Value, json};

use super::names;
use super::operations::{Operations, root};
use super::resource::{KindName, Resource};
use crate::representation::{DISCOVERY_MEDIA_TYPES, MEDIA_TYPES};
use crate::version;

/// A part of the API that has a document of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `/api` or `/apis`.
    Root { is_core: bool },
    /// `/apis/<group>`.
    Group(String),
    /// The resources of a group version.
    Resources(String),
    /// `/version`.
    Version,
}

/// Returns the parts by the paths of their documents, such as `apis/apps/v1`.
pub(super) fn parts(resources: &[Resource]) -> BTreeMap<String, Part> {
    let mut parts = BTreeMap::from([
        ("api".to_owned(), Part::Root { is_core: true }),
        ("apis".to_owned(), Part::Root { is_core: false }),
        ("version".to_owned(), Part::Version),
    ]);
    for resource in resources {
        let (group, api_version) = (&resource.kind.group, resource.api_version());
        if !group.is_empty() {
            parts.insert(format!("apis/{group}"), Part::Group(group.clone()));
        }
        parts.insert(root(&api_version).trim_start_matches('/').to_owned(), Part::Resources(api_version));
    }
    parts
}

/// Paths and what they refer to.
#[derive(Default)]
pub(super) struct Paths {
    pub items: BTreeMap<String, Value>,
    pub operations: Operations,
}

impl Paths {
    /// Adds the paths of a part.
    pub fn add(&mut self, part: &Part, resources: &[Resource]) {
        let Paths { items, operations } = self;
        match part {
            Part::Root { is_core: true } => {
                let text = "get available API versions";
                let item = operations.document(
                    "getCoreAPIVersions",
                    text,
                    "core",
                    "meta.v1.APIVersions",
                    DISCOVERY_MEDIA_TYPES,
                );
                items.insert("/api/".to_owned(), item);
            }
            Part::Root { is_core: false } => {
                let text = "get available API versions";
                let item =
                    operations.document("getAPIVersions", text, "apis", "meta.v1.APIGroupList", DISCOVERY_MEDIA_TYPES);
                items.insert("/apis/".to_owned(), item);
            }
            Part::Group(group) => {
                let tag = names::group(group);
                let id = format!("get{}APIGroup", names::capitalized(&tag));
                let text = "get information of a group";
                let item = operations.document(&id, text, &tag, "meta.v1.APIGroup", DISCOVERY_MEDIA_TYPES);
                items.insert(format!("/apis/{group}/"), item);
            }
            Part::Version => {
                let text = "get the version information for this server";
                let json = &["application/json"];
                let item = operations.document("getCodeVersion", text, "version", "version.Info", json);
                items.insert("/version/".to_owned(), item);
            }
            Part::Resources(api_version) => {
                let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
                let tag = format!("{}_{version}", names::group(group));
                let id = format!("get{}APIResources", names::group_version(group, version));
                let text = "get available resources";
                let item = operations.document(&id, text, &tag, "meta.v1.APIResourceList", MEDIA_TYPES);
                items.insert(format!("{}/", root(api_version)), item);
                for resource in resources.iter().filter(|resource| resource.api_version() == *api_version) {
                    items.extend(operations.resource(resource));
                }
            }
        }
    }

    /// Renders the components that the paths refer to, directly or through others.
    pub fn components(&self, version: Version, api_version: &str) -> Map<String, Value> {
        let model = self.operations.model;
        let ids: BTreeSet<TypeId> = self.operations.used.iter().flat_map(|id| openapi::closure(model, *id)).collect();
        let known = ids
            .into_iter()
            .filter(|id| !model.get(*id).is_hidden)
            .map(|id| (component_name(model.get(id)), openapi::component(model, id, version, api_version)));
        let unknown = self.operations.unknown.iter().map(|(name, kind)| (name.clone(), any(kind)));
        known.chain(unknown).collect()
    }
}

/// Returns the schema of a kind whose fields are not known.
fn any(kind: &KindName) -> Value {
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-group-version-kind": [{ "group": kind.group, "version": kind.version, "kind": kind.kind }],
    })
}

pub(super) fn info() -> Value {
    json!({ "title": "Kubernetes", "version": version::git_version() })
}

pub(super) fn bearer_token() -> Value {
    json!({ "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey" })
}

/// Renders the document of a part in the form of v3.
pub(super) fn render(part: &Part, resources: &[Resource]) -> Value {
    let mut paths = Paths::default();
    paths.add(part, resources);
    let api_version = match part {
        Part::Resources(api_version) => api_version,
        _ => "v1",
    };
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "components": { "schemas": paths.components(Version::V3, api_version) },
        "paths": paths.items,
    })
}
