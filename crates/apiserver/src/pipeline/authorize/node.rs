//! The node authorizer: what a node's agent may do, decided before the object is read (upstream's Node authorizer). A
//! node may read, by name, the objects that its pods refer to, and write its own objects. Admission checks what the
//! path does not show, such as the name of a new object or the node of a pod.

use quorate_api::Status;
use quorate_api::selector::FieldSelector;
use quorate_registry::pod::ReferenceKind;

use super::relations::{NodeRelation, Related};
use super::{Attributes, Verdict};
use crate::api::Api;

/// The namespace of node leases.
const NODE_LEASES: &str = "kube-node-lease";

impl Verdict {
    fn allow_if(is_allowed: bool) -> Self {
        if is_allowed { Verdict::Allowed } else { Verdict::Refused(None) }
    }

    fn because(reason: impl Into<String>) -> Self {
        Verdict::Refused(Some(reason.into()))
    }
}

/// A request of a node's agent.
struct NodeRequest<'a> {
    api: &'a Api,
    node: &'a str,
    attributes: &'a Attributes<'a>,
    fields: FieldSelector,
}

/// Decides about a request of the agent of `node`.
///
/// # Errors
/// Errors of the store when this member has to catch up first.
pub(super) async fn judge(api: &Api, node: &str, attributes: &Attributes<'_>) -> Result<Verdict, Status> {
    let fields = FieldSelector::parse(attributes.fields).map_err(|error| Status::bad_request(error.to_string()))?;
    let request = NodeRequest { api, node, attributes, fields };
    match (attributes.group, attributes.resource) {
        ("", "configmaps") => request.read_many(ReferenceKind::ConfigMap).await,
        ("", "secrets") => request.read_many(ReferenceKind::Secret).await,
        ("", "persistentvolumeclaims") => request.get(ReferenceKind::PersistentVolumeClaim).await,
        ("", "serviceaccounts") => request.get(ReferenceKind::ServiceAccount).await,
        ("", "persistentvolumes") => request.volume().await,
        ("", "pods") => request.pod().await,
        ("", "nodes") => Ok(request.node()),
        ("coordination.k8s.io", "leases") => Ok(request.lease()),
        ("" | "events.k8s.io", "events") => {
            Ok(Verdict::allow_if(matches!(attributes.verb, "create" | "update" | "patch")))
        }
        // An agent asks the masters about the users of its own API.
        ("authentication.k8s.io", "tokenreviews")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
            Ok(Verdict::allow_if(attributes.verb == "create" && attributes.subresource.is_empty()))
        }
        ("", "services")
        | ("discovery.k8s.io", "endpointslices")
        | ("node.k8s.io", "runtimeclasses")
        | ("storage.k8s.io", "csidrivers") => {
            Ok(Verdict::allow_if(request.is_read() && attributes.subresource.is_empty()))
        }
        _ => Ok(Verdict::Refused(None)),
    }
}

impl NodeRequest<'_> {
    fn is_read(&self) -> bool {
        matches!(self.attributes.verb, "get" | "list" | "watch")
    }

    /// Returns the one object that the request names, in its path or in the selector of a list or watch.
    fn name(&self) -> Option<&str> {
        self.attributes.name.or_else(|| self.fields.exact("metadata.name"))
    }

    /// Decides about `get`, `list` and `watch` of one object that a pod of the node refers to.
    async fn read_many(&self, kind: ReferenceKind) -> Result<Verdict, Status> {
        if !self.is_read() {
            return Ok(Verdict::because("can only read resources of this type"));
        }
        if self.attributes.namespace.is_none() {
            return Ok(Verdict::because("can only read namespaced object of this type"));
        }
        self.read(kind).await
    }

    /// Decides about `get` of one object that a pod of the node refers to.
    async fn get(&self, kind: ReferenceKind) -> Result<Verdict, Status> {
        if self.attributes.verb != "get" {
            return Ok(Verdict::because("can only get individual resources of this type"));
        }
        self.read(kind).await
    }

    async fn read(&self, kind: ReferenceKind) -> Result<Verdict, Status> {
        let (Some(namespace), Some(name)) = (self.attributes.namespace, self.name()) else {
            return Ok(Verdict::because("No Object name found"));
        };
        self.related(Related::Named { kind, namespace: namespace.to_owned(), name: name.to_owned() }).await
    }

    async fn volume(&self) -> Result<Verdict, Status> {
        match (self.attributes.verb, self.name()) {
            ("get", Some(name)) => self.related(Related::Volume { name: name.to_owned() }).await,
            _ => Ok(Verdict::because("can only get individual resources of this type")),
        }
    }

    async fn pod(&self) -> Result<Verdict, Status> {
        match (self.attributes.verb, self.attributes.subresource) {
            ("list" | "watch", "") if self.fields.exact("spec.nodeName") == Some(self.node) => Ok(Verdict::Allowed),
            ("get" | "list" | "watch", "") => {
                let (Some(namespace), Some(name)) = (self.attributes.namespace, self.name()) else {
                    return Ok(Verdict::because("can only list/watch pods with spec.nodeName field selector"));
                };
                self.related(Related::Pod { namespace: namespace.to_owned(), name: name.to_owned() }).await
            }
            ("delete", "") | ("update" | "patch", "status") | ("create", "eviction") => Ok(Verdict::Allowed),
            _ => Ok(Verdict::Refused(None)),
        }
    }

    fn node(&self) -> Verdict {
        let node = self.node;
        let is_own = self.name() == Some(node);
        match (self.attributes.verb, self.attributes.subresource) {
            ("create", "") => Verdict::Allowed,
            ("get" | "list" | "watch", "" | "status") if is_own => Verdict::Allowed,
            ("get" | "list" | "watch", _) => Verdict::because(match self.name() {
                Some(other) => format!("node '{node}' cannot read '{other}', only its own Node object"),
                None => format!("node '{node}' cannot read all nodes, only its own Node object"),
            }),
            ("update" | "patch", "" | "status") => Verdict::allow_if(is_own),
            _ => Verdict::Refused(None),
        }
    }

    fn lease(&self) -> Verdict {
        let verbs = ["get", "create", "update", "patch", "delete"];
        if !verbs.contains(&self.attributes.verb) {
            return Verdict::because("can only get, create, update, patch, or delete a node lease");
        }
        if self.attributes.namespace != Some(NODE_LEASES) {
            return Verdict::because(format!("can only access leases in the \"{NODE_LEASES}\" system namespace"));
        }
        if self.attributes.verb != "create" && self.name() != Some(self.node) {
            return Verdict::because("can only access node lease with the same name as the requesting node");
        }
        Verdict::Allowed
    }

    async fn related(&self, object: Related) -> Result<Verdict, Status> {
        let relation = NodeRelation { node: self.node.to_owned(), object };
        if self.api.relations().allows(self.api.store(), &relation).await? {
            return Ok(Verdict::Related(relation));
        }
        Ok(Verdict::because(relation.missing()))
    }
}
