//! The input of the documents: what is served, without strategies and storage.

use crate::catalog::Served;
use crate::discovery;

/// A kind in a group version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KindName {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl KindName {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// A served resource with its verbs.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    /// The name in paths, such as `pods`.
    pub name: String,
    pub kind: KindName,
    pub list_kind: String,
    pub is_namespaced: bool,
    /// A deletion returns the object.
    pub returns_deleted: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
}

/// A subresource with its verbs and the kind of its documents.
#[derive(Clone, Debug)]
pub(super) struct Subresource {
    pub name: String,
    pub kind: KindName,
    pub verbs: Vec<String>,
}

impl Resource {
    pub fn api_version(&self) -> String {
        self.kind.api_version()
    }

    pub fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

impl Subresource {
    pub fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// Returns the type of the options that a read takes when it returns text instead of an object.
    pub fn text_options(&self) -> Option<&'static str> {
        (self.name == "log").then_some("core.v1.PodLogOptions")
    }
}

impl From<&Served> for Resource {
    fn from(row: &Served) -> Self {
        let descriptor = &row.descriptor;
        let name = |group: &str, version: &str, kind: &str| KindName {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
        };
        let kind = &descriptor.kind;
        let subresources = descriptor.subresources.iter().map(|subresource| {
            let ((group, version, kind), verbs) = discovery::subresource_kind(row, *subresource);
            Subresource {
                name: subresource.as_str().to_owned(),
                kind: name(group, version, kind),
                verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            }
        });
        Resource {
            name: descriptor.resource.resource.to_string(),
            kind: name(&kind.group, &kind.version, &kind.kind),
            list_kind: descriptor.list_kind.to_string(),
            is_namespaced: row.is_namespaced(),
            returns_deleted: descriptor.returns_deleted,
            verbs: descriptor.verbs.iter().map(|verb| verb.as_str().to_owned()).collect(),
            subresources: subresources.collect(),
        }
    }
}
