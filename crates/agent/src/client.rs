//! HTTP client for the masters. It knows all of them, prefers the leader, and fails over to the next one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::RwLock;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

use crate::AgentError;

/// The agent's user agent.
const PROGRAM: &str = concat!("quorate-agent/", env!("CARGO_PKG_VERSION"));
/// Maximum time to connect to a master.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Maximum time until a master begins its response.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum time of all attempts for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two requests for the current leader.
const LEADER_INTERVAL: Duration = Duration::from_secs(5);

/// Why no master served a request.
#[derive(Debug, thiserror::Error)]
pub enum MastersError {
    #[error("no master answered")]
    Unanswered(#[source] BoxError),
    #[error("the request is malformed")]
    Malformed(#[source] BoxError),
    #[error("the master did not answer within {ATTEMPT_TIMEOUT:?}")]
    TimedOut,
    #[error("the master is not ready ({0})")]
    NotReady(StatusCode),
}

type Http = HttpClient<MasterConnector, Full<Bytes>>;

struct Shared {
    /// The masters of the configuration. They are asked when all others are gone.
    configured: Vec<Authority>,
    endpoints: RwLock<Vec<Authority>>,
    current: AtomicUsize,
    http: Http,
    /// Notified when a master failed, because the leader may have changed.
    master_failed: Notify,
}

/// All masters as one [`Service`]. Cheap to clone.
///
/// A request that fails on one master is sent to the next, so every request must be safe to repeat. The agent's are.
#[derive(Clone)]
pub struct Masters {
    shared: Arc<Shared>,
}

/// The members and the leader, as `GET /quorum` returns them.
#[derive(Deserialize)]
struct Quorum {
    leader: Option<String>,
    #[serde(default)]
    members: Vec<QuorumMember>,
}

#[derive(Deserialize)]
struct QuorumMember {
    name: String,
    api: String,
}

impl Masters {
    /// # Errors
    /// When a URL is not `https://host:port`.
    pub fn new(urls: &[String], tls: ClientConfig) -> Result<Self, AgentError> {
        let endpoints = urls
            .iter()
            .map(|url| authority(url).ok_or_else(|| AgentError::MasterUrl { url: url.clone() }))
            .collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(AgentError::MasterUrl { url: String::new() });
        }
        let connector = MasterConnector { tls: TlsConnector::from(Arc::new(tls)) };
        let http = HttpClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .http2_keep_alive_interval(Duration::from_secs(2))
            .http2_keep_alive_timeout(Duration::from_secs(3))
            .http2_keep_alive_while_idle(true)
            .build(connector);
        let shared = Shared {
            configured: endpoints.clone(),
            endpoints: RwLock::new(endpoints),
            current: AtomicUsize::new(0),
            http,
            master_failed: Notify::new(),
        };
        Ok(Masters { shared: Arc::new(shared) })
    }

    /// Creates a Kubernetes client over this service. Must be called inside a tokio runtime.
    #[must_use]
    pub fn kube_client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Keeps track of the leader, so that new requests go to it. Ends at once on shutdown, even if no master answers.
    pub async fn follow_leader(self, shutdown: CancellationToken) {
        let follow = async {
            loop {
                match self.find_leader().await {
                    Ok(Some(leader)) => self.prefer(leader),
                    Ok(None) => tracing::debug!("the masters have no leader at the moment"),
                    Err(error) => tracing::debug!(error = %error, "cannot ask the masters for the leader"),
                }
                tokio::select! {
                    () = tokio::time::sleep(LEADER_INTERVAL) => {}
                    () = self.shared.master_failed.notified() => tokio::time::sleep(Duration::from_millis(500)).await,
                }
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    async fn find_leader(&self) -> Result<Option<Authority>, BoxError> {
        let request = Request::get("/quorum").body(Bytes::new())?;
        let response = self.send(request).await?;
        let body = tokio::time::timeout(ATTEMPT_TIMEOUT, response.into_body().collect()).await??.to_bytes();
        let quorum: Quorum = serde_json::from_slice(&body)?;
        self.set_masters(quorum.members.iter().filter_map(|member| authority(&member.api)));
        let leader = quorum.leader.and_then(|name| quorum.members.into_iter().find(|member| member.name == name));
        Ok(leader.and_then(|member| authority(&member.api)))
    }

    /// Replaces the known masters by these and the configured ones.
    fn set_masters(&self, masters: impl Iterator<Item = Authority>) {
        let mut known: Vec<Authority> = Vec::new();
        for master in masters.chain(self.shared.configured.iter().cloned()) {
            if !known.contains(&master) {
                known.push(master);
            }
        }
        let mut endpoints = self.shared.endpoints.write();
        if *endpoints == known {
            return;
        }
        let current = endpoints.get(self.shared.current.load(Ordering::Relaxed));
        let current = current.and_then(|current| known.iter().position(|master| master == current)).unwrap_or(0);
        self.shared.current.store(current, Ordering::Relaxed);
        tracing::debug!(masters = known.len(), "the masters of the cluster have changed");
        *endpoints = known;
    }

    fn prefer(&self, leader: Authority) {
        let mut endpoints = self.shared.endpoints.write();
        let index = endpoints.iter().position(|endpoint| *endpoint == leader).unwrap_or_else(|| {
            endpoints.push(leader.clone());
            endpoints.len() - 1
        });
        if self.shared.current.swap(index, Ordering::Relaxed) != index {
            tracing::info!(leader = %leader, "following the leader");
        }
    }

    fn endpoint(&self, index: usize) -> Option<(usize, Authority, usize)> {
        let endpoints = self.shared.endpoints.read();
        let index = index.checked_rem(endpoints.len())?;
        Some((index, endpoints.get(index)?.clone(), endpoints.len()))
    }

    /// Sends a request to the preferred master, or to the next one that answers.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, MastersError> {
        let (parts, body) = request.into_parts();
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut index = self.shared.current.load(Ordering::Relaxed);
        let mut tried = 0;
        loop {
            let Some((at, authority, known)) = self.endpoint(index) else {
                return Err(MastersError::Unanswered("no master is known".into()));
            };
            let attempt = build_request(&parts, authority, body.clone()).map_err(MastersError::Malformed)?;
            let limit = ATTEMPT_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
            let error: BoxError = match tokio::time::timeout(limit, self.shared.http.request(attempt)).await {
                Ok(Ok(response)) if response.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    self.prefer_answering(index, at, tried);
                    return Ok(response);
                }
                Ok(Ok(response)) => MastersError::NotReady(response.status()).into(),
                Ok(Err(error)) => error.into(),
                Err(_) => MastersError::TimedOut.into(),
            };
            tried += 1;
            index = at + 1;
            self.shared.master_failed.notify_one();
            if tried % known == 0 {
                let pause = Duration::from_millis(100) * u32::try_from(tried / known).unwrap_or(1).min(5);
                if Instant::now() + pause >= deadline {
                    return Err(MastersError::Unanswered(error));
                }
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Prefers the master that answered after others had failed.
    fn prefer_answering(&self, index: usize, at: usize, tried: usize) {
        if tried > 0 && index != self.shared.current.load(Ordering::Relaxed) {
            self.shared.current.store(at, Ordering::Relaxed);
        }
    }
}

fn authority(url: &str) -> Option<Authority> {
    let uri: Uri = url.parse().ok()?;
    (uri.scheme() == Some(&Scheme::HTTPS)).then(|| uri.authority().cloned()).flatten()
}

fn build_request(
    parts: &http::request::Parts,
    authority: Authority,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, BoxError> {
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(path).build()?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers.clone();
    Ok(request)
}

impl Service<Request<kube::client::Body>> for Masters {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let masters = self.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            // The masters call the manager of the fields that the agent writes by the program's name.
            parts.headers.insert(USER_AGENT, HeaderValue::from_static(PROGRAM));
            let body = body.collect_bytes().await?;
            Ok(masters.send(Request::from_parts(parts, body)).await?)
        })
    }
}

/// Opens TLS connections and tells hyper whether HTTP/2 was agreed on.
#[derive(Clone)]
struct MasterConnector {
    tls: TlsConnector,
}

impl Service<Uri> for MasterConnector {
    type Response = MasterStream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        let connect = async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            let stream = tls.connect(ServerName::try_from(host)?, stream).await?;
            Ok(MasterStream(TokioIo::new(stream)))
        };
        Box::pin(async move { tokio::time::timeout(CONNECT_TIMEOUT, connect).await? })
    }
}

struct MasterStream(TokioIo<TlsStream<TcpStream>>);

impl Connection for MasterStream {
    fn connected(&self) -> Connected {
        let http2 = self.0.inner().get_ref().1.alpn_protocol() == Some(b"h2");
        if http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for MasterStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for MasterStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn following_the_leader_ends_on_shutdown_while_no_master_answers() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://{}", silent.local_addr().expect("a bound address"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.3")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let masters = Masters::new(&[url], tls).expect("a well-formed URL");
        let shutdown = CancellationToken::new();
        let shared = Arc::clone(&masters.shared);
        let mut following = std::pin::pin!(masters.follow_leader(shutdown.clone()));
        let connection = tokio::select! {
            () = &mut following => panic!("it ended before the shutdown"),
            accepted = silent.accept() => accepted.expect("the agent connects"),
        };
        shared.master_failed.notify_one();
        shutdown.cancel();
        assert!(following.now_or_never().is_some(), "the task still waits for the master");
        drop(connection);
    }
}
