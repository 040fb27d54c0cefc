//! The authenticate and authorize stages, with the small static policy that holds until roles come.

use quorate_api::{GroupVersionResource, Reason, Status};
use quorate_registry::{Subresource, Verb};

use crate::join;
use crate::route::{Route, Target};
use crate::user::{MASTERS, UserInfo};

/// Where a node's lease is.
const NODE_LEASES: &str = "kube-node-lease";

/// What a node's agent reads, as (group, resource).
const READ_BY_NODES: &[(&str, &str)] = &[
    ("", "configmaps"),
    ("", "endpoints"),
    ("", "events"),
    ("", "namespaces"),
    ("", "nodes"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "networkpolicies"),
    ("node.k8s.io", "runtimeclasses"),
    ("storage.k8s.io", "csidrivers"),
];

/// Whether anonymous users may go there.
pub(crate) fn is_public(path: &str) -> bool {
    matches!(path.split('/').nth(1), Some("healthz" | "livez" | "readyz" | "version"))
}

/// The authenticate stage: who this is, unless nobody needs to be known.
///
/// # Errors
/// `Unauthorized`.
pub(crate) fn authenticate(user: Option<UserInfo>, path: &str) -> Result<UserInfo, Status> {
    match user {
        Some(user) => Ok(user),
        None if is_public(path) || join::is_open(path) => {
            Ok(UserInfo { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] })
        }
        None => Err(Status::unauthorized()),
    }
}

/// The authorize stage.
///
/// # Errors
/// `Forbidden` with what the user may not do.
pub(crate) fn authorize(user: &UserInfo, route: &Route) -> Result<(), Status> {
    match route {
        Route::Resource(target) if user.is_in(MASTERS) || user.node().is_some_and(|node| node_may(node, target)) => {
            Ok(())
        }
        Route::Resource(target) => Err(refusal(user, target)),
        // It holds every Secret, and reading all of it is work.
        Route::QuorumBackup | Route::QuorumHash if !user.is_in(MASTERS) => {
            let path = if matches!(route, Route::QuorumBackup) { "/quorum/backup" } else { "/quorum/hash" };
            let message = format!("forbidden: User {:?} cannot get path {path:?}", user.name);
            Err(Status::new(Reason::Forbidden, message))
        }
        Route::QuorumChange(_) if !user.is_in(MASTERS) => {
            let message = format!("forbidden: User {:?} cannot change the quorum", user.name);
            Err(Status::new(Reason::Forbidden, message))
        }
        Route::Join(operation) if operation.is_for_administrators() && !user.is_in(MASTERS) => {
            let message = format!("forbidden: User {:?} cannot use path \"/quorum/tokens\"", user.name);
            Err(Status::new(Reason::Forbidden, message))
        }
        // Whoever is known may find out what there is.
        _ => Ok(()),
    }
}

/// What the agent of `node` may do. What the request does not name (the name of a new object, the node of a pod)
/// is for admission to judge.
fn node_may(node: &str, target: &Target) -> bool {
    let GroupVersionResource { group, resource, .. } = &target.resource.descriptor.resource;
    let name = target.name.as_deref();
    let is_own_or_new = name.is_none_or(|name| name == node);
    match target.verb {
        Verb::Get | Verb::List | Verb::Watch => READ_BY_NODES.contains(&(group.as_ref(), resource.as_ref())),
        Verb::DeleteCollection => false,
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => match (group.as_ref(), resource.as_ref()) {
            ("", "nodes") => matches!(target.subresource, None | Some(Subresource::Status)) && is_own_or_new,
            ("coordination.k8s.io", "leases") => target.namespace.as_deref() == Some(NODE_LEASES) && is_own_or_new,
            ("", "pods") if target.verb == Verb::Delete => true,
            ("", "pods") => target.subresource == Some(Subresource::Status),
            ("" | "events.k8s.io", "events") => target.verb != Verb::Delete,
            _ => false,
        },
    }
}

fn refusal(user: &UserInfo, target: &Target) -> Status {
    let resource = &target.resource.descriptor.resource;
    let full = match target.subresource {
        Some(subresource) => format!("{}/{}", resource.resource, subresource.as_str()),
        None => resource.resource.to_string(),
    };
    let place = match &target.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{full}\" in API group \"{}\" {place}",
        user.name,
        target.verb.as_str(),
        resource.group
    );
    Status::forbidden(resource, target.name(), &why)
}
