//! Names of kinds and of the resources that serve them.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An API group and version. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupVersion {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
}

impl GroupVersion {
    #[must_use]
    pub const fn from_static(group: &'static str, version: &'static str) -> Self {
        GroupVersion { group: Cow::Borrowed(group), version: Cow::Borrowed(version) }
    }

    /// Parses an object's `apiVersion`: `v1` or `apps/v1`.
    #[must_use]
    pub fn parse(api_version: &str) -> Self {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        GroupVersion { group: Cow::Owned(group.to_owned()), version: Cow::Owned(version.to_owned()) }
    }
}

impl fmt::Display for GroupVersion {
    /// Formats the value of `apiVersion`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { write!(f, "{}", self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// The type of an object, such as `apps/v1, Kind=Deployment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupVersionKind {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
}

impl GroupVersionKind {
    #[must_use]
    pub const fn from_static(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        GroupVersionKind { group: Cow::Borrowed(group), version: Cow::Borrowed(version), kind: Cow::Borrowed(kind) }
    }

    /// Returns the object's `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> String {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }.to_string()
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

/// A REST collection, such as `apps/v1, Resource=deployments`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupVersionResource {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub resource: Cow<'static, str>,
}

impl GroupVersionResource {
    #[must_use]
    pub const fn from_static(group: &'static str, version: &'static str, resource: &'static str) -> Self {
        GroupVersionResource {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            resource: Cow::Borrowed(resource),
        }
    }

    /// Returns `pods` or `deployments.apps`, the form used in error messages.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.resource.to_string() } else { format!("{}.{}", self.resource, self.group) }
    }
}

impl fmt::Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group_version = GroupVersion { group: self.group.clone(), version: self.version.clone() };
        write!(f, "{group_version}, Resource={}", self.resource)
    }
}
