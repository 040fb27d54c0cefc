//! Reads containers' logs. The request is made without the Docker library, which buffers a terminal's log line by line
//! without a limit.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::log_stream::{Demux, Times};
use super::{DEADLINE, failed};
use crate::runtime::{LogOptions, LogStream, RuntimeError};

/// Maximum size of an error response of Docker, in bytes.
const REFUSAL_LIMIT: usize = 64 * 1024;
const DOING: &str = "read the log";

/// The address of the engine.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    Unix(String),
    Tcp(String),
}

impl Engine {
    pub(super) fn new(endpoint: &str) -> Self {
        let schemes = ["tcp://", "http://"];
        if let Some(address) = schemes.iter().find_map(|scheme| endpoint.strip_prefix(scheme)) {
            return Engine::Tcp(address.trim_end_matches('/').to_owned());
        }
        Engine::Unix(endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_owned())
    }

    async fn get(&self, path: &str) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), RuntimeError> {
        match self {
            Engine::Unix(socket) => exchange(UnixStream::connect(socket).await.map_err(broken)?, path).await,
            Engine::Tcp(address) => exchange(TcpStream::connect(address).await.map_err(broken)?, path).await,
        }
    }
}

fn broken(error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Docker { message: format!("cannot {DOING}: {error}"), code: None }
}

/// Sends one request over its own connection, which lives as long as the returned handle.
async fn exchange<S>(stream: S, path: &str) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), RuntimeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let drive = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "the connection of a log request failed");
        }
    }));
    let request = Request::get(path).header(header::HOST, "docker").body(Empty::<Bytes>::new()).map_err(broken)?;
    Ok((sender.send_request(request).await.map_err(broken)?, drive))
}

/// Streams the log of a container in chunks as they arrive.
pub(super) async fn read(
    engine: &Engine,
    prefix: &str,
    id: &str,
    is_terminal: bool,
    options: LogOptions,
) -> Result<LogStream, RuntimeError> {
    let LogOptions { follow, tail_lines, since, timestamps } = options;
    let tail = tail_lines.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let times = (timestamps || since.is_some()).then_some(Times { since, keep: timestamps });
    let second = since.map_or(0, |since| since.as_second().max(0));
    let path = format!(
        "{prefix}/containers/{id}/logs?stdout=true&stderr=true&follow={follow}&timestamps={}\
         &since={second}&tail={tail}",
        times.is_some()
    );
    let asked = tokio::time::timeout(DEADLINE, engine.get(&path)).await;
    let limit = |limit: Duration| RuntimeError::TimedOut { doing: DOING, seconds: limit.as_secs() };
    let (response, drive) = asked.map_err(|_| limit(DEADLINE))??;
    if !response.status().is_success() {
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), REFUSAL_LIMIT).collect();
        let body = tokio::time::timeout(DEADLINE, body).await.map_err(|_| limit(DEADLINE))?.map_err(broken)?;
        let refusal: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        let message = refusal["message"].as_str().unwrap_or("no reason given").to_owned();
        return Err(failed(DOING, bollard::errors::Error::DockerResponseServerError { status_code: code, message }));
    }
    let state = (response.into_body(), Demux::new(!is_terminal, times), drive);
    let pieces = stream::unfold(state, async |(mut body, mut demux, drive)| {
        loop {
            let piece = match body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(chunk) => demux.feed(chunk),
                    // The frame holds trailers.
                    Err(_) => continue,
                },
                Err(error) => return Some((Err(broken(error)), (body, demux, drive))),
            };
            if !piece.is_empty() {
                return Some((Ok(piece), (body, demux, drive)));
            }
        }
    });
    Ok(pieces.boxed())
}

/// Returns the last bytes of a log. Buffers no more than these.
pub(super) async fn last_bytes(mut log: LogStream, limit: usize) -> Result<Vec<u8>, RuntimeError> {
    let mut last = Vec::new();
    while let Some(piece) = log.try_next().await? {
        last.extend_from_slice(&piece[piece.len().saturating_sub(limit)..]);
        let surplus = last.len().saturating_sub(limit);
        last.drain(..surplus);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_and_tcp_endpoints_are_distinguished() {
        assert!(matches!(Engine::new("unix:///run/d.sock"), Engine::Unix(path) if path == "/run/d.sock"));
        assert!(matches!(Engine::new("/run/d.sock"), Engine::Unix(path) if path == "/run/d.sock"));
        assert!(matches!(Engine::new("tcp://127.0.0.1:2375/"), Engine::Tcp(at) if at == "127.0.0.1:2375"));
        assert!(matches!(Engine::new("http://h:1"), Engine::Tcp(at) if at == "h:1"));
    }

    #[tokio::test]
    async fn only_the_end_of_a_log_is_kept() {
        let pieces = ["abc", "", "defgh", "i"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        assert_eq!(last_bytes(stream::iter(pieces).boxed(), 4).await.expect("a log"), b"fghi");
        assert_eq!(last_bytes(stream::empty().boxed(), 4).await.expect("a log"), b"");
    }
}
