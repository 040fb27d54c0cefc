//! The kinds that the API currently serves, with the facts that controllers need.

use std::fmt;

use quorate_api::GroupVersionResource;

/// A served kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindInfo {
    pub resource: GroupVersionResource,
    pub is_namespaced: bool,
}

/// Table of the served kinds. It may change while the cluster runs.
pub trait Kinds: fmt::Debug + Sync {
    /// Finds a kind by its exact `apiVersion` and name; `None` while it is not served.
    fn find(&self, api_version: &str, kind: &str) -> Option<KindInfo>;
}
