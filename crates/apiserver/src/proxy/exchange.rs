//! One request to a backend and its response, over a connection of its own. Both bodies are passed on piece by piece: a
//! side that does not read stops the other one.

use std::fmt::Display;
use std::io::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use quorate_api::{Reason, Status};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::locate::{self, Destination, PodPort};
use crate::api::Api;
use crate::error;
use crate::nodes::{NodeAddress, UpgradeResponse, escape};
use crate::tunnel::idle;

const PURPOSE: &str = "a proxied request";
/// The protocol that the node API switches to: the bytes of a connection to the pod.
const PROTOCOL: &str = "tcp";
/// Memory of each direction, in bytes. The headers of a response have to fit in it.
const BUFFER_BYTES: usize = 64 * 1024;
/// Time for a backend to begin its response, counted from the last piece of the request that it has taken.
const FIRST_BYTE_WITHIN: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(300) };

/// A connection to a backend. Dropping it closes the connection.
pub(super) struct Exchange {
    sender: http1::SendRequest<Pieces<HttpBody>>,
    open: Open,
}

/// The parts of an exchange that last as long as its response.
struct Open {
    /// The task that drives the connection.
    _drive: AbortOnDropHandle<()>,
    moved: mpsc::Sender<()>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Returns the status of a backend that cannot be reached.
pub(super) fn unreachable(why: &dyn Display) -> Status {
    locate::unreachable(&why.to_string())
}

impl Exchange {
    /// Connects to a backend.
    ///
    /// # Errors
    /// `ServiceUnavailable` when it cannot be reached, `TooManyRequests` when this server or the node has no place for
    /// another exchange.
    pub async fn open(api: &Api, destination: &Destination) -> Result<Self, Status> {
        let client = api.node_client().ok_or_else(|| Status::unavailable("this server has no access to nodes"))?;
        let permit = client.admit_proxied().ok_or_else(error::too_many_requests)?;
        match destination {
            Destination::Node(node) => {
                let tls = node.connect(api, PURPOSE).await.map_err(|status| unreachable(&status.message))?;
                Exchange::over(TokioIo::new(tls), Some(permit)).await
            }
            Destination::Pod(pod) => Exchange::over(dial(api, pod).await?, Some(permit)).await,
        }
    }

    async fn over<T>(io: T, permit: Option<OwnedSemaphorePermit>) -> Result<Self, Status>
    where
        T: Read + Write + Send + Unpin + 'static,
    {
        let builder = http1::Builder::new().max_buf_size(BUFFER_BYTES).clone();
        let (sender, connection) = builder.handshake(io).await.map_err(|error| unreachable(&error))?;
        let (moved, progress) = mpsc::channel(1);
        let drive = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                ended = connection.with_upgrades() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to a backend ended");
                    }
                }
                () = idle(progress) => tracing::debug!("an idle connection to a backend was closed"),
            }
        }));
        Ok(Exchange { sender, open: Open { _drive: drive, moved, permit } })
    }

    /// Sends a request, and returns the response as soon as its headers have arrived.
    ///
    /// # Errors
    /// `ServiceUnavailable` when the connection fails, `Timeout` when the backend does not answer in time.
    pub async fn send(
        &mut self,
        method: Method,
        uri: &str,
        headers: HeaderMap,
        body: HttpBody,
    ) -> Result<Response<Incoming>, Status> {
        let taken = Arc::new(AtomicU64::new(0));
        let pieces = Pieces { body, moved: self.open.moved.clone(), taken: Arc::clone(&taken) };
        let mut request = Request::builder().method(method).uri(uri).body(pieces).map_err(Status::internal)?;
        *request.headers_mut() = headers;
        let mut answer = std::pin::pin!(self.sender.send_request(request));
        loop {
            let before = taken.load(Ordering::Relaxed);
            match timeout(FIRST_BYTE_WITHIN, &mut answer).await {
                Ok(answer) => return answer.map_err(|error| unreachable(&error)),
                Err(_) if taken.load(Ordering::Relaxed) != before => {}
                Err(_) => {
                    let seconds = FIRST_BYTE_WITHIN.as_secs();
                    let message = format!("error trying to reach service: no response within {seconds} s");
                    return Err(Status::new(Reason::Timeout, message));
                }
            }
        }
    }

    /// Turns the exchange into the body of its response, which ends with an error when this server stops.
    pub fn into_body(self, body: Incoming, shutdown: CancellationToken) -> ResponseBody {
        let frames = stream::unfold((body, self.open, shutdown), |(mut body, open, shutdown)| async move {
            let frame = tokio::select! {
                frame = body.frame() => frame?.map_err(Error::other),
                () = shutdown.cancelled() => Err(Error::other("this server stops")),
            };
            report(&open.moved);
            Some((frame, (body, open, shutdown)))
        });
        StreamBody::new(frames.boxed())
    }

    /// Returns the permit of an exchange whose connection has left HTTP.
    pub fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        self.open.permit
    }
}

/// The body of a response that is passed on.
pub(super) type ResponseBody = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Error>>>;

/// Reports that a piece has moved. In a full channel, a report is already waiting.
fn report(moved: &mpsc::Sender<()>) {
    if let Err(mpsc::error::TrySendError::Closed(())) = moved.try_send(()) {
        tracing::trace!("the connection of a piece has ended");
    }
}

/// Asks the agent of the pod's node for a connection to the pod's port.
async fn dial(api: &Api, pod: &PodPort) -> Result<hyper::upgrade::Upgraded, Status> {
    let PodPort { node, namespace, pod, address, is_tls } = pod;
    let tls = if *is_tls { "?tls=true" } else { "" };
    let path = format!("/dial/{}/{}/{}{tls}", escape(namespace), escape(pod), address.port());
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    let answer = node.upgrade(api, PURPOSE, Method::GET, &path, headers).await;
    match answer.map_err(|status| unreachable(&status.message))? {
        UpgradeResponse::Switched { connection, .. } => Ok(connection),
        UpgradeResponse::Refused { code: 429, .. } => Err(error::too_many_requests()),
        UpgradeResponse::Refused { code, text, .. } => Err(refused(node, code, &text)),
    }
}

fn refused(node: &NodeAddress, code: u16, text: &[u8]) -> Status {
    match String::from_utf8_lossy(text).trim() {
        "" => unreachable(&format!("node {} answered with code {code}", node.node)),
        why => unreachable(&why),
    }
}

/// The body of a request, which counts the pieces that the backend takes.
struct Pieces<B> {
    body: B,
    moved: mpsc::Sender<()>,
    taken: Arc<AtomicU64>,
}

impl<B: Body + Unpin> Body for Pieces<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.taken.fetch_add(1, Ordering::Relaxed);
        report(&self.moved);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn exchange() -> (Exchange, DuplexStream) {
        let (ours, backend) = duplex(256);
        (Exchange::over(TokioIo::new(ours), None).await.expect("a connection"), backend)
    }

    /// Reads the head of a request.
    async fn head(backend: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(backend.read_u8().await.expect("a request"));
        }
        String::from_utf8(head).expect("text")
    }

    #[tokio::test]
    async fn a_backend_that_does_not_answer_is_given_up() {
        let (mut exchange, mut backend) = exchange().await;
        let sent = exchange.send(Method::GET, "/a?b", HeaderMap::new(), HttpBody::empty());
        let (late, head) = tokio::join!(sent, head(&mut backend));
        assert_eq!(head, "GET /a?b HTTP/1.1\r\n\r\n");
        let late = late.expect_err("no response");
        assert_eq!((late.code, late.reason), (504, Reason::Timeout), "{}", late.message);
        drop(exchange);
        assert_eq!(backend.read(&mut [0]).await.expect("an end"), 0, "the connection is closed");
    }

    #[tokio::test]
    async fn the_time_to_the_first_byte_counts_from_the_end_of_the_request() {
        let (mut exchange, mut backend) = exchange().await;
        let slow = stream::unfold(0, |sent| async move {
            tokio::time::sleep(FIRST_BYTE_WITHIN / 4).await;
            (sent < 6).then_some((Ok::<_, Infallible>(Bytes::from_static(b"x")), sent + 1))
        });
        let sent = exchange.send(Method::POST, "/", HeaderMap::new(), HttpBody::from_stream(slow));
        let backend = async {
            head(&mut backend).await;
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(backend.read_u8().await.expect("a body"));
            }
            backend.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("a response");
        };
        let (answer, ()) = tokio::join!(sent, backend);
        assert_eq!(answer.expect("a response").status(), 204);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_stops_the_backend_in_bounded_memory() {
        let (mut exchange, mut backend) = exchange().await;
        let sent = exchange.send(Method::GET, "/", HeaderMap::new(), HttpBody::empty());
        let answering = async {
            head(&mut backend).await;
            backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await.expect("a head");
        };
        let (answer, ()) = tokio::join!(sent, answering);
        let shutdown = CancellationToken::new();
        let mut body = exchange.into_body(answer.expect("a response").into_body(), shutdown.clone());
        let mut written = 0;
        while let Ok(piece) = timeout(Duration::from_millis(300), backend.write(&[0; 1024])).await {
            written += piece.expect("the connection is open");
        }
        assert!(written <= 4 * BUFFER_BYTES, "{written} bytes were taken");
        shutdown.cancel();
        let mut ended = None;
        while let Some(frame) = body.frame().await {
            ended = frame.err();
            if ended.is_some() {
                break;
            }
        }
        assert!(ended.is_some(), "a response that is cut off does not look whole");
        drop(body);
        assert!(backend.write_all(&[0; 1024]).await.is_err(), "the connection is closed");
    }

    #[tokio::test]
    async fn a_backend_that_breaks_off_is_reported() {
        let (mut exchange, backend) = exchange().await;
        drop(backend);
        let refused = exchange.send(Method::GET, "/", HeaderMap::new(), HttpBody::empty()).await;
        let refused = refused.expect_err("no response");
        assert!(refused.message.starts_with("error trying to reach service: "), "{}", refused.message);
        assert_eq!(refused.code, 503);
    }
}
