//! Discovery documents, rendered once for each table of kinds: plain for old clients, aggregated for new ones.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ETAG, VARY};
use http::{HeaderMap, HeaderValue};
use quorate_api::Status;
use quorate_registry::{Subresource, Verb, subresource};
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::error;
use crate::representation::{Encoding, aggregated_version, negotiate};
use crate::response::{Body, Response, Style, has_etag};
use crate::route::Discovery;

/// The aggregated formats that are served.
const AGGREGATED: [(&str, &str); 2] = [
    ("v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    ("v2beta1", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
];

pub(crate) struct Documents {
    /// The plain documents by path: `api`, `apis`, `apis/apps`, `apis/apps/v1`.
    plain: BTreeMap<String, Bytes>,
    /// The aggregated documents by version and path (`v2 api`).
    aggregated: BTreeMap<String, Bytes>,
    /// Hash of the table of kinds. Equal tables have equal hashes on all members.
    pub hash: String,
}

/// The served versions of each group, in the order of the table. The first version is the preferred one.
type Groups<'a> = Vec<(&'a str, Vec<(&'a str, Vec<&'a Served>)>)>;

impl Documents {
    pub fn render(rows: &[Arc<Served>]) -> Self {
        let groups = group(rows);
        let mut plain = BTreeMap::new();
        let mut put = |path: String, value: Value| plain.insert(path, Bytes::from(value.to_string()));
        let core_versions: Vec<&str> =
            groups.iter().filter(|(group, _)| group.is_empty()).flat_map(|(_, v)| v.iter().map(|(v, _)| *v)).collect();
        put(
            "api".to_owned(),
            json!({ "kind": "APIVersions", "versions": core_versions, "serverAddressByClientCIDRs": [] }),
        );
        let mut named = Vec::new();
        for (group, versions) in &groups {
            if !group.is_empty() {
                let description = describe_group(group, versions);
                named.push(description.clone());
                let mut own = description;
                own["kind"] = "APIGroup".into();
                own["apiVersion"] = "v1".into();
                put(format!("apis/{group}"), own);
            }
            for (version, rows) in versions {
                let resources: Vec<Value> = rows.iter().flat_map(|row| plain_resources(row)).collect();
                let group_version = group_version(group, version);
                let root = if group.is_empty() { "api" } else { "apis" };
                put(
                    format!("{root}/{group_version}"),
                    json!({
                        "kind": "APIResourceList", "apiVersion": "v1",
                        "groupVersion": group_version, "resources": resources,
                    }),
                );
            }
        }
        put("apis".to_owned(), json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": named }));
        let mut aggregated = BTreeMap::new();
        for (version, _) in AGGREGATED {
            for (path, is_core) in [("api", true), ("apis", false)] {
                let items: Vec<Value> =
                    groups.iter().filter(|(g, _)| g.is_empty() == is_core).map(|(g, v)| aggregate(g, v)).collect();
                let document = json!({
                    "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
                    "metadata": {}, "items": items,
                });
                aggregated.insert(format!("{version} {path}"), Bytes::from(document.to_string()));
            }
        }
        let mut hasher = DefaultHasher::new();
        aggregated.values().for_each(|document| document.hash(&mut hasher));
        Documents { plain, aggregated, hash: format!("{:016X}", hasher.finish()) }
    }

    /// # Errors
    /// `NotFound` for a group or version that is not served, `NotAcceptable` for a request that accepts only Protocol
    /// Buffers.
    pub fn answer(&self, what: &Discovery, headers: &HeaderMap) -> Result<Response, Status> {
        let path = match what {
            Discovery::Core => "api".to_owned(),
            Discovery::Groups => "apis".to_owned(),
            Discovery::Group(group) => format!("apis/{group}"),
            Discovery::Resources { group, version } if group.is_empty() => format!("api/{version}"),
            Discovery::Resources { group, version } => format!("apis/{group}/{version}"),
        };
        if matches!(what, Discovery::Core | Discovery::Groups)
            && let Some(version) = aggregated_version(headers)
            && let Some(document) = self.aggregated.get(&format!("{version} {path}"))
        {
            return Ok(self.aggregated_answer(version, document, headers));
        }
        let document = self.plain.get(&path).ok_or_else(error::no_such_path)?;
        let negotiated = negotiate(headers, crate::representation::IncludeObject::default(), true)?;
        let mut response = if negotiated.encoding == Encoding::Json {
            Response::new(200, "application/json", Body::Full(document.clone()))
        } else {
            Response::styled(200, document.to_vec(), Style { negotiated, is_pretty: false })?
        };
        response.headers.insert(VARY, HeaderValue::from_static("Accept"));
        Ok(response)
    }

    fn aggregated_answer(&self, version: &str, document: &Bytes, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let media_type = AGGREGATED.iter().find(|(v, _)| *v == version).map_or("application/json", |(_, m)| m);
        let mut response = if has_etag(headers, &etag) {
            Response::new(304, media_type, Body::Full(Bytes::new()))
        } else {
            Response::new(200, media_type, Body::Full(document.clone()))
        };
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            response.headers.insert(ETAG, etag);
        }
        response.headers.insert(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

fn group(rows: &[Arc<Served>]) -> Groups<'_> {
    let mut groups: Groups<'_> = Vec::new();
    for row in rows {
        let (group, version) = (row.descriptor.resource.group.as_ref(), row.descriptor.resource.version.as_ref());
        let at = groups.iter().position(|(g, _)| *g == group).unwrap_or_else(|| {
            groups.push((group, Vec::new()));
            groups.len() - 1
        });
        let versions = &mut groups[at].1;
        let at = versions.iter().position(|(v, _)| *v == version).unwrap_or_else(|| {
            versions.push((version, Vec::new()));
            versions.len() - 1
        });
        versions[at].1.push(row);
    }
    groups
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn describe_group(group: &str, versions: &[(&str, Vec<&Served>)]) -> Value {
    let listed: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({ "groupVersion": group_version(group, version), "version": version }))
        .collect();
    json!({ "name": group, "preferredVersion": listed[0], "versions": listed })
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

/// Returns the group, the version and the name of the kind of a subresource's documents, and its verbs.
pub(crate) fn subresource_kind(row: &Served, subresource: Subresource) -> ((&str, &str, &str), Vec<&'static str>) {
    let own = &row.descriptor.kind;
    let row = subresource.row();
    let kind = match row.documents {
        subresource::Documents::Own => (own.group.as_ref(), own.version.as_ref(), own.kind.as_ref()),
        subresource::Documents::Other { api_version, kind } => {
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            (group, version, kind)
        }
    };
    (kind, verbs(row.verbs))
}

fn plain_resources(row: &Served) -> Vec<Value> {
    let descriptor = &row.descriptor;
    let mut own = json!({
        "name": descriptor.resource.resource,
        "singularName": descriptor.singular,
        "namespaced": row.is_namespaced(),
        "kind": descriptor.kind.kind,
        "verbs": verbs(descriptor.verbs),
    });
    if !descriptor.short_names.is_empty() {
        own["shortNames"] = json!(descriptor.short_names);
    }
    if !descriptor.categories.is_empty() {
        own["categories"] = json!(descriptor.categories);
    }
    let subresources = descriptor.subresources.iter().map(|subresource| {
        let ((group, version, kind), verbs) = subresource_kind(row, *subresource);
        let mut listed = json!({
            "name": format!("{}/{}", descriptor.resource.resource, subresource.as_str()),
            "singularName": "",
            "namespaced": row.is_namespaced(),
            "kind": kind,
            "verbs": verbs,
        });
        if (group, version) != (descriptor.kind.group.as_ref(), descriptor.kind.version.as_ref()) {
            listed["group"] = group.into();
            listed["version"] = version.into();
        }
        listed
    });
    std::iter::once(own).chain(subresources).collect()
}

fn aggregate(group: &str, versions: &[(&str, Vec<&Served>)]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, rows)| {
            let resources: Vec<Value> = rows.iter().map(|row| aggregated_resource(row)).collect();
            json!({ "version": version, "freshness": "Current", "resources": resources })
        })
        .collect();
    json!({ "metadata": { "name": group, "creationTimestamp": null }, "versions": versions })
}

/// Describes a resource. As in Kubernetes, the group and version of a kind are empty when they are those of the document.
fn aggregated_resource(row: &Served) -> Value {
    let descriptor = &row.descriptor;
    let kind = &descriptor.kind;
    let mut resource = json!({
        "resource": descriptor.resource.resource,
        "responseKind": { "group": "", "version": "", "kind": kind.kind },
        "scope": if row.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": descriptor.singular,
        "verbs": verbs(descriptor.verbs),
    });
    if !descriptor.short_names.is_empty() {
        resource["shortNames"] = json!(descriptor.short_names);
    }
    if !descriptor.categories.is_empty() {
        resource["categories"] = json!(descriptor.categories);
    }
    if !descriptor.subresources.is_empty() {
        let subresources: Vec<Value> = descriptor
            .subresources
            .iter()
            .map(|subresource| {
                let ((group, version, kind), verbs) = subresource_kind(row, *subresource);
                let is_own = (group, version) == (descriptor.kind.group.as_ref(), descriptor.kind.version.as_ref());
                let (group, version) = if is_own { ("", "") } else { (group, version) };
                json!({
                    "subresource": subresource.as_str(),
                    "responseKind": { "group": group, "version": version, "kind": kind },
                    "verbs": verbs,
                })
            })
            .collect();
        resource["subresources"] = json!(subresources);
    }
    resource
}
