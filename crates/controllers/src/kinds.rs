//! The kinds that the API serves at the moment, as far as controllers need to know them.

use std::fmt;

use quorate_api::GroupVersionResource;

/// A kind that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindInfo {
    pub resource: GroupVersionResource,
    pub is_namespaced: bool,
}

/// The table of kinds. It may change while the cluster runs.
pub trait Kinds: fmt::Debug + Sync {
    /// Finds a kind by its exact `apiVersion` and name; `None` while it is not served.
    fn find(&self, api_version: &str, kind: &str) -> Option<KindInfo>;
}
