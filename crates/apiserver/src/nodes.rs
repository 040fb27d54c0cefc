//! Connections from this server to the node APIs of agents.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quorate_api::{GroupVersionResource, Reason, Status};
use quorate_store::Consistency;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::pipeline::read;

const NODES: GroupVersionResource = GroupVersionResource::from_static("", "v1", "nodes");
/// Timeout for connecting to a node, and for the beginning of its response.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Maximum size of a node's error that is passed on, in bytes.
pub(crate) const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Maximum number of requests that this server passes on to nodes and pods at a time.
const MAX_PROXIED: usize = 500;

/// The TLS side of connections to nodes, with a client certificate that they trust.
pub(crate) struct NodeClient {
    connector: TlsConnector,
    /// Places for proxied requests.
    proxied: Arc<Semaphore>,
}

impl NodeClient {
    pub fn new(config: Arc<rustls::ClientConfig>) -> Self {
        NodeClient { connector: TlsConnector::from(config), proxied: Arc::new(Semaphore::new(MAX_PROXIED)) }
    }

    /// Reserves a place for a proxied request; `None` when all are taken.
    pub fn admit_proxied(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.proxied).try_acquire_owned().ok()
    }
}

/// The address of a node's API.
pub(crate) struct NodeAddress {
    pub node: String,
    address: String,
    pub port: u16,
}

/// A node's response to a request for an upgrade.
pub(crate) enum UpgradeResponse {
    Switched { headers: HeaderMap, connection: Upgraded },
    Refused { code: u16, headers: HeaderMap, text: Bytes },
}

impl NodeAddress {
    /// Looks up the address that a node has published.
    ///
    /// # Errors
    /// `NotFound` for an absent node, `ServiceUnavailable` for one that has published no address yet.
    pub async fn find(api: &Api, node_name: &str) -> Result<Self, Status> {
        let served = api.catalog().find(&NODES.group, &NODES.version, &NODES.resource).cloned()?;
        let kv = read::key(api.store(), &served.key(None, node_name), Consistency::Local)
            .await?
            .ok_or_else(|| Status::not_found(&NODES, node_name))?;
        let node: Value = serde_json::from_slice(&kv.value).map_err(Status::internal)?;
        let addresses = node["status"]["addresses"].as_array();
        let address = addresses
            .into_iter()
            .flatten()
            .find(|a| a["type"] == "InternalIP")
            .and_then(|a| a["address"].as_str())
            .ok_or_else(|| Status::unavailable(format!("node {node_name} has no InternalIP")))?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .ok_or_else(|| Status::unavailable(format!("node {node_name} has no endpoint of a node API")))?;
        Ok(NodeAddress { node: node_name.to_owned(), address: address.to_owned(), port })
    }

    /// Returns the value of the `Host` header.
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Returns the error for a failed exchange with this node. `purpose` says what it was for.
    pub fn unreachable(&self, purpose: &str, error: &dyn std::fmt::Display) -> Status {
        tracing::warn!(node = self.node, purpose, %error, "the node's API failed");
        Status::unavailable(format!("node {} cannot be reached for {purpose}: {error}", self.node))
    }

    /// Connects to the node.
    ///
    /// # Errors
    /// `ServiceUnavailable` when the node cannot be reached in time.
    pub async fn connect(&self, api: &Api, purpose: &str) -> Result<TlsStream<TcpStream>, Status> {
        let client = api.node_client().ok_or_else(|| Status::unavailable("this server has no access to nodes"))?;
        let connect = async {
            let tcp = TcpStream::connect((self.address.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(self.address.clone()).map_err(std::io::Error::other)?;
            client.connector.connect(name, tcp).await
        };
        match timeout(ANSWER_WITHIN, connect).await {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err(error)) => Err(self.unreachable(purpose, &error)),
            Err(late) => Err(self.unreachable(purpose, &late)),
        }
    }
}

impl NodeAddress {
    /// Asks the node to switch to another protocol. The request's headers need no `Host`.
    ///
    /// # Errors
    /// `ServiceUnavailable` when the node cannot be reached or does not answer in time.
    pub async fn upgrade(
        &self,
        api: &Api,
        purpose: &str,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<UpgradeResponse, Status> {
        let unreachable = |error: &dyn std::fmt::Display| self.unreachable(purpose, error);
        let tls = self.connect(api, purpose).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(|e| unreachable(&e))?;
        // The task ends when the connection has left HTTP, or with this request.
        let drive = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
        let mut asked =
            Request::builder().method(method).uri(path).body(Empty::<Bytes>::new()).map_err(Status::internal)?;
        *asked.headers_mut() = headers;
        asked.headers_mut().insert(HOST, self.host().parse().map_err(Status::internal)?);
        let answer = match timeout(ANSWER_WITHIN, sender.send_request(asked)).await {
            Ok(answer) => answer.map_err(|e| unreachable(&e))?,
            Err(late) => return Err(unreachable(&late)),
        };
        let (code, headers) = (answer.status(), answer.headers().clone());
        if code != StatusCode::SWITCHING_PROTOCOLS {
            let body = Limited::new(answer.into_body(), MAX_ERROR_BYTES).collect();
            let text = match timeout(ANSWER_WITHIN, body).await {
                Ok(Ok(text)) => text.to_bytes(),
                Ok(Err(error)) => return Err(unreachable(&error)),
                Err(late) => return Err(unreachable(&late)),
            };
            return Ok(UpgradeResponse::Refused { code: code.as_u16(), headers, text });
        }
        let connection = match timeout(ANSWER_WITHIN, hyper::upgrade::on(answer)).await {
            Ok(upgraded) => upgraded.map_err(|e| unreachable(&e))?,
            Err(late) => return Err(unreachable(&late)),
        };
        drop(drive);
        Ok(UpgradeResponse::Switched { headers, connection })
    }
}

/// Escapes a segment or a value of a node API's path.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Turns a node's error response, a `Status` or plain text, into a status.
pub(crate) fn refused(code: u16, body: &[u8]) -> Status {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let message = parsed
        .as_ref()
        .and_then(|status| status["message"].as_str())
        .map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    let reason = match code {
        400 => Reason::BadRequest,
        404 => Reason::NotFound,
        403 => Reason::Forbidden,
        429 => Reason::TooManyRequests,
        _ => Reason::InternalError,
    };
    Status::new(reason, message)
}
