//! `pods/exec`, `pods/attach` and `pods/portforward`: the client's upgraded connection becomes a tunnel to the agent of
//! the pod's node, which speaks the WebSocket and SPDY protocols. This server checks the request and copies bytes.

use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use quorate_api::{Reason, Status};
use quorate_registry::Subresource;
use serde_json::Value;

use crate::api::Api;
use crate::logs;
use crate::nodes::{NodeAddress, UpgradeResponse, escape, refused};
use crate::pipeline::read;
use crate::query::Query;
use crate::response::{Request, Response};
use crate::route::Target;
use crate::tunnel::Tunnel;

const PURPOSE: &str = "streams";
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// Headers of the upgrade that both sides of the tunnel must agree on.
const PASSED_ON: [HeaderName; 8] = [
    CONNECTION,
    UPGRADE,
    http::header::SEC_WEBSOCKET_KEY,
    http::header::SEC_WEBSOCKET_VERSION,
    http::header::SEC_WEBSOCKET_ACCEPT,
    http::header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-stream-protocol-version"),
    ACCEPTED_VERSIONS,
];

/// Opens a stream to a pod. The response upgrades the client's connection.
///
/// # Errors
/// `BadRequest` for a request without an upgrade or with invalid options, `NotFound` for an absent pod, otherwise the
/// node's error.
pub(crate) async fn open(api: &Api, target: &Target, request: &Request, query: &Query) -> Result<Response, Status> {
    let kv = read::get(api.store(), target, None).await?;
    let pod: Value = serde_json::from_slice(&kv.value).map_err(Status::internal)?;
    let path = path(target, &pod, query)?;
    let name = target.name();
    if !request.headers.contains_key(UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let address = NodeAddress::find(api, node).await?;
    tunnel(api, &address, &path, request).await
}

/// Checks the options as Kubernetes does, and returns the path of the node API with those that the node understands.
fn path(target: &Target, pod: &Value, query: &Query) -> Result<String, Status> {
    let (namespace, name) = (escape(target.namespace.as_deref().unwrap_or_default()), escape(target.name()));
    let repeated = |option: &'static str| query.values(option).map(move |value| format!("{option}={}", escape(value)));
    if target.subresource == Some(Subresource::PortForward) {
        let ports = repeated("ports").collect::<Vec<_>>();
        return Ok(format!("/portForward/{namespace}/{name}?{}", ports.join("&")));
    }
    let [stdin, stdout, stderr, tty] = ["stdin", "stdout", "stderr", "tty"].map(|option| query.flag(option));
    if !stdin && !stdout && !stderr {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let flags = [("stdin", stdin), ("stdout", stdout), ("stderr", stderr && !tty), ("tty", tty)];
    let mut options: Vec<String> =
        flags.into_iter().filter(|(_, set)| *set).map(|(option, _)| format!("{option}=true")).collect();
    let container = escape(&logs::container(target, pod, query.get("container").filter(|name| !name.is_empty()))?);
    if target.subresource == Some(Subresource::Attach) {
        return Ok(format!("/attach/{namespace}/{name}/{container}?{}", options.join("&")));
    }
    options.extend(repeated("command"));
    if query.values("command").next().is_none() {
        return Err(Status::bad_request("you must specify a command to execute"));
    }
    Ok(format!("/exec/{namespace}/{name}/{container}?{}", options.join("&")))
}

async fn tunnel(api: &Api, address: &NodeAddress, path: &str, request: &Request) -> Result<Response, Status> {
    let headers = passed_on(&request.headers);
    match address.upgrade(api, PURPOSE, request.method.clone(), path, headers).await? {
        UpgradeResponse::Switched { headers, connection } => {
            let tunnel = Tunnel::new(TokioIo::new(connection), request.connection.shutdown.clone());
            let (code, headers) = (StatusCode::SWITCHING_PROTOCOLS, passed_on(&headers));
            Ok(Response { code, headers, body: tunnel.into_body() })
        }
        UpgradeResponse::Refused { code, headers, text } => {
            let mut refusal = Response::failure(&refused(code, &text));
            for accepted in headers.get_all(&ACCEPTED_VERSIONS) {
                refusal.headers.append(&ACCEPTED_VERSIONS, accepted.clone());
            }
            Ok(refusal)
        }
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        for value in headers.get_all(&name) {
            passed.append(&name, value.clone());
        }
    }
    passed
}

/// Returns the error for a client whose connection cannot be upgraded, as over HTTP/2.
pub(crate) fn cannot_upgrade() -> Status {
    Status::new(Reason::BadRequest, "this connection cannot be upgraded: use HTTP/1.1")
}
