//! Commands and attachments whose streams a client has. The connection to Docker is taken over without the Docker library,
//! which reads a terminal's output line by line.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use bollard::query_parameters::{InspectContainerOptions, ResizeContainerTTYOptionsBuilder};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::logs::Engine;
use super::{DEADLINE, exec, failed, within};
use crate::runtime::{OutputStream, Process, RuntimeError, Session, Source, Streams, TerminalSize};

/// Maximum size of an error response of Docker, in bytes.
const REFUSAL_LIMIT: usize = 64 * 1024;
/// Size of the buffer for a process's output, in bytes.
const OUTPUT_BYTES: usize = 16 * 1024;
/// A sequence of keys that nobody types, because Docker's own one detaches a client that types ctrl-p, ctrl-q.
const DETACH_KEYS: &str = "ctrl-@,ctrl-^,ctrl-@,ctrl-_,ctrl-@,ctrl-^";
const DETACH_KEYS_QUERY: &str = "ctrl-%40%2Cctrl-%5E%2Cctrl-%40%2Cctrl-_%2Cctrl-%40%2Cctrl-%5E";
/// Number of inspections of a command whose output has ended, and the delay between two of them.
const EXIT_INSPECTIONS: u32 = 100;
const EXIT_DELAY: Duration = Duration::from_millis(50);

/// The engine's connections and API.
pub(super) struct Sessions<'a> {
    pub docker: &'a Docker,
    pub engine: &'a Engine,
    pub version_prefix: &'a str,
}

impl Sessions<'_> {
    /// Starts a command in a running container.
    pub(super) async fn exec(
        &self,
        container: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, RuntimeError> {
        let options = CreateExecOptions {
            attach_stdin: Some(streams.stdin),
            attach_stdout: Some(streams.stdout),
            attach_stderr: Some(streams.stderr),
            tty: Some(streams.tty),
            detach_keys: Some(DETACH_KEYS.to_owned()),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let doing = "prepare a command in the container";
        let id = within(doing, self.docker.create_exec(container, options)).await?.id;
        let path = format!("{}/exec/{id}/start", self.version_prefix);
        let body = json!({ "Detach": false, "Tty": streams.tty }).to_string();
        let io = self.take_over("start a command in the container", &path, body.into()).await?;
        let process = Command { docker: self.docker.clone(), container: container.to_owned(), exec: id };
        Ok(session(io, streams.tty, Arc::new(process)))
    }

    /// Attaches to the main process of a running container.
    pub(super) async fn attach(&self, container: &str, streams: Streams) -> Result<Session, RuntimeError> {
        let inspect = self.docker.inspect_container(container, None::<InspectContainerOptions>);
        let config = within("inspect the container", inspect).await?.config;
        let tty = config.and_then(|config| config.tty).unwrap_or(false);
        let Streams { stdin, stdout, stderr, .. } = streams;
        let path = format!(
            "{}/containers/{container}/attach?stream=true&stdin={stdin}&stdout={stdout}&stderr={stderr}\
             &detachKeys={DETACH_KEYS_QUERY}",
            self.version_prefix
        );
        let io = self.take_over("attach to the container", &path, Bytes::new()).await?;
        Ok(session(io, tty, Arc::new(Main { docker: self.docker.clone(), container: container.to_owned() })))
    }

    /// Sends a request after which the connection belongs to the process's streams.
    async fn take_over(&self, doing: &'static str, path: &str, body: Bytes) -> Result<Upgraded, RuntimeError> {
        let taken = async {
            match self.engine {
                Engine::Unix(socket) => {
                    take_over(UnixStream::connect(socket).await.map_err(|e| broken(doing, &e))?, doing, path, body)
                        .await
                }
                Engine::Tcp(address) => {
                    take_over(TcpStream::connect(address).await.map_err(|e| broken(doing, &e))?, doing, path, body)
                        .await
                }
            }
        };
        let late = || RuntimeError::TimedOut { doing, seconds: DEADLINE.as_secs() };
        tokio::time::timeout(DEADLINE, taken).await.map_err(|_| late())?
    }
}

fn broken(doing: &'static str, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Docker { message: format!("cannot {doing}: {error}"), code: None }
}

async fn take_over<S>(stream: S, doing: &'static str, path: &str, body: Bytes) -> Result<Upgraded, RuntimeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| broken(doing, &e))?;
    // The task ends when the connection has left HTTP, or with this request.
    let _drive = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let request = Request::post(path)
        .header(HOST, "docker")
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .body(Full::new(body))
        .map_err(|e| broken(doing, &e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(doing, &e))?;
    let code = response.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        return hyper::upgrade::on(response).await.map_err(|e| broken(doing, &e));
    }
    let body = Limited::new(response.into_body(), REFUSAL_LIMIT).collect().await;
    let body = body.map_err(|e| broken(doing, &e))?.to_bytes();
    let refusal: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = refusal["message"].as_str().unwrap_or("no reason given").to_owned();
    let error = bollard::errors::Error::DockerResponseServerError { status_code: code.as_u16(), message };
    Err(failed(doing, error))
}

fn session(io: Upgraded, tty: bool, process: Arc<dyn Process>) -> Session {
    let (from_process, to_process) = tokio::io::split(TokioIo::new(io));
    Session { output: output(from_process, !tty), input: Box::new(to_process), process }
}

/// Reads the output. That of a terminal has no headers.
fn output(from: impl AsyncRead + Send + Unpin + 'static, framed: bool) -> OutputStream {
    let state = (from, Frames::new(framed), BytesMut::new());
    let pieces = stream::unfold(Some(state), async |state| {
        let (mut from, mut frames, mut buffer) = state?;
        loop {
            if let Some(piece) = frames.next(&mut buffer) {
                return Some((Ok(piece), Some((from, frames, buffer))));
            }
            buffer.reserve(OUTPUT_BYTES);
            match from.read_buf(&mut buffer).await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some((Err(error), None)),
            }
        }
    });
    pieces.boxed()
}

/// Splits Docker's output into the pieces of its two streams. A piece is passed on before it is complete.
struct Frames {
    framed: bool,
    source: Source,
    left: usize,
}

impl Frames {
    fn new(framed: bool) -> Self {
        Frames { framed, source: Source::Stdout, left: 0 }
    }

    fn next(&mut self, buffer: &mut BytesMut) -> Option<(Source, Bytes)> {
        if !self.framed {
            return (!buffer.is_empty()).then(|| (Source::Stdout, buffer.split().freeze()));
        }
        loop {
            if self.left > 0 {
                let piece = buffer.split_to(self.left.min(buffer.len())).freeze();
                self.left -= piece.len();
                return (!piece.is_empty()).then_some((self.source, piece));
            }
            let [stream, _, _, _, a, b, c, d] = buffer.first_chunk::<8>().copied()?;
            drop(buffer.split_to(8));
            self.source = if stream == 2 { Source::Stderr } else { Source::Stdout };
            self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        }
    }
}

/// A command in a container.
struct Command {
    docker: Docker,
    container: String,
    exec: String,
}

#[async_trait]
impl Process for Command {
    async fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        let options = ResizeExecOptions { width: size.width, height: size.height };
        within("resize the terminal", self.docker.resize_exec(&self.exec, options)).await
    }

    async fn exit_code(&self) -> Result<i64, RuntimeError> {
        let doing = "inspect the command";
        for _ in 0..EXIT_INSPECTIONS {
            let found = within(doing, self.docker.inspect_exec(&self.exec)).await?;
            if let (Some(code), Some(false)) = (found.exit_code, found.running) {
                return Ok(code);
            }
            // Docker closes the streams before it has recorded the exit.
            tokio::time::sleep(EXIT_DELAY).await;
        }
        Err(RuntimeError::Docker { message: "the command's streams were closed while it runs".to_owned(), code: None })
    }

    async fn abandon(&self) -> Result<(), RuntimeError> {
        exec::kill(&self.docker, &self.container, &self.exec)
            .await
            .map_err(|error| RuntimeError::Docker { message: error.to_string(), code: None })
    }
}

/// The main process of a container.
struct Main {
    docker: Docker,
    container: String,
}

#[async_trait]
impl Process for Main {
    async fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        let options = ResizeContainerTTYOptionsBuilder::default().w(size.width.into()).h(size.height.into()).build();
        within("resize the terminal", self.docker.resize_container_tty(&self.container, options)).await
    }

    async fn exit_code(&self) -> Result<i64, RuntimeError> {
        Ok(0)
    }

    async fn abandon(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_split_whatever_the_size_of_the_chunks() {
        let bytes = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01!";
        for size in [1, 2, 5, 9, bytes.len()] {
            let (mut frames, mut buffer) = (Frames::new(true), BytesMut::new());
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for chunk in bytes.chunks(size) {
                buffer.extend_from_slice(chunk);
                while let Some((source, piece)) = frames.next(&mut buffer) {
                    if source == Source::Stdout { &mut out } else { &mut err }.extend_from_slice(&piece);
                }
            }
            assert_eq!((&out[..], &err[..]), (&b"out!"[..], &b"err"[..]), "{size}");
        }
        let mut raw = BytesMut::from(&b"\x02\0\0\0\0\0\0\x03raw"[..]);
        let piece = Frames::new(false).next(&mut raw).expect("the bytes of a terminal");
        assert_eq!(piece.1.len(), 11, "a terminal's output has no headers");
    }
}
