//! Sends requests to the master that answered last, or to the next one if that master does not accept the connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::error::{CliError, Result, ServerStatus};
use crate::path::RequestPath;

const JSON: &str = "application/json";
/// Maximum number of attempts at a request while the server answers that it should be sent again later (429, 503).
const ATTEMPTS: u32 = 10;
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: RequestPath,
    pub accept: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
    /// Whether the caller handles `429` itself, as for evictions. Otherwise the request is sent again after a delay.
    pub own_backoff: bool,
    /// Headers of the request besides those of its body.
    pub headers: HeaderMap,
}

impl Call {
    #[must_use]
    pub fn get(path: RequestPath) -> Self {
        Call::new(Method::GET, path)
    }

    #[must_use]
    pub fn new(method: Method, path: RequestPath) -> Self {
        let headers = HeaderMap::new();
        Call { method, path, accept: JSON, content_type: JSON, body: Bytes::new(), own_backoff: false, headers }
    }

    #[must_use]
    pub fn accept(mut self, media_type: &'static str) -> Self {
        self.accept = media_type;
        self
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn body(mut self, object: &Value) -> Self {
        self.body = Bytes::from(object.to_string());
        self
    }

    #[must_use]
    pub fn content_type(mut self, media_type: &'static str) -> Self {
        self.content_type = media_type;
        self
    }

    /// Sets the headers of an upgrade, after which the connection carries another protocol than HTTP.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    fn request(&self) -> Result<Request<Body>> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.path.to_string())
            .header(header::ACCEPT, self.accept)
            .header(header::USER_AGENT, concat!("qctl/", env!("CARGO_PKG_VERSION")));
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, self.content_type);
            tracing::trace!(body = %String::from_utf8_lossy(&self.body), "request body");
        }
        let mut request = request
            .body(Body::from(self.body.clone()))
            .map_err(|error| CliError::usage(format!("{}: {error}", self.path)))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    /// Whether another master may get the request after the connection broke. An upgrade may have started a command.
    fn is_repeatable(&self) -> bool {
        self.method == Method::GET && !self.headers.contains_key(header::UPGRADE)
    }
}

struct Master {
    config: kube::Config,
    client: OnceCell<kube::Client>,
}

impl Master {
    fn url(&self) -> String {
        self.config.cluster_url.to_string().trim_end_matches('/').to_owned()
    }

    fn host(&self) -> String {
        self.config.cluster_url.authority().map_or_else(|| self.url(), ToString::to_string)
    }
}

/// The masters of one cluster.
pub struct Transport {
    masters: Vec<Master>,
    current: AtomicUsize,
    timeout: Option<Duration>,
}

enum Failure {
    /// The connection failed, so the request was not sent.
    Connect { reason: String, refused: bool },
    /// The request was sent, or may have been sent.
    Sent(String),
}

impl Transport {
    /// Creates the transport of these masters. `timeout` bounds each request except watches and followed logs. `None`
    /// means no limit.
    #[must_use]
    pub fn new(configs: Vec<kube::Config>, timeout: Option<Duration>) -> Self {
        let masters = configs.into_iter().map(|config| Master { config, client: OnceCell::new() }).collect();
        Transport { masters, current: AtomicUsize::new(0), timeout }
    }

    /// Returns the URL of the master that gets the next request.
    #[must_use]
    pub fn server(&self) -> String {
        self.masters.get(self.current.load(Ordering::Relaxed)).map(Master::url).unwrap_or_default()
    }

    /// Returns the URL of the first master. It is the key of cached discovery, which is the same for all masters.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.masters.first().map(Master::url).unwrap_or_default()
    }

    /// Sends a request and returns the body of the response.
    ///
    /// # Errors
    /// When no master can be reached, the server refuses the request, or the response does not arrive in time.
    pub async fn bytes(&self, call: &Call) -> Result<Bytes> {
        let answer = async {
            let response = self.respond(call).await?;
            let body = response.into_body().collect().await.map_err(|error| self.broken(&error))?;
            Ok(body.to_bytes())
        };
        match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_| CliError::RequestTimeout { server: self.server() })?,
            None => answer.await,
        }
    }

    /// Sends a request and returns the response as JSON.
    ///
    /// # Errors
    /// Those of [`Transport::bytes`], and when the response is not JSON.
    pub async fn json(&self, call: &Call) -> Result<Value> {
        let bytes = self.bytes(call).await?;
        tracing::trace!(body = %String::from_utf8_lossy(&bytes), "response body");
        serde_json::from_slice(&bytes)
            .map_err(|error| CliError::Answer(format!("{} {}: {error}", call.method, call.path)))
    }

    /// Sends a request and returns the response, of which only the head has a deadline.
    ///
    /// # Errors
    /// Those of [`Transport::bytes`].
    pub async fn open(&self, call: &Call) -> Result<Response<Body>> {
        match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, self.respond(call))
                .await
                .map_err(|_| CliError::RequestTimeout { server: self.server() })?,
            None => self.respond(call).await,
        }
    }

    /// Sends a request and streams the body of the response, for logs and watches.
    ///
    /// # Errors
    /// Those of [`Transport::bytes`].
    pub async fn stream(&self, call: &Call) -> Result<ByteStream> {
        let response = self.open(call).await?;
        let server = self.server();
        let chunks = response.into_body().into_data_stream().map(move |chunk| {
            chunk.map_err(|error| CliError::Broken { server: server.clone(), reason: root_cause(&error) })
        });
        Ok(ByteStream { chunks: chunks.boxed(), pending: BytesMut::new() })
    }

    pub fn broken(&self, error: &(dyn std::error::Error + 'static)) -> CliError {
        CliError::Broken { server: self.server(), reason: root_cause(error) }
    }

    async fn respond(&self, call: &Call) -> Result<Response<Body>> {
        let mut attempt = 1;
        loop {
            let response = self.reach(|| call.request(), call.is_repeatable()).await?;
            if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(response);
            }
            let code = response.status();
            let after = retry_after(&response);
            let body = response.into_body().collect().await.map_err(|error| self.broken(&error))?.to_bytes();
            let status = refusal(code, &body);
            let after = after.or_else(|| {
                status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0)
            });
            let transient =
                code == StatusCode::SERVICE_UNAVAILABLE || (code == StatusCode::TOO_MANY_REQUESTS && !call.own_backoff);
            match after.filter(|_| transient && attempt < ATTEMPTS) {
                Some(seconds) => {
                    tracing::debug!(%code, seconds, message = %status.message, "the server asks to send the request again later");
                    if code == StatusCode::SERVICE_UNAVAILABLE {
                        self.turn_from(self.current.load(Ordering::Relaxed));
                    }
                    tokio::time::sleep(Duration::from_secs(seconds).min(LONGEST_RETRY_PAUSE)).await;
                    attempt += 1;
                }
                None => return Err(CliError::Server(Box::new(status))),
            }
        }
    }

    /// Passes another client's request on, to the first master that accepts it, and returns the response as it is.
    ///
    /// # Errors
    /// When no master can be reached.
    pub async fn pass(&self, parts: &http::request::Parts, body: &Bytes) -> Result<Response<Body>> {
        let make = || {
            let mut request = Request::new(Body::from(body.clone()));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
            Ok(request)
        };
        let is_repeatable = parts.method.is_safe() && !parts.headers.contains_key(header::UPGRADE);
        self.reach(make, is_repeatable).await
    }

    fn turn_from(&self, index: usize) {
        self.current.store((index + 1) % self.masters.len().max(1), Ordering::Relaxed);
    }

    /// Tries each master once, starting with the one that answered last. A request that is not repeatable may have
    /// reached the master to which the connection broke.
    async fn reach(&self, make: impl Fn() -> Result<Request<Body>>, is_repeatable: bool) -> Result<Response<Body>> {
        let start = self.current.load(Ordering::Relaxed);
        let count = self.masters.len();
        let mut last = None;
        for step in 0..count {
            let index = (start + step) % count;
            let master = &self.masters[index];
            match send(master, make()?).await {
                Ok(response) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(Failure::Sent(reason)) if !is_repeatable => {
                    return Err(CliError::Broken { server: master.host(), reason });
                }
                Err(Failure::Sent(reason)) => last = Some((master, reason, false)),
                Err(Failure::Connect { reason, refused }) => last = Some((master, reason, refused)),
            }
            self.turn_from(index);
        }
        let Some((master, reason, refused)) = last else {
            return Err(CliError::usage("the kubeconfig names no server"));
        };
        Err(CliError::Connect { server: master.host(), reason, refused, tried: count })
    }
}

async fn send(master: &Master, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let client = master
        .client
        .get_or_try_init(|| async { kube::Client::try_from(master.config.clone()) })
        .await
        .map_err(|error| Failure::Connect { reason: root_cause(&error), refused: false })?;
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let began = Instant::now();
    match client.send(request).await {
        Ok(response) => {
            let elapsed = began.elapsed();
            tracing::debug!("{method} {}{uri} {} in {elapsed:?}", master.url(), response.status());
            Ok(response)
        }
        Err(error) => {
            tracing::debug!("{method} {}{uri} failed: {error}", master.url());
            Err(classify(&error))
        }
    }
}

fn classify(error: &kube::Error) -> Failure {
    let connect = match error {
        kube::Error::Service(inner) => {
            inner.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect())
        }
        _ => false,
    };
    let reason = root_cause(error);
    if !connect {
        return Failure::Sent(reason);
    }
    let refused = chain(error).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    Failure::Connect { reason, refused }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Returns the innermost source of an error, which is the most useful one for the user.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn retry_after(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

fn refusal(code: StatusCode, body: &[u8]) -> ServerStatus {
    match serde_json::from_slice::<ServerStatus>(body) {
        Ok(mut status) if !status.message.is_empty() || !status.reason.is_empty() => {
            if status.code == 0 {
                status.code = code.as_u16();
            }
            status
        }
        _ => ServerStatus {
            code: code.as_u16(),
            message: match String::from_utf8_lossy(body).trim() {
                "" => format!("the server answered {code}"),
                text => text.to_owned(),
            },
            ..ServerStatus::default()
        },
    }
}

/// The body of a response as a stream.
pub struct ByteStream {
    chunks: BoxStream<'static, Result<Bytes>>,
    pending: BytesMut,
}

impl ByteStream {
    /// Returns the next chunk, of any length, or `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if !self.pending.is_empty() {
            return Ok(Some(self.pending.split().freeze()));
        }
        self.chunks.next().await.transpose()
    }

    /// Returns the next line with its newline, which the last line may lack, or `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn line(&mut self) -> Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.pending.split_to(searched + at + 1).freeze()));
            }
            searched = self.pending.len();
            match self.chunks.next().await.transpose()? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None if self.pending.is_empty() => return Ok(None),
                None => return Ok(Some(self.pending.split().freeze())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_joined_from_chunks() {
        let pieces = ["one\ntw", "o\n", "thr", "ee"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        let mut stream = ByteStream { chunks: futures::stream::iter(pieces).boxed(), pending: BytesMut::new() };
        let mut lines = Vec::new();
        while let Some(line) = stream.line().await.expect("no error") {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        assert_eq!(lines, ["one\n", "two\n", "three"]);
    }

    #[test]
    fn a_refusal_without_a_status_is_reported_by_its_text() {
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"no upstream\n").message, "no upstream");
        assert_eq!(refusal(StatusCode::NOT_FOUND, b"").message, "the server answered 404 Not Found");
    }
}
