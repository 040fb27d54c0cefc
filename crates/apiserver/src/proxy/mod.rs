//! The `proxy` subresources of pods, services and nodes: a request of any method is passed on, and the response passed
//! back. Requests to nodes go to their API. Requests to pods go through the agent of the pod's node, which connects to the
//! pod's own address, because a master need not reach that.
//!
//! `locate` finds the backend, `exchange` talks to it, `headers` and `links` translate between the two sides, and `html`
//! rewrites the links of a page on the way.

mod exchange;
mod headers;
mod html;
mod links;
mod locate;
mod page;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, LOCATION};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper_util::rt::TokioIo;
use quorate_api::Status;
use quorate_registry::Backend;
use tokio::time::timeout;

use self::exchange::Exchange;
use self::links::Links;
use crate::api::Api;
use crate::headers::is_upgrade;
use crate::nodes::ANSWER_WITHIN;
use crate::response::{Body, Request, Response};
use crate::route::Target;
use crate::tunnel::Tunnel;

/// Passes a request on to the backend of its target.
///
/// # Errors
/// `NotFound` for an absent object, `BadRequest` for a name that has no backend, `ServiceUnavailable` for a service without
/// endpoints and for a backend that cannot be reached, `Timeout` for one that does not answer, `TooManyRequests` when this
/// server or the node passes on as many requests as it may.
pub(crate) async fn proxy(api: &Api, target: &Target, backend: Backend, request: &Request) -> Result<Response, Status> {
    let destination = locate::find(api, target, backend).await?;
    let is_upgrade = is_upgrade(&request.headers);
    // Relative links of the page would lead to the wrong place without the slash.
    if target.rest.is_empty() && !is_upgrade && matches!(request.method, Method::GET | Method::HEAD) {
        return redirect(request);
    }
    let prefix = &request.path[..request.path.len() - target.rest.len()];
    let links = Links::new(prefix, destination.host(), headers::host(&request.headers));
    let mut exchange = Exchange::open(api, &destination).await?;
    let head = headers::to_backend(&request.headers, is_upgrade, &request.path, &links, request.connection.address);
    // An upgrade has no body. Its connection must be free when the backend switches protocols.
    let upload = if is_upgrade { None } else { request.upload.take() };
    let uri = uri(&target.rest, &request.query);
    let answer = exchange.send(request.method.clone(), &uri, head, upload.unwrap_or_else(HttpBody::empty)).await?;
    let shutdown = request.connection.shutdown.clone();
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let headers = answer.headers().clone();
        let connection = match timeout(ANSWER_WITHIN, hyper::upgrade::on(answer)).await {
            Ok(upgraded) => TokioIo::new(upgraded.map_err(|error| exchange::unreachable(&error))?),
            Err(late) => return Err(exchange::unreachable(&late)),
        };
        let tunnel = Tunnel::new(connection, shutdown).holding(exchange.into_permit());
        return Ok(Response { code: StatusCode::SWITCHING_PROTOCOLS, headers, body: tunnel.into_body() });
    }
    let (Parts { status, headers: head, .. }, body) = answer.into_parts();
    let mut head = headers::to_client(&head);
    let body = exchange.into_body(body, shutdown);
    let is_redirect = rewrite_location(&mut head, &links);
    let body = match page::Coding::of(status, &head).filter(|_| !is_redirect) {
        None => HttpBody::new(body),
        Some(coding) => {
            head.remove(CONTENT_LENGTH);
            coding.strip(&mut head);
            if request.method == Method::HEAD { HttpBody::new(body) } else { page::rewritten(body, coding, links) }
        }
    };
    Ok(Response { code: status, headers: head, body: Body::Passed(body) })
}

/// Returns the path and the query of the request to the backend.
fn uri(rest: &str, query: &str) -> String {
    let path = if rest.is_empty() { "/" } else { rest };
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Redirects the client to the same path with a slash.
fn redirect(request: &Request) -> Result<Response, Status> {
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    // A path that begins with two slashes would name another host.
    let path = request.path.trim_start_matches('/');
    let location = HeaderValue::try_from(format!("/{path}/{query}")).map_err(Status::internal)?;
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, location);
    Ok(Response { code: StatusCode::MOVED_PERMANENTLY, headers, body: Body::Full(Bytes::new()) })
}

/// Leads a redirect of the backend through the proxy; returns whether the response has one.
fn rewrite_location(headers: &mut HeaderMap, links: &Links) -> bool {
    let Some(location) = headers.get(LOCATION) else { return false };
    let rewritten = location.to_str().ok().and_then(|location| links.rewrite(location));
    if let Some(rewritten) = rewritten.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(LOCATION, rewritten);
    }
    true
}
