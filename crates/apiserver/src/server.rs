//! The network side: TLS connections, HTTP/1.1 and HTTP/2, limits, orderly shutdown.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::{Extension, Router};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use quorate_api::{Reason, Status};
use quorate_pki::LiveIdentity;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::activity::{Activity, Running};
use crate::api::Api;
use crate::connection::Connection;
use crate::error;
use crate::join;
use crate::nodes::NodeClient;
use crate::pipeline::authorize::is_public;
use crate::response::{Body, Request, Response};
use crate::route::{Route, route_request};
use crate::strangers::Strangers;
use crate::streams;
use crate::tls::{self, TlsError};
use crate::upload::Upload;

/// Maximum size of a request body, in bytes, as in Kubernetes.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Memory that all request bodies share, and the size up to which a body does not count.
const BODY_BUDGET_BYTES: usize = 128 << 20;
const FREE_BODY_BYTES: usize = 64 << 10;
/// Maximum number of bytes of a refused body that are read and discarded.
const MAX_DRAINED_BYTES: usize = 4 * MAX_BODY_BYTES;
/// Minimum size of a compressed response, in bytes, as in Kubernetes.
const COMPRESS_FROM_BYTES: usize = 128 * 1024;
/// Time that running requests have to finish after the shutdown began.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// Pause of the listener when it cannot accept, for example for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Maximum number of HTTP/2 streams on one connection, each of which may be a watch.
const MAX_STREAMS: u32 = 1000;
/// Interval of HTTP/2 pings and of TCP probes, which detect a dead client.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Number of TCP probes without an answer after which the client is dead.
const PROBES: u32 = 3;

/// The configuration of a server besides the API.
pub struct ServerConfig {
    pub listener: TcpListener,
    pub identity: Arc<LiveIdentity>,
    /// The authority that signs the certificates of clients and nodes.
    pub client_authority_pem: Vec<u8>,
    /// The identity with which this server authenticates to nodes when it fetches logs.
    pub node_client: Option<Arc<LiveIdentity>>,
    /// Maximum number of concurrent requests; watches and logs do not count.
    pub max_in_flight: usize,
    pub deadlines: Deadlines,
}

/// Limits of the time that a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// For the headers of a request.
    pub headers: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// Between two requests, and before the first one. Longer than the 90 s for which the connection pools of Go and hyper
    /// keep a connection, so that the client closes it first and no request meets a closing connection.
    pub idle: Duration,
    /// For the last response of a connection that was found idle. The client may read slowly.
    pub last_response: Duration,
}

impl Default for Deadlines {
    /// Returns deadlines similar to those of Kubernetes.
    fn default() -> Self {
        let [handshake, headers, body, idle, last_response] = [10, 30, 60, 120, 300].map(Duration::from_secs);
        Deadlines { handshake, headers, body, idle, last_response }
    }
}

impl ServerConfig {
    /// The default of `max_in_flight`: Kubernetes' 400 reading and 200 writing requests.
    pub const DEFAULT_MAX_IN_FLIGHT: usize = 600;
}

/// The reason why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the server's TLS cannot be set up")]
    Tls(#[source] TlsError),
    #[error("TLS towards the nodes cannot be set up")]
    NodeTls(#[source] TlsError),
}

/// Marks the response to a list that is longer than a page.
#[derive(Clone, Copy)]
struct LongList;

/// Marks the response of another server, which is not compressed here.
#[derive(Clone, Copy)]
struct Passed;

#[derive(Clone)]
struct Server {
    api: Api,
    in_flight: Arc<Semaphore>,
    /// Memory budget of the bodies of all running requests, in bytes.
    body_budget: Arc<Semaphore>,
    /// Tasks that serve upgraded connections.
    tunnels: TaskTracker,
    /// Join requests, which come from unauthenticated machines.
    strangers: Strangers,
    deadlines: Deadlines,
}

/// Serves the API until the shutdown, then ends watches, lets running requests finish, and returns.
///
/// # Errors
/// When TLS cannot be set up.
pub async fn serve(api: Api, config: ServerConfig, shutdown: CancellationToken) -> Result<(), ServeError> {
    let tls_config = tls::server_config(config.identity, &config.client_authority_pem).map_err(ServeError::Tls)?;
    if let Some(identity) = config.node_client {
        let client = tls::client_config(identity, &config.client_authority_pem).map_err(ServeError::NodeTls)?;
        api.set_node_client(NodeClient::new(Arc::new(client)));
    }
    let acceptor = TlsAcceptor::from(Arc::new(tls_config));
    let in_flight = Arc::new(Semaphore::new(config.max_in_flight));
    let body_budget = Arc::new(Semaphore::new(BODY_BUDGET_BYTES));
    let connections = TaskTracker::new();
    let (follower, stop) = (api.clone(), shutdown.clone());
    connections.spawn(async move { follower.relations().follow(follower.store(), stop).await });
    let deadlines = config.deadlines;
    let (tunnels, strangers) = (connections.clone(), Strangers::new());
    let router = router(Server { api, in_flight, body_budget, tunnels, strangers, deadlines });
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = config.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                connections.spawn(connection(stream, from.ip(), acceptor, router, deadlines, shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(config.listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

fn router(server: Server) -> Router {
    let is_large = |_: StatusCode, _: http::Version, headers: &http::HeaderMap, extensions: &http::Extensions| {
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
        // A stream that is not a list is sent as it comes.
        extensions.get::<LongList>().is_some()
            || (extensions.get::<Passed>().is_none() && length.is_some_and(|length| length >= COMPRESS_FROM_BYTES))
    };
    // As in Kubernetes, the fastest level: the network is seldom slower than the processor.
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_large);
    Router::new().fallback(answer).with_state(server).layer(compression)
}

async fn connection(
    stream: TcpStream,
    from: IpAddr,
    acceptor: TlsAcceptor,
    router: Router,
    deadlines: Deadlines,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot disable Nagle's algorithm on a connection");
    }
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keep_alive()) {
        tracing::debug!(%error, "cannot probe the client of a connection");
    }
    let stream = match timeout(deadlines.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let user = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(tls::certificate_user);
    let activity = Activity::default();
    let connection = Connection::new(user, shutdown.clone()).from(from);
    let service = TowerToHyperService::new(router.layer(Extension(connection)).layer(Extension(activity.clone())));
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper counts this time from the last response, not from the first byte of the headers.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(deadlines.headers.max(deadlines.idle));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .adaptive_window(true);
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        ended = serving.as_mut() => return log_end(ended),
        () = shutdown.cancelled() => {}
        () = activity.idle(deadlines.idle) => {}
    }
    serving.as_mut().graceful_shutdown();
    // A request that arrived just before the client learned of the end may run on, such as a watch.
    let cut_off = async {
        tokio::select! {
            () = shutdown.cancelled() => sleep(DRAIN_WITHIN).await,
            () = activity.idle(deadlines.last_response) => {}
        }
    };
    tokio::select! {
        ended = serving => log_end(ended),
        () = cut_off => tracing::debug!("a connection was cut off"),
    }
}

/// Probes of TCP. A watch by HTTP/1.1 may have nothing to send for a long time, and would outlive its client.
fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE).with_retries(PROBES)
}

fn log_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(
    State(server): State<Server>,
    Extension(connection): Extension<Connection>,
    Extension(activity): Extension<Activity>,
    request: axum::extract::Request,
) -> http::Response<HttpBody> {
    let running = activity.begin();
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let query = parts.uri.query().unwrap_or_default();
    let is_join = connection.user.is_none() && join::takes_body(parts.uri.path());
    let admitted = if is_join { Some(Admitted::default()) } else { admit(&server, &parts.method, &parts.uri) };
    let Some(Admitted { permit, is_proxied }) = admitted else {
        return respond(Response::failure(&error::too_many_requests()), None, &server.tunnels, running);
    };
    // An anonymous client's body is not read unless it is a join request.
    let (body, upload) = match connection.user {
        Some(_) if is_proxied => (Ok((Bytes::new(), None)), Upload::new(body)),
        Some(_) => (read_body(body, &server.body_budget, server.deadlines.body).await, Upload::default()),
        None if is_join => {
            let admitted = server.strangers.admit(body).await;
            (admitted.map(|(body, permit)| (body, Some(permit))), Upload::default())
        }
        None => (Ok((Bytes::new(), None)), Upload::default()),
    };
    let response = match body {
        Ok((body, _permit)) => {
            let answers = connection.answers.clone();
            let request = Request {
                query: query.to_owned(),
                path: parts.uri.path().to_owned(),
                method: parts.method,
                headers: with_host(parts.headers, &parts.uri),
                body,
                upload: upload.clone(),
                connection,
            };
            let is_read = matches!(request.method, Method::GET | Method::HEAD);
            answers.hold(server.api.handle(request).await, is_read)
        }
        Err(status) => Response::failure(&status),
    };
    if let Some(refused) = upload.take() {
        drain(refused, server.deadlines.body).await;
    }
    drop(permit);
    respond(response, upgrade, &server.tunnels, running)
}

/// Sets the `Host` header that an HTTP/2 client sends as a part of the URI (RFC 9113, section 8.3.1).
fn with_host(mut headers: HeaderMap, uri: &Uri) -> HeaderMap {
    if let Some(authority) = uri.authority()
        && !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    headers
}

/// A request that may run.
#[derive(Default)]
struct Admitted {
    /// The place among the requests in flight, for those that need one.
    permit: Option<OwnedSemaphorePermit>,
    /// The request is passed on to another server, which reads its body.
    is_proxied: bool,
}

/// Reserves a place among the requests in flight; returns `None` when all are taken.
fn admit(server: &Server, method: &Method, uri: &Uri) -> Option<Admitted> {
    // The route decides, because `watch=true` means nothing in most requests.
    let routed = route_request(&server.api.catalog(), method, uri.path(), uri.query().unwrap_or_default())
        .and_then(|(_, routed)| routed);
    let is_proxied = routed.as_ref().is_ok_and(Route::is_proxied);
    if is_public(uri.path()) || routed.is_ok_and(|route| route.is_long_running()) {
        return Some(Admitted { permit: None, is_proxied });
    }
    let permit = Arc::clone(&server.in_flight).try_acquire_owned().ok()?;
    Some(Admitted { permit: Some(permit), is_proxied })
}

/// A body, and the permit that its request holds.
type BodyAndPermit = (Bytes, Option<OwnedSemaphorePermit>);

async fn read_body(body: HttpBody, body_budget: &Arc<Semaphore>, within: Duration) -> Result<BodyAndPermit, Status> {
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    let late = || Status::new(Reason::Timeout, "the body of the request took too long");
    timeout(within, collect(body, body_budget)).await.map_err(|_| late())?
}

/// Reads a body up to the size limit and within the memory budget. The rest of a refused body is read and discarded, up
/// to a limit, because a client that is cut off while it sends would not see the response.
async fn collect(mut body: HttpBody, body_budget: &Arc<Semaphore>) -> Result<BodyAndPermit, Status> {
    let (mut first, mut rest, mut size) = (Bytes::new(), BytesMut::new(), 0);
    let (mut permit, mut is_refused) = (None, false);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Status::bad_request(format!("the body of the request could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > MAX_DRAINED_BYTES {
            break;
        }
        if size > FREE_BODY_BYTES && !is_refused {
            is_refused = !reserve(body_budget, data.len(), &mut permit);
        }
        if size > MAX_BODY_BYTES || is_refused {
            (first, rest, permit) = (Bytes::new(), BytesMut::new(), None);
            continue;
        }
        // Nearly every body is a single frame, which is not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        rest.extend_from_slice(&std::mem::take(&mut first));
        rest.extend_from_slice(&data);
    }
    match size {
        _ if size > MAX_BODY_BYTES => Err(error::too_large(MAX_BODY_BYTES)),
        _ if is_refused => Err(error::too_many_requests()),
        _ if rest.is_empty() => Ok((first, permit)),
        _ => Ok((rest.freeze(), permit)),
    }
}

/// Reads and discards a body that no server has read, up to a limit, so that its client sees the response.
async fn drain(mut body: HttpBody, within: Duration) {
    let read = async {
        let mut size = 0;
        while size <= MAX_DRAINED_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            size += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    if timeout(within, read).await.is_err() {
        tracing::debug!("a client took too long to send a body that is not read");
    }
}

/// Reserves budget for more bytes; returns false when it is used up.
fn reserve(body_budget: &Arc<Semaphore>, bytes: usize, held: &mut Option<OwnedSemaphorePermit>) -> bool {
    let taken = u32::try_from(bytes).ok().and_then(|bytes| Arc::clone(body_budget).try_acquire_many_owned(bytes).ok());
    match (taken, held) {
        (None, _) => false,
        (Some(more), Some(held)) => {
            held.merge(more);
            true
        }
        (more, held) => {
            *held = more;
            true
        }
    }
}

/// Converts a response to HTTP. `upgrade` becomes the client's connection when the response upgrades it. The request runs
/// until the last part of its response is taken.
fn respond(
    mut response: Response,
    upgrade: Option<OnUpgrade>,
    tunnels: &TaskTracker,
    running: Running,
) -> http::Response<HttpBody> {
    let (is_long_list, is_passed) = (matches!(response.body, Body::List(_)), matches!(response.body, Body::Passed(_)));
    let (body, length) = match std::mem::replace(&mut response.body, Body::Full(Bytes::new())) {
        Body::Full(bytes) => {
            let length = bytes.len();
            (HttpBody::new(Full::new(bytes)), Some(length))
        }
        Body::Stream(stream) | Body::List(stream) => {
            let held = stream.inspect(move |_| running.hold());
            (HttpBody::from_stream(held), None)
        }
        Body::Passed(body) => {
            let held = body.inspect_frame(move |_| running.hold());
            (HttpBody::new(held), None)
        }
        Body::Upgrade(takeover) => {
            let Some(upgrade) = upgrade else {
                return respond(Response::failure(&streams::cannot_upgrade()), None, tunnels, running);
            };
            tunnels.spawn(async move {
                match upgrade.await {
                    Ok(client) => takeover(TokioIo::new(client)).await,
                    Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
                }
            });
            (HttpBody::empty(), None)
        }
    };
    let mut answer = http::Response::new(body);
    *answer.status_mut() = response.code;
    *answer.headers_mut() = response.headers;
    if is_long_list {
        answer.extensions_mut().insert(LongList);
    }
    if is_passed {
        answer.extensions_mut().insert(Passed);
    }
    if let Some(length) = length {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(parts: &[usize]) -> HttpBody {
        let parts: Vec<_> = parts.iter().map(|size| Ok::<_, axum::Error>(Bytes::from(vec![b' '; *size]))).collect();
        HttpBody::from_stream(futures::stream::iter(parts))
    }

    #[tokio::test]
    async fn bodies_share_a_memory_budget() {
        let body_budget = Arc::new(Semaphore::new(4 * FREE_BODY_BYTES));
        let read = |parts: &[usize]| {
            let (body, body_budget) = (body(parts), Arc::clone(&body_budget));
            async move { read_body(body, &body_budget, Deadlines::default().body).await }
        };
        let (small, permit) = read(&[FREE_BODY_BYTES]).await.expect("small bodies do not count");
        assert!(small.len() == FREE_BODY_BYTES && permit.is_none());
        let (large, permit) = read(&[FREE_BODY_BYTES, FREE_BODY_BYTES, 1]).await.expect("it fits");
        assert_eq!((large.len(), permit.is_some()), (2 * FREE_BODY_BYTES + 1, true));
        let refused = read(&[4 * FREE_BODY_BYTES]).await.expect_err("the budget is used up");
        assert_eq!(refused.reason, Reason::TooManyRequests);
        drop(permit);
        let (again, _permit) = read(&[4 * FREE_BODY_BYTES]).await.expect("the budget is free again");
        assert_eq!(again.len(), 4 * FREE_BODY_BYTES);
        let endless = read(&[2 * MAX_BODY_BYTES]).await.expect_err("too large");
        assert_eq!(endless.reason, Reason::RequestEntityTooLarge);
    }
}
