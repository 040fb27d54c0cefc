//! The route stage: finds the operation for a method and a path. It knows the shapes of paths, not the kinds.

use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;
use quorate_api::Status;
use quorate_registry::{Backend, Subresource, Verb};

use crate::catalog::{Catalog, Served};
use crate::error;
use crate::join;
use crate::query::Query;
use crate::quorum;

/// The destination of a path.
#[derive(Clone)]
pub(crate) enum Route {
    Resource(Target),
    /// `/api`, `/apis` and the documents between them and the resources.
    Discovery(Discovery),
    /// `/openapi/v3` or one of its documents (`apis/apps/v1`).
    OpenApi(Option<String>),
    /// `/openapi/v2`, which only old clients ask for.
    OpenApiV2,
    Version,
    /// `/healthz`, `/livez`, `/readyz`, with the name of a single check.
    Health {
        endpoint: &'static str,
        check: Option<String>,
    },
    Quorum,
    QuorumHash,
    /// The whole state of this member, as a stream.
    QuorumBackup,
    QuorumChange(quorum::Operation),
    /// The requests of joining machines, and the administration of join tokens.
    Join(join::Operation),
}

impl Route {
    /// Returns the creation that a WebSocket client's `GET` amounts to. An upgrade gives the same access by either method, so
    /// the permission to create is checked too. An upgrade through a node's proxy opens the same streams.
    pub(crate) fn as_creation(&self, is_upgrade: bool) -> Option<Route> {
        let Route::Resource(target) = self else { return None };
        let subresource = target.subresource.filter(|_| target.verb == Verb::Get)?;
        let opens_stream = subresource.is_upgrade() || (is_upgrade && subresource.backend() == Some(Backend::Node));
        opens_stream.then(|| Route::Resource(Target { verb: Verb::Create, ..target.clone() }))
    }

    /// Returns whether the request is passed on to another server, together with its body.
    pub(crate) fn is_proxied(&self) -> bool {
        matches!(self, Route::Resource(target) if target.subresource.is_some_and(|sub| sub.backend().is_some()))
    }

    /// Returns whether the response may go on for as long as the client likes, as a watch or a log does.
    pub(crate) fn is_long_running(&self) -> bool {
        match self {
            Route::Resource(target) => {
                target.verb == Verb::Watch || target.subresource.is_some_and(Subresource::is_stream)
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    Core,
    Groups,
    Group(String),
    Resources { group: String, version: String },
}

/// An operation on a kind's objects.
#[derive(Clone)]
pub(crate) struct Target {
    /// The kind in the version in which it is stored.
    pub resource: Arc<Served>,
    /// The kind in the version of the request.
    pub version: Arc<Served>,
    pub verb: Verb,
    pub namespace: Option<String>,
    /// `None` for a collection.
    pub name: Option<String>,
    pub subresource: Option<Subresource>,
    /// The rest of the path behind a proxy subresource, with its escapes. It is empty or begins with a slash.
    pub rest: String,
}

impl Target {
    /// Returns the object's name, empty for a collection.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub fn key(&self) -> String {
        self.resource.key(self.namespace.as_deref(), self.name())
    }
}

/// Parses the query of a request and finds its destination. A query that is passed on need not be valid here.
///
/// # Errors
/// `BadRequest` for an invalid query. The routing error stands beside the query, because the user is authenticated before
/// it may be shown.
pub(crate) fn route_request(
    catalog: &Catalog,
    method: &Method,
    path: &str,
    query: &str,
) -> Result<(Query, Result<Route, Status>), Status> {
    let query = Query::parse(query);
    let routed = route(catalog, method, path, query.as_ref().unwrap_or(&Query::default()));
    match query {
        Err(_) if routed.as_ref().is_ok_and(Route::is_proxied) => Ok((Query::default(), routed)),
        query => Ok((query?, routed)),
    }
}

/// Finds the destination of a method and a path.
///
/// # Errors
/// `NotFound` for an unknown path, `MethodNotAllowed` for a verb that the kind does not support.
pub(crate) fn route(catalog: &Catalog, method: &Method, path: &str, query: &Query) -> Result<Route, Status> {
    let (own, rest) = split_proxied(path);
    let mut routed = route_own(catalog, method, own, query)?;
    if let Route::Resource(target) = &mut routed {
        rest.clone_into(&mut target.rest);
    }
    Ok(routed)
}

/// Splits the path behind a proxy subresource off. That part belongs to the backend and need not be valid here.
fn split_proxied(path: &str) -> (&str, &str) {
    let mut at = 0;
    let ends = path.split_inclusive('/').map(|piece| {
        at += piece.len();
        (piece.trim_end_matches('/'), at - usize::from(piece.ends_with('/')))
    });
    let mut segments = ends.filter(|(segment, _)| !segment.is_empty());
    let versions = match segments.next() {
        Some(("api", _)) => 1,
        Some(("apis", _)) => 2,
        _ => return (path, ""),
    };
    // The subresource follows the resource and a name, and these may follow a namespace.
    let place = match segments.nth(versions) {
        Some(("namespaces", _)) => segments.nth(3),
        Some(("watch", _)) | None => None,
        Some(_) => segments.nth(1),
    };
    match place {
        Some(("proxy", end)) => path.split_at(end),
        _ => (path, ""),
    }
}

fn route_own(catalog: &Catalog, method: &Method, path: &str, query: &Query) -> Result<Route, Status> {
    let segments = path
        .split('/')
        .filter(|s| !s.is_empty())
        .map(|s| percent_decode_str(s).decode_utf8().map(std::borrow::Cow::into_owned))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Status::bad_request("the path is not valid UTF-8"))?;
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    // An escaped slash would produce a key of another shape.
    if parts.iter().any(|part| part.contains('/')) {
        return Err(error::no_such_path());
    }
    let fixed = match parts.as_slice() {
        ["api"] => Route::Discovery(Discovery::Core),
        ["apis"] => Route::Discovery(Discovery::Groups),
        ["api", version] => resources("", version),
        ["apis", group] => Route::Discovery(Discovery::Group((*group).to_owned())),
        ["apis", group, version] => resources(group, version),
        ["api", version, rest @ ..] => return resource(catalog, method, ("", version), rest, query),
        ["apis", group, version, rest @ ..] => return resource(catalog, method, (group, version), rest, query),
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApi(None),
        ["openapi", "v3", rest @ ..] => Route::OpenApi(Some(rest.join("/"))),
        ["version"] => Route::Version,
        ["healthz", rest @ ..] => health("healthz", rest),
        ["livez", rest @ ..] => health("livez", rest),
        ["readyz", rest @ ..] => health("readyz", rest),
        ["quorum"] => Route::Quorum,
        ["quorum", "hash"] => Route::QuorumHash,
        ["quorum", "backup"] => Route::QuorumBackup,
        ["quorum", "authority" | "join" | "renew" | "tokens", ..] => {
            return Ok(Route::Join(join::operation(method, &parts[1..])?));
        }
        ["quorum", rest @ ..] => return Ok(Route::QuorumChange(quorum::operation(method, rest)?)),
        _ => return Err(error::no_such_path()),
    };
    if *method == Method::GET || *method == Method::HEAD { Ok(fixed) } else { Err(error::method_not_allowed()) }
}

fn resources(group: &str, version: &str) -> Route {
    Route::Discovery(Discovery::Resources { group: group.to_owned(), version: version.to_owned() })
}

fn health(endpoint: &'static str, rest: &[&str]) -> Route {
    let check = if rest.is_empty() { None } else { Some(rest.join("/")) };
    Route::Health { endpoint, check }
}

fn resource(
    catalog: &Catalog,
    method: &Method,
    (group, version): (&str, &str),
    parts: &[&str],
    query: &Query,
) -> Result<Route, Status> {
    // Kubernetes' old paths for watches, from before the `watch` parameter.
    let (parts, is_watch_path) = match parts {
        ["watch", rest @ ..] if !rest.is_empty() => (rest, true),
        _ => (parts, false),
    };
    let (namespace, resource, rest) = split_namespace(catalog, (group, version), parts)?;
    let served = catalog.find(group, version, resource)?;
    if namespace.is_some() != served.is_namespaced() && (namespace.is_some() || !rest.is_empty()) {
        return Err(error::no_such_path());
    }
    let (name, subresource) = match rest {
        [] => (None, None),
        [name] => (Some((*name).to_owned()), None),
        [name, sub] => {
            let sub = served.descriptor.subresources.iter().find(|s| s.as_str() == *sub);
            (Some((*name).to_owned()), Some(*sub.ok_or_else(error::no_such_path)?))
        }
        _ => return Err(error::no_such_path()),
    };
    if is_watch_path && subresource.is_some() {
        return Err(error::no_such_path());
    }
    // The parameter applies to collections only and is ignored with a name.
    let is_watch = is_watch_path || (name.is_none() && query.flag("watch"));
    let verb = verb(method, name.is_some(), subresource, is_watch).ok_or_else(error::method_not_allowed)?;
    let known = subresource.is_some() || served.descriptor.verbs.contains(&verb);
    let is_everywhere = served.is_namespaced() && namespace.is_none();
    if !known || (is_everywhere && !matches!(verb, Verb::List | Verb::Watch)) {
        return Err(error::method_not_allowed());
    }
    Ok(Route::Resource(Target {
        resource: Arc::clone(served.stored_version()),
        version: Arc::clone(served),
        verb,
        namespace: namespace.map(str::to_owned),
        name,
        subresource,
        rest: String::new(),
    }))
}

/// Splits `namespaces/<ns>/<resource>/…`. `namespaces/<name>` itself and its subresources are ordinary objects.
fn split_namespace<'a>(
    catalog: &Catalog,
    (group, version): (&str, &str),
    parts: &'a [&'a str],
) -> Result<(Option<&'a str>, &'a str, &'a [&'a str]), Status> {
    match parts {
        ["namespaces", namespace, resource, rest @ ..] => {
            let own = catalog.find(group, version, "namespaces");
            let is_own_subresource =
                own.is_ok_and(|own| own.descriptor.subresources.iter().any(|s| s.as_str() == *resource));
            if is_own_subresource && rest.is_empty() {
                Ok((None, parts[0], &parts[1..]))
            } else {
                Ok((Some(namespace), resource, rest))
            }
        }
        [resource, rest @ ..] => Ok((None, resource, rest)),
        [] => Err(error::no_such_path()),
    }
}

fn verb(method: &Method, is_named: bool, subresource: Option<Subresource>, is_watch: bool) -> Option<Verb> {
    let verb = match *method {
        Method::GET | Method::HEAD if subresource.is_none() && is_watch => Verb::Watch,
        Method::GET | Method::HEAD if !is_named => Verb::List,
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST if subresource.is_some() || !is_named => Verb::Create,
        Method::PUT if is_named => Verb::Update,
        Method::PATCH if is_named => Verb::Patch,
        Method::DELETE if is_named => Verb::Delete,
        Method::DELETE => Verb::DeleteCollection,
        Method::OPTIONS if subresource.is_some_and(|subresource| subresource.backend().is_some()) => {
            return Some(Verb::Unnamed);
        }
        _ => return None,
    };
    let is_served = match subresource {
        // A response to HEAD has no body that an upgraded connection could carry.
        Some(subresource) if subresource.is_upgrade() && *method == Method::HEAD => false,
        Some(subresource) => subresource.row().verbs.contains(&verb),
        None => true,
    };
    is_served.then_some(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, url: &str, expected: &str) {
        let catalog = Catalog::new(quorate_registry::builtin());
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(query).expect("a query");
        let method: Method = method.parse().expect("a method");
        let routed = match route(&catalog, &method, path, &query) {
            Ok(Route::Resource(target)) => format!(
                "{} {} ns={} name={} sub={}{}",
                target.verb.as_str(),
                target.version.descriptor.resource.group_resource(),
                target.namespace.as_deref().unwrap_or("-"),
                target.name.as_deref().unwrap_or("-"),
                target.subresource.map_or("-", Subresource::as_str),
                target.rest,
            ),
            Ok(_) => "document".to_owned(),
            Err(status) => status.code.to_string(),
        };
        assert_eq!(routed, expected, "{method} {url}");
    }

    #[test]
    fn only_watches_and_streams_are_long_running() {
        let catalog = Catalog::new(quorate_registry::builtin());
        for (method, path, query, expected) in [
            (Method::GET, "/api/v1/namespaces/a/pods", "watch=true", true),
            (Method::GET, "/api/v1/namespaces/a/pods", "watch=1", true),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/x", "", true),
            (Method::GET, "/api/v1/namespaces/a/pods/x/log", "", true),
            (Method::GET, "/api/v1/namespaces/a/pods/x/exec", "command=ls", true),
            (Method::POST, "/api/v1/namespaces/a/pods/x/attach", "", true),
            (Method::POST, "/api/v1/namespaces/a/pods/x/portforward", "", true),
            (Method::POST, "/api/v1/namespaces/a/services/x/proxy/y", "", true),
            (Method::GET, "/api/v1/namespaces/a/pods", "watch=false", false),
            (Method::GET, "/api/v1/namespaces/a/pods/x", "watch=true", false),
            (Method::GET, "/api/v1/namespaces/a/configmaps/log", "", false),
            (Method::GET, "/api/v1/namespaces/watch/pods", "", false),
            (Method::GET, "/openapi/v2", "watch=true", false),
            (Method::POST, "/api/v1/namespaces/a/pods", "watch=1", false),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "watch=1", false),
        ] {
            let query = Query::parse(query).expect("a query");
            let route = route(&catalog, &method, path, &query).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(route.is_long_running(), expected, "{method} {path}");
        }
    }

    #[test]
    fn paths_and_methods_map_to_verbs() {
        let cases = [
            ("GET", "/api/v1/pods", "list pods ns=- name=- sub=-"),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch pods ns=a name=- sub=-"),
            ("GET", "/api/v1/namespaces/a/pods?watch=false", "list pods ns=a name=- sub=-"),
            ("GET", "/api/v1/watch/namespaces/a/pods/x", "watch pods ns=a name=x sub=-"),
            ("GET", "/api/v1/namespaces/a/pods/x?watch=true", "get pods ns=a name=x sub=-"),
            ("GET", "/api/v1/namespaces/a/pods/x/log", "get pods ns=a name=x sub=log"),
            ("GET", "/api/v1/namespaces/a/pods/x/exec?command=ls", "get pods ns=a name=x sub=exec"),
            ("POST", "/api/v1/namespaces/a/pods/x/portforward", "create pods ns=a name=x sub=portforward"),
            ("PUT", "/api/v1/namespaces/a/pods/x/attach", "405"),
            ("HEAD", "/api/v1/namespaces/a/pods/x/attach", "405"),
            ("HEAD", "/api/v1/namespaces/a/pods/x/log", "get pods ns=a name=x sub=log"),
            ("DELETE", "/api/v1/namespaces/a/pods/x/status", "405"),
            (
                "PATCH",
                "/api/v1/namespaces/a/pods/x/ephemeralcontainers",
                "patch pods ns=a name=x sub=ephemeralcontainers",
            ),
            ("POST", "/api/v1/namespaces/a/pods/x/ephemeralcontainers", "405"),
            ("PATCH", "/api/v1/namespaces/a/pods/x/status", "patch pods ns=a name=x sub=status"),
            ("POST", "/api/v1/namespaces/a/pods/x/eviction", "create pods ns=a name=x sub=eviction"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection pods ns=a name=- sub=-"),
            ("GET", "/api/v1/namespaces", "list namespaces ns=- name=- sub=-"),
            ("GET", "/api/v1/namespaces/a", "get namespaces ns=- name=a sub=-"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update namespaces ns=- name=a sub=finalize"),
            ("PUT", "/apis/apps/v1/namespaces/a/deployments/x/scale", "update deployments.apps ns=a name=x sub=scale"),
            ("GET", "/api/v1/namespaces/a/pods/x/proxy", "get pods ns=a name=x sub=proxy"),
            ("HEAD", "/api/v1/namespaces/a/pods/http:x:80/proxy/", "get pods ns=a name=http:x:80 sub=proxy/"),
            ("POST", "/api/v1/namespaces/a/pods/x/proxy//b/%2F%ff/", "create pods ns=a name=x sub=proxy//b/%2F%ff/"),
            ("OPTIONS", "/api/v1/namespaces/a/services/x%3A80/proxy/c?d", " services ns=a name=x:80 sub=proxy/c"),
            ("PATCH", "//api/v1/nodes/n/proxy/proxy/healthz", "patch nodes ns=- name=n sub=proxy/proxy/healthz"),
            ("TRACE", "/api/v1/nodes/n/proxy/", "405"),
            ("OPTIONS", "/api/v1/nodes/n/status", "405"),
            ("GET", "/api/v1/namespaces/a/configmaps/x/proxy/b", "404"),
            ("GET", "/api/v1/namespaces/proxy/pods/proxy", "get pods ns=proxy name=proxy sub=-"),
            ("GET", "/api/v1/watch/namespaces/proxy/pods/x", "watch pods ns=proxy name=x sub=-"),
            ("GET", "/apis/events.k8s.io/v1/namespaces/a/events/x", "get events.events.k8s.io ns=a name=x sub=-"),
            ("GET", "/apis/apps/v1", "document"),
            ("GET", "/openapi/v3/apis/apps/v1", "document"),
            ("GET", "/openapi/v2", "document"),
            ("POST", "/apis", "405"),
            ("POST", "/api/v1/pods", "405"),
            ("POST", "/api/v1/namespaces/a/pods/x", "405"),
            ("GET", "/api/v1/pods/x", "404"),
            ("GET", "/api/v1/namespaces/a/nodes", "404"),
            ("GET", "/api/v1/namespaces/a/pods/x/scale", "404"),
            ("GET", "/api/v1/namespaces/a%2Fb/pods/x", "404"),
            ("GET", "/api/v1/watch/nodes/n/proxy", "404"),
            ("GET", "/apis/apps/v2/deployments", "404"),
            ("GET", "/elsewhere", "404"),
        ];
        for (method, url, expected) in cases {
            check(method, url, expected);
        }
    }
}
