//! The server's kinds: discovery and its cache, names that users type, and the objects that a command line selects. No
//! kind is named here. Code for specific kinds is in `describe` and in the commands.

mod discovery;
mod resolve;
mod selection;

pub use discovery::{Discovery, cache, fetch};
pub use resolve::{Lookup, TypeName};
pub use selection::{Arguments, SelectFlags, Selected, Target, objects, parse_arguments, select};

use serde::{Deserialize, Serialize};

/// One served resource in one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    #[serde(default)]
    pub short_names: Vec<String>,
    #[serde(default)]
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    #[serde(default)]
    pub subresources: Vec<String>,
}

impl Resource {
    /// Returns the name that is shown to the user: `deployment.apps`.
    #[must_use]
    pub fn kind_name(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }

    /// Returns the resource with its group: `deployments.apps`.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Returns the group and version: `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    #[must_use]
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    /// Describes the resource of an object without asking the server, as far as its own fields tell.
    #[must_use]
    pub fn unserved(object: &serde_json::Value, namespaced: bool) -> Self {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let kind = text("kind");
        Resource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: String::new(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            verbs: Vec::new(),
            subresources: Vec::new(),
        }
    }

    #[cfg(test)]
    pub fn for_test(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        Resource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            verbs: ["create", "delete", "get", "list", "patch", "update", "watch"].map(String::from).to_vec(),
            subresources: Vec::new(),
        }
    }
}
