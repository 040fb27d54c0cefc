//! Request paths: the resource, the object, the subresource and the query.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::resources::Resource;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b',').remove(b'/');

/// The path and query of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath {
    path: String,
    query: String,
}

impl RequestPath {
    /// Creates a path from text, such as `/version`.
    #[must_use]
    pub fn raw(path: &str) -> Self {
        RequestPath { path: path.to_owned(), query: String::new() }
    }

    /// Creates the path of a collection, in one namespace if the resource is namespaced and a namespace is given.
    #[must_use]
    pub fn collection(resource: &Resource, namespace: Option<&str>) -> Self {
        let mut path = if resource.group.is_empty() {
            format!("/api/{}", resource.version)
        } else {
            format!("/apis/{}/{}", resource.group, resource.version)
        };
        if let Some(namespace) = namespace.filter(|_| resource.namespaced) {
            path.push_str("/namespaces/");
            path.extend(utf8_percent_encode(namespace, SEGMENT));
        }
        path.push('/');
        path.push_str(&resource.plural);
        RequestPath { path, query: String::new() }
    }

    #[must_use]
    pub fn object(resource: &Resource, namespace: Option<&str>, name: &str) -> Self {
        let mut path = Self::collection(resource, namespace);
        path.path.push('/');
        path.path.extend(utf8_percent_encode(name, SEGMENT));
        path
    }

    #[must_use]
    pub fn subresource(mut self, subresource: &str) -> Self {
        self.path.push('/');
        self.path.push_str(subresource);
        self
    }

    #[must_use]
    pub fn query(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(key);
        self.query.push('=');
        self.query.extend(utf8_percent_encode(&value.to_string(), QUERY));
        self
    }

    /// Adds the parameter if there is a value.
    #[must_use]
    pub fn maybe_query(self, key: &str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, self.query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_group_and_the_scope() {
        let deployments = Resource::for_test("apps", "v1", "Deployment", "deployments", true);
        let nodes = Resource::for_test("", "v1", "Node", "nodes", false);
        assert_eq!(
            RequestPath::object(&deployments, Some("a"), "web").subresource("scale").to_string(),
            "/apis/apps/v1/namespaces/a/deployments/web/scale"
        );
        assert_eq!(RequestPath::collection(&deployments, None).to_string(), "/apis/apps/v1/deployments");
        assert_eq!(
            RequestPath::collection(&nodes, Some("ignored")).query("labelSelector", "a=b,c!=d").to_string(),
            "/api/v1/nodes?labelSelector=a%3Db,c%21%3Dd"
        );
        assert_eq!(RequestPath::object(&nodes, None, "a/b").to_string(), "/api/v1/nodes/a%2Fb");
    }
}
