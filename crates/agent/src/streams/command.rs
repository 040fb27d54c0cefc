//! Exec and attach: copies between a client's streams and a process, and reports how it ended.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::link::{Gone, Incoming, Link, Outgoing, Outlet};
use crate::runtime::{RuntimeError, Session, Source, Streams, TerminalSize};

/// Time for a client to open all of its streams.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// Maximum number of pieces that a client may send before it has opened all of its streams.
const MAX_EARLY_EVENTS: usize = 64;
/// Maximum size of a terminal's size, in bytes.
const MAX_SIZE_BYTES: usize = 1024;

/// The streams by their role. Those of a WebSocket have fixed numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    error: u32,
    resize: Option<u32>,
}

impl Roles {
    /// Returns the channels of a WebSocket.
    pub(super) fn channels(streams: Streams) -> Self {
        Roles {
            stdin: streams.stdin.then_some(0),
            stdout: streams.stdout.then_some(1),
            stderr: streams.stderr.then_some(2),
            error: 3,
            resize: streams.tty.then_some(4),
        }
    }

    /// Returns the channel whose first message tells the client that the connection is established.
    pub(super) fn greeting(self) -> u32 {
        self.stdout.or(self.stderr).unwrap_or(self.error)
    }
}

/// Accepts the streams that a SPDY client opens, until all of those that its options announce are there. Returns what the
/// client has sent meanwhile as well.
pub(super) async fn gather(link: &mut Link, streams: Streams, version: u8) -> Result<(Roles, Vec<Incoming>), String> {
    let mut expected = vec!["error"];
    expected.extend(streams.stdin.then_some("stdin"));
    expected.extend(streams.stdout.then_some("stdout"));
    expected.extend(streams.stderr.then_some("stderr"));
    expected.extend((streams.tty && version >= 3).then_some("resize"));
    let (mut opened, mut early) = (HashMap::new(), Vec::new());
    let collect = async {
        while opened.len() < expected.len() {
            match link.incoming.recv().await {
                None => return Err("the client closed the connection before it had opened its streams".to_owned()),
                Some(Incoming::Opened { stream, headers }) => {
                    let role = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("streamtype"));
                    let role = role.map_or("", |(_, role)| role.as_str());
                    let known = expected.iter().find(|name| **name == role && !opened.contains_key(*name));
                    let name = known.ok_or_else(|| format!("unexpected stream type: {role:?}"))?;
                    opened.insert(*name, stream);
                    let accepted = link.outgoing.send(Outgoing::Accept { stream }).await;
                    accepted.map_err(|Gone| "the client closed the connection".to_owned())?;
                }
                Some(_) if early.len() == MAX_EARLY_EVENTS => {
                    return Err("the client sent too much before it had opened its streams".to_owned());
                }
                Some(event) => early.push(event),
            }
        }
        Ok(())
    };
    timeout(OPEN_WITHIN, collect)
        .await
        .map_err(|_| "timed out waiting for the client to create streams".to_owned())??;
    let of = |name: &str| opened.get(name).copied();
    let error = of("error").ok_or("the client has no error stream")?;
    let roles = Roles { stdin: of("stdin"), stdout: of("stdout"), stderr: of("stderr"), error, resize: of("resize") };
    Ok((roles, early))
}

/// How a process ended, as the error stream reports it.
#[derive(Debug)]
pub(super) enum Outcome {
    Code(i64),
    Failed(String),
}

impl Outcome {
    /// Returns the report: a `Status` from version 4 on, otherwise a text that is empty for success.
    pub(super) fn report(&self, version: u8) -> Bytes {
        let (status, text) = match self {
            Outcome::Code(0) => (json!({ "metadata": {}, "status": "Success" }), String::new()),
            Outcome::Code(code) => {
                let message = format!("command terminated with non-zero exit code: exit status {code}");
                let causes = json!([{ "reason": "ExitCode", "message": code.to_string() }]);
                let status = json!({
                    "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                    "details": { "causes": causes },
                });
                (status, message)
            }
            Outcome::Failed(why) => {
                let message = format!("Internal error occurred: {why}");
                let status = json!({
                    "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
                    "details": { "causes": [{ "message": why }] }, "code": 500,
                });
                (status, message)
            }
        };
        if version >= 4 { status.to_string().into() } else { text.into() }
    }
}

/// Connects a client to the process that `start` starts, until the process or the client ends. The process of a client
/// that has gone is killed, unless it is the container's own.
pub(super) async fn run<S>(link: Link, roles: Roles, early: Vec<Incoming>, version: u8, start: S)
where
    S: Future<Output = Result<Session, RuntimeError>>,
{
    let Link { incoming, outgoing } = link;
    let (stdin, input) = mpsc::channel(1);
    let (resizes, sizes) = mpsc::channel(1);
    let mut listening = std::pin::pin!(dispatch(incoming, early, roles, stdin, resizes));
    let started = tokio::select! {
        started = start => started,
        // Docker ends a process that has lost its starter's connection only when it next uses it.
        () = &mut listening => return tracing::debug!("a client went away before its command had started"),
    };
    let outcome = match started {
        Err(error) => Outcome::Failed(error.to_string()),
        Ok(session) => {
            let process = session.process.clone();
            let ended = tokio::select! {
                ended = pump(session, roles, &outgoing, input, sizes) => ended,
                () = listening => Err(Gone),
                () = outgoing.closed() => Err(Gone),
            };
            match ended {
                Ok(outcome) => outcome,
                Err(Gone) => {
                    if let Err(error) = process.abandon().await {
                        tracing::warn!(%error, "cannot end a command whose client has gone");
                    }
                    return;
                }
            }
        }
    };
    if let Err(Gone) = finish(&outgoing, roles, outcome.report(version)).await {
        tracing::debug!("a client went away before it knew how its command ended");
    }
}

/// Sends the report, and ends the streams.
pub(super) async fn finish(outgoing: &Outlet, roles: Roles, report: Bytes) -> Result<(), Gone> {
    outgoing.data(roles.error, report).await?;
    for stream in [roles.stdout, roles.stderr, Some(roles.error)].into_iter().flatten() {
        outgoing.finish(stream).await?;
    }
    Ok(())
}

/// Passes on what the client sends, until it has gone.
async fn dispatch(
    mut incoming: mpsc::Receiver<Incoming>,
    early: Vec<Incoming>,
    roles: Roles,
    stdin: mpsc::Sender<Bytes>,
    sizes: mpsc::Sender<TerminalSize>,
) {
    let (mut stdin, mut size) = (Some(stdin), BytesMut::new());
    let mut early = early.into_iter();
    loop {
        let event = match early.next() {
            Some(event) => event,
            None => match incoming.recv().await {
                Some(event) => event,
                None => return,
            },
        };
        match event {
            Incoming::Data { stream, bytes } if Some(stream) == roles.stdin => {
                if let Some(open) = &stdin
                    && open.send(bytes).await.is_err()
                {
                    // The process does not read any more; the rest of its input is dropped.
                    stdin = None;
                }
            }
            Incoming::Finished { stream } | Incoming::Reset { stream } if Some(stream) == roles.stdin => stdin = None,
            Incoming::Data { stream, bytes } if Some(stream) == roles.resize => {
                size.extend_from_slice(&bytes);
                if let Some(size) = read_size(&mut size) {
                    // The process may have ended.
                    sizes.send(size).await.ok();
                }
            }
            _ => {}
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Takes the terminal sizes out of a buffer, and returns the last one.
fn read_size(buffer: &mut BytesMut) -> Option<TerminalSize> {
    let mut sizes = serde_json::Deserializer::from_slice(buffer).into_iter::<Size>();
    let (mut last, mut is_broken) = (None, false);
    for size in &mut sizes {
        match size {
            Ok(size) => last = Some(TerminalSize { width: size.width, height: size.height }),
            Err(error) => {
                is_broken = !error.is_eof();
                // Another call would count the beginning of an incomplete size as read.
                break;
            }
        }
    }
    let read = sizes.byte_offset().min(buffer.len());
    if is_broken || buffer.len() - read > MAX_SIZE_BYTES {
        buffer.clear();
    } else {
        drop(buffer.split_to(read));
    }
    last
}

/// Copies until the process has ended, and returns how.
async fn pump(
    session: Session,
    roles: Roles,
    outgoing: &Outlet,
    input: mpsc::Receiver<Bytes>,
    mut sizes: mpsc::Receiver<TerminalSize>,
) -> Result<Outcome, Gone> {
    let Session { mut output, input: to_process, process } = session;
    let outputs = async {
        while let Some(piece) = output.next().await {
            let (source, bytes) = match piece {
                Ok(piece) => piece,
                Err(error) => return Ok(Some(Outcome::Failed(error.to_string()))),
            };
            let stream = match source {
                Source::Stdout => roles.stdout,
                Source::Stderr => roles.stderr,
            };
            if let Some(stream) = stream {
                outgoing.data(stream, bytes).await?;
            }
        }
        Ok(None)
    };
    let inputs = feed(to_process, input);
    let resizes = async {
        while let Some(size) = sizes.recv().await {
            if let Err(error) = process.resize(size).await {
                tracing::debug!(%error, "cannot resize a terminal");
            }
        }
    };
    let others = async {
        tokio::join!(inputs, resizes);
        // The process decides when it ends.
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = outputs => ended?,
        () = others => None,
    };
    Ok(match ended {
        Some(failure) => failure,
        None => match process.exit_code().await {
            Ok(code) => Outcome::Code(code),
            Err(error) => Outcome::Failed(error.to_string()),
        },
    })
}

/// Writes the client's input, and ends the process's input with it.
async fn feed(mut process: impl AsyncWrite + Unpin, mut input: mpsc::Receiver<Bytes>) {
    let written: std::io::Result<()> = async {
        while let Some(bytes) = input.recv().await {
            process.write_all(&bytes).await?;
            process.flush().await?;
        }
        process.shutdown().await
    }
    .await;
    if let Err(error) = written {
        // A process may end, or close its input, before it has read everything.
        tracing::debug!(%error, "a command did not take all of its input");
    }
}

#[cfg(test)]
mod tests;
