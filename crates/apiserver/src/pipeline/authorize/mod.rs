//! The authenticate and authorize stages, with a small static policy until roles are implemented: administrators may do
//! everything, nodes are restricted by [`node`], and all users may ask about themselves ([`rules`]).

mod attributes;
mod node;
mod open_watches;
mod relations;
mod rules;

use http::Method;
use quorate_api::{Reason, Status};

pub(crate) use attributes::Attributes;
pub(crate) use open_watches::WatchPermit;
pub(crate) use relations::{NodeRelation, NodeRelations};
pub(crate) use rules::rules;

use crate::api::Api;
use crate::join;
use crate::query::Query;
use crate::route::{self, Route, Target};
use crate::user::{AUTHENTICATED, MASTERS, UserInfo};

/// Returns whether anonymous users may request this path.
pub(crate) fn is_public(path: &str) -> bool {
    matches!(path.split('/').nth(1), Some("healthz" | "livez" | "readyz" | "version"))
}

/// Returns whether anonymous users reach this path, to read it or to join the cluster.
fn is_open(path: &str) -> bool {
    is_public(path) || join::is_open(path)
}

/// The authenticate stage: returns the user, or the anonymous user on a public path.
///
/// # Errors
/// `Unauthorized`.
pub(crate) fn authenticate(user: Option<UserInfo>, path: &str) -> Result<UserInfo, Status> {
    match user {
        Some(user) => Ok(user),
        None if is_open(path) => {
            Ok(UserInfo { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] })
        }
        None => Err(Status::unauthorized()),
    }
}

/// The decision about a request for a resource.
pub(crate) enum Verdict {
    Allowed,
    /// Allowed as long as a node has this relation.
    Related(NodeRelation),
    /// Refused, with the reason where upstream gives one.
    Refused(Option<String>),
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
    let Route::Resource(target) = route else {
        return match forbidden_action(user, route) {
            Some(action) => {
                Err(Status::new(Reason::Forbidden, format!("forbidden: User {:?} cannot {action}", user.name)))
            }
            None => Ok(None),
        };
    };
    match judge(api, user, &Attributes::of(target, query)).await? {
        Verdict::Allowed => Ok(None),
        Verdict::Related(relation) => Ok(Some(relation)),
        Verdict::Refused(reason) => Err(refusal(user, target, reason.as_deref())),
    }
}

/// Decides about a request for a resource, a real one or one that a review asks about.
///
/// # Errors
/// `BadRequest` for a bad field selector; errors of the store if the decision needs a read.
pub(crate) async fn judge(api: &Api, user: &UserInfo, attributes: &Attributes<'_>) -> Result<Verdict, Status> {
    if user.is_in(MASTERS) || rules::is_basic(user, attributes) {
        return Ok(Verdict::Allowed);
    }
    match user.node() {
        Some(node) => node::judge(api, node, attributes).await,
        None => Ok(Verdict::Refused(None)),
    }
}

/// Returns whether a user may use a path that belongs to no resource.
pub(crate) fn may_use_path(api: &Api, user: &UserInfo, verb: &str, path: &str) -> bool {
    if user.is_in(MASTERS) {
        return true;
    }
    let is_known = user.is_in(AUTHENTICATED) || is_open(path);
    let routed = Method::from_bytes(verb.to_ascii_uppercase().as_bytes())
        .ok()
        .and_then(|method| route::route(&api.catalog(), &method, path, &Query::default()).ok());
    match routed {
        Some(Route::Resource(_)) | None => false,
        Some(route) => is_known && forbidden_action(user, &route).is_none(),
    }
}

/// Returns the action of a route that its user may not do. The routes here belong to no resource, and most of them are
/// open to every user that the authenticate stage lets through.
fn forbidden_action(user: &UserInfo, route: &Route) -> Option<&'static str> {
    match route {
        _ if user.is_in(MASTERS) => None,
        // The backup holds every Secret, and reading the whole state is expensive.
        Route::QuorumBackup => Some("get path \"/quorum/backup\""),
        Route::QuorumHash => Some("get path \"/quorum/hash\""),
        Route::QuorumChange(_) => Some("change the quorum"),
        Route::Join(operation) if operation.is_for_administrators() => Some("use path \"/quorum/tokens\""),
        _ => None,
    }
}

fn refusal(user: &UserInfo, target: &Target, reason: Option<&str>) -> Status {
    let resource = &target.version.descriptor.resource;
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
