//! The authenticate and authorize stages, with a small static policy until roles are implemented: administrators may do
//! everything, and nodes are restricted by [`node`].

mod node;
mod open_watches;
mod relations;

use quorate_api::{Reason, Status};

pub(crate) use open_watches::WatchPermit;
pub(crate) use relations::{NodeRelation, NodeRelations};

use crate::api::Api;
use crate::join;
use crate::query::Query;
use crate::route::{Route, Target};
use crate::user::{MASTERS, UserInfo};

/// Returns whether anonymous users may request this path.
pub(crate) fn is_public(path: &str) -> bool {
    matches!(path.split('/').nth(1), Some("healthz" | "livez" | "readyz" | "version"))
}

/// The authenticate stage: returns the user, or the anonymous user on a public path.
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

/// The authorize stage. Returns the relation on which a node's permission rests, if it rests on one: a response that goes
/// on, such as a watch, must end when the relation does.
///
/// # Errors
/// `Forbidden`, naming what the user may not do; errors of the store if the decision needs a read.
pub(crate) async fn authorize(
    api: &Api,
    user: &UserInfo,
    route: &Route,
    query: &Query,
) -> Result<Option<NodeRelation>, Status> {
    match route {
        Route::Resource(_) if user.is_in(MASTERS) => Ok(None),
        Route::Resource(target) => match user.node() {
            Some(node) => match node::judge(api, node, target, query).await? {
                node::Verdict::Allowed => Ok(None),
                node::Verdict::Related(relation) => Ok(Some(relation)),
                node::Verdict::Refused(reason) => Err(refusal(user, target, reason.as_deref())),
            },
            None => Err(refusal(user, target, None)),
        },
        // The backup holds every Secret, and reading the whole state is expensive.
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
        // All other routes are open to every user that the authenticate stage lets through.
        _ => Ok(None),
    }
}

fn refusal(user: &UserInfo, target: &Target, reason: Option<&str>) -> Status {
    let resource = &target.resource.descriptor.resource;
    let full = match target.subresource {
        Some(subresource) => format!("{}/{}", resource.resource, subresource.as_str()),
        None => resource.resource.to_string(),
    };
    let place = match &target.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let mut why = format!(
        "User \"{}\" cannot {} resource \"{full}\" in API group \"{}\" {place}",
        user.name,
        target.verb.as_str(),
        resource.group
    );
    if let Some(reason) = reason {
        why.push_str(": ");
        why.push_str(reason);
    }
    Status::forbidden(resource, target.name(), &why)
}
