//! `pods/exec`, `pods/attach` and `pods/portforward`: the client's upgraded connection becomes a tunnel to the agent of
//! the pod's node, which speaks the WebSocket and SPDY protocols. This server checks the request and copies bytes.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use quorate_api::{Reason, Status};
use quorate_registry::Subresource;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::logs;
use crate::nodes::{ANSWER_WITHIN, MAX_ERROR_BYTES, NodeAddress, escape, refused};
use crate::pipeline::read;
use crate::query::Query;
use crate::response::{Body, Request, Response};
use crate::route::Target;
use crate::tunnel::Tunnel;

const PURPOSE: &str = "streams";
/// Headers of the upgrade that both sides of the tunnel must agree on.
const PASSED_ON: [HeaderName; 8] = [
    CONNECTION,
    UPGRADE,
    http::header::SEC_WEBSOCKET_KEY,
    http::header::SEC_WEBSOCKET_VERSION,
    http::header::SEC_WEBSOCKET_ACCEPT,
    http::header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-stream-protocol-version"),
    HeaderName::from_static("x-accepted-stream-protocol-versions"),
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
    let unreachable = |error: &dyn std::fmt::Display| address.unreachable(PURPOSE, error);
    let tls = address.connect(api, PURPOSE).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| unreachable(&e))?;
    // The task ends when the connection has left HTTP, or with this request.
    let drive = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let mut asked = HttpRequest::builder()
        .method(request.method.clone())
        .uri(path)
        .body(Empty::<Bytes>::new())
        .map_err(Status::internal)?;
    *asked.headers_mut() = passed_on(&request.headers);
    asked.headers_mut().insert(HOST, address.host().parse().map_err(Status::internal)?);
    let answer = match timeout(ANSWER_WITHIN, sender.send_request(asked)).await {
        Ok(answer) => answer.map_err(|e| unreachable(&e))?,
        Err(late) => return Err(unreachable(&late)),
    };
    let code = answer.status();
    if code != StatusCode::SWITCHING_PROTOCOLS {
        let accepted = passed_on(answer.headers());
        let body = Limited::new(answer.into_body(), MAX_ERROR_BYTES).collect();
        let text = match timeout(ANSWER_WITHIN, body).await {
            Ok(Ok(text)) => text.to_bytes(),
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(late) => return Err(unreachable(&late)),
        };
        let mut refusal = Response::failure(&refused(code.as_u16(), &text));
        refusal.headers.extend(accepted.into_iter().filter(|(name, _)| {
            name.as_ref().is_some_and(|name| name.as_str() == "x-accepted-stream-protocol-versions")
        }));
        return Ok(refusal);
    }
    let headers = passed_on(answer.headers());
    let upgraded = match timeout(ANSWER_WITHIN, hyper::upgrade::on(answer)).await {
        Ok(upgraded) => upgraded.map_err(|e| unreachable(&e))?,
        Err(late) => return Err(unreachable(&late)),
    };
    drop(drive);
    let tunnel = Tunnel::new(TokioIo::new(upgraded), request.connection.shutdown.clone());
    Ok(Response { code: StatusCode::SWITCHING_PROTOCOLS, headers, body: Body::Upgrade(tunnel) })
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
