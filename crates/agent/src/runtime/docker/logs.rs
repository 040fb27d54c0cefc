//! Reads containers' logs. The request is made without the Docker library, which buffers a terminal's log line by line
//! without a limit.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::log_stream::{Count, Demux, Tail, Times};
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
    let log = Log { engine, prefix, id, is_terminal };
    let (tail, pieces) = match tail_lines {
        None => (None, None),
        Some(0) => (None, Some(0)),
        Some(lines) => {
            let (tail, pieces) = log.find_tail(lines).await?;
            (Some(tail), pieces)
        }
    };
    let times = (timestamps || since.is_some() || tail.is_some()).then_some(Times { since, keep: timestamps });
    // The lines of a tail are counted before those that are too old are dropped.
    let second = since.filter(|_| tail.is_none()).map_or(0, |since| since.as_second().max(0));
    log.read(follow, second, pieces, times, tail).await.map(StreamExt::boxed)
}

/// The log of a container.
struct Log<'a> {
    engine: &'a Engine,
    prefix: &'a str,
    id: &'a str,
    is_terminal: bool,
}

impl Log<'_> {
    /// Finds where the last lines of the log begin. Returns the number of pieces to ask Docker for, all if `None`, and
    /// which of their lines are wanted.
    async fn find_tail(&self, lines: u64) -> Result<(Tail, Option<u64>), RuntimeError> {
        // The first piece of each of the two streams may continue a line.
        let mut pieces = lines.saturating_add(2);
        loop {
            let Count { pieces: found, lines: begun, unknown } = self.count(pieces).await?;
            if found < pieces {
                let skip = (begun + unknown).saturating_sub(lines);
                return Ok((Tail { skip, begins_anywhere: false }, None));
            }
            if begun >= lines {
                return Ok((Tail { skip: begun - lines, begins_anywhere: true }, Some(pieces)));
            }
            pieces = pieces.saturating_mul(4);
        }
    }

    /// Counts the last pieces of the log and their lines.
    async fn count(&self, pieces: u64) -> Result<Count, RuntimeError> {
        let times = Some(Times { since: None, keep: false });
        let none = Some(Tail { skip: u64::MAX, begins_anywhere: true });
        let mut rest = std::pin::pin!(self.read_counted(false, 0, Some(pieces), times, none).await?);
        let mut count = Count::default();
        while let Some((_, so_far)) = rest.try_next().await? {
            count = so_far;
        }
        Ok(count)
    }

    /// Streams the log from `second` on, and not more than its last `pieces` pieces.
    async fn read(
        &self,
        follow: bool,
        second: i64,
        pieces: Option<u64>,
        times: Option<Times>,
        tail: Option<Tail>,
    ) -> Result<impl Stream<Item = Result<Bytes, RuntimeError>> + Send + use<>, RuntimeError> {
        let chunks = self.read_counted(follow, second, pieces, times, tail).await?;
        let is_empty =
            |piece: &Result<(Bytes, Count), RuntimeError>| matches!(piece, Ok((bytes, _)) if bytes.is_empty());
        Ok(chunks.filter(move |piece| std::future::ready(!is_empty(piece))).map_ok(|(bytes, _)| bytes))
    }

    /// Streams the log with what has been read so far.
    async fn read_counted(
        &self,
        follow: bool,
        second: i64,
        pieces: Option<u64>,
        times: Option<Times>,
        tail: Option<Tail>,
    ) -> Result<impl Stream<Item = Result<(Bytes, Count), RuntimeError>> + Send + use<>, RuntimeError> {
        let Log { prefix, id, is_terminal, .. } = *self;
        let last = pieces.map_or_else(|| "all".to_owned(), |pieces| pieces.to_string());
        let path = format!(
            "{prefix}/containers/{id}/logs?stdout=true&stderr=true&follow={follow}&timestamps={}\
             &since={second}&tail={last}",
            times.is_some()
        );
        let (response, drive) = self.ask(&path).await?;
        let state = (response.into_body(), Demux::new(!is_terminal, times, tail), drive);
        Ok(stream::unfold(state, async |(mut body, mut demux, drive)| {
            loop {
                let chunk = match body.frame().await? {
                    Ok(frame) => frame.into_data(),
                    Err(error) => return Some((Err(broken(error)), (body, demux, drive))),
                };
                // Other frames hold trailers.
                if let Ok(chunk) = chunk {
                    let bytes = demux.feed(chunk);
                    return Some((Ok((bytes, demux.count())), (body, demux, drive)));
                }
            }
        }))
    }

    async fn ask(&self, path: &str) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), RuntimeError> {
        let asked = tokio::time::timeout(DEADLINE, self.engine.get(path)).await;
        let limit = |limit: Duration| RuntimeError::TimedOut { doing: DOING, seconds: limit.as_secs() };
        let (response, drive) = asked.map_err(|_| limit(DEADLINE))??;
        if !response.status().is_success() {
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), REFUSAL_LIMIT).collect();
            let body = tokio::time::timeout(DEADLINE, body).await.map_err(|_| limit(DEADLINE))?.map_err(broken)?;
            let refusal: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
            let message = refusal["message"].as_str().unwrap_or("no reason given").to_owned();
            return Err(failed(
                DOING,
                bollard::errors::Error::DockerResponseServerError { status_code: code, message },
            ));
        }
        Ok((response, drive))
    }
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
