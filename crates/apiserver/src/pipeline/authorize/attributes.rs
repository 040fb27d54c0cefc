//! The attributes of a request by which the authorize stage decides.

use crate::query::Query;
use crate::route::Target;

/// A request for a resource. Its texts may name what is not served, as those of a review may.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// `None` for all namespaces, and for objects that have none.
    pub namespace: Option<&'a str>,
    /// `None` for a collection.
    pub name: Option<&'a str>,
    /// The field selector in string form.
    pub fields: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(target: &'a Target, query: &'a Query) -> Self {
        let resource = &target.version.descriptor.resource;
        Attributes {
            verb: target.verb.as_str(),
            group: &resource.group,
            resource: &resource.resource,
            subresource: target.subresource.map_or("", quorate_registry::Subresource::as_str),
            namespace: target.namespace.as_deref(),
            name: target.name.as_deref(),
            fields: query.get("fieldSelector").unwrap_or_default(),
        }
    }
}
