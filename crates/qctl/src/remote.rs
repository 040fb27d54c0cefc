//! A process in a container, connected to the user's terminal or to a command's own pipes: exec, attach, and what is
//! built on them.

use std::convert::Infallible;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::channels::{self, Gone, Receiver, Sender, V4, V5};
use crate::error::{CliError, Result, ServerStatus};
use crate::path::RequestPath;
use crate::session::Session;
use crate::streams::Streams;
use crate::terminal::{self, RawMode, TerminalSize};
use crate::transport::Transport;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const REPORT: u8 = 3;
const RESIZE: u8 = 4;

/// Size of a piece of the input, in bytes.
const PIECE_BYTES: usize = 32 * 1024;
/// Number of pieces that wait for the server.
const WAITING: usize = 4;

/// Which streams of the process are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    pub stdin: bool,
    pub tty: bool,
}

impl Connected {
    /// Adds the streams to the path of an exec or attach. A terminal has one output.
    #[must_use]
    pub fn query(self, path: RequestPath) -> RequestPath {
        path.maybe_query("stdin", self.stdin.then_some(true))
            .query("stdout", true)
            .maybe_query("stderr", (!self.tty).then_some(true))
            .maybe_query("tty", self.tty.then_some(true))
    }
}

/// An output of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// The streams that go to the process.
#[derive(Default)]
pub struct Inputs {
    pub stdin: Option<mpsc::Receiver<Result<Bytes>>>,
    pub sizes: Option<Sizes>,
}

/// The sizes of the user's terminal: those to send first, and each later one.
pub struct Sizes {
    first: Vec<TerminalSize>,
    changes: Signal,
}

impl Sizes {
    async fn next(&mut self) -> Option<TerminalSize> {
        if !self.first.is_empty() {
            return Some(self.first.remove(0));
        }
        self.changes.recv().await?;
        terminal::size()
    }
}

/// How the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Code(i64),
    /// The node could not start it or lost it.
    Failed(String),
}

impl Ended {
    /// Reports a failure as kubectl does: `command terminated with exit code 5`, which is the code of `qctl` too.
    ///
    /// # Errors
    /// For every end but that with code 0.
    pub fn report(self, streams: &mut Streams) -> Result<()> {
        match self {
            Ended::Code(0) => Ok(()),
            Ended::Code(code) => {
                streams.note(format!("command terminated with exit code {code}"))?;
                Err(CliError::Exit(u8::try_from(code).unwrap_or(1)))
            }
            Ended::Failed(reason) => Err(CliError::usage(reason)),
        }
    }
}

/// Connects the process at this path until it ends, and calls `output` with each piece of its outputs.
///
/// # Errors
/// When the server refuses the request, the connection breaks before the process ends, the input cannot be read, or
/// `output` fails.
pub async fn run(
    transport: &Transport,
    path: RequestPath,
    inputs: Inputs,
    output: impl FnMut(Source, &[u8]) -> Result<()>,
) -> Result<Ended> {
    let (sender, receiver) = channels::open(transport, path, &[V5, V4]).await?;
    // The two directions run at the same time: a server that waits for its reader takes no input meanwhile.
    tokio::select! {
        ended = receive(receiver, output, transport) => ended,
        failed = send(sender, inputs) => match failed {
            Err(error) => Err(error),
            Ok(never) => match never {},
        },
    }
}

async fn receive(
    mut receiver: Receiver,
    mut output: impl FnMut(Source, &[u8]) -> Result<()>,
    transport: &Transport,
) -> Result<Ended> {
    let mut report = Vec::new();
    loop {
        match receiver.next().await {
            Ok(Some((STDOUT, bytes))) => output(Source::Stdout, &bytes)?,
            Ok(Some((STDERR, bytes))) => output(Source::Stderr, &bytes)?,
            Ok(Some((REPORT, bytes))) => report.extend_from_slice(&bytes),
            Ok(Some(_)) => {}
            // The report comes last, so an unclean end after it loses nothing.
            Err(error) if report.is_empty() => return Err(error),
            Ok(None) if report.is_empty() => {
                let reason = "the stream ended before the command did".to_owned();
                return Err(CliError::Lost { server: transport.server(), reason });
            }
            Ok(None) | Err(_) => return ended(&report),
        }
    }
}

/// Sends input, sizes and pings until the server takes no more, and then waits for the other direction to end.
async fn send(mut sender: Sender, inputs: Inputs) -> Result<Infallible> {
    let Inputs { mut stdin, mut sizes } = inputs;
    let mut pings = interval_at(Instant::now() + channels::PING_EVERY, channels::PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            piece = next(&mut stdin) => match piece {
                Some(Ok(bytes)) => sender.send(STDIN, &bytes).await,
                Some(Err(error)) => return Err(error),
                None => {
                    stdin = None;
                    sender.finish(STDIN).await
                }
            },
            size = next_size(&mut sizes) => match size {
                Some(size) => sender.send(RESIZE, &size_message(size)?).await,
                None => {
                    sizes = None;
                    Ok(())
                }
            },
            _ = pings.tick() => sender.ping().await,
        };
        if let Err(Gone) = sent {
            return std::future::pending().await;
        }
    }
}

fn size_message(size: TerminalSize) -> Result<Vec<u8>> {
    serde_json::to_vec(&size).map_err(|error| CliError::Answer(error.to_string()))
}

async fn next<T>(source: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match source {
        Some(source) => source.recv().await,
        None => std::future::pending().await,
    }
}

async fn next_size(sizes: &mut Option<Sizes>) -> Option<TerminalSize> {
    match sizes {
        Some(sizes) => sizes.next().await,
        None => std::future::pending().await,
    }
}

/// Reads the `Status` with which the server reports the end of the process.
fn ended(report: &[u8]) -> Result<Ended> {
    let malformed = |what: String| CliError::Answer(format!("the report of a command's end: {what}"));
    let report: ServerStatus = serde_json::from_slice(report).map_err(|error| malformed(error.to_string()))?;
    if report.status == "Success" {
        return Ok(Ended::Code(0));
    }
    if report.reason != "NonZeroExitCode" {
        return Ok(Ended::Failed(report.message));
    }
    let mut causes = report.details.iter().flat_map(|details| &details.causes);
    let code = causes.find(|cause| cause.reason == "ExitCode");
    let code = code.and_then(|cause| cause.message.parse().ok());
    code.map(Ended::Code).ok_or_else(|| malformed(format!("no exit code: {}", report.message)))
}

/// Reads from `input` in a thread, because a read of a terminal or pipe cannot be cancelled.
#[must_use]
pub fn pieces(mut input: Box<dyn Read + Send>) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let piece = match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => Err(CliError::io("reading standard input", source)),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The flags about the user's side.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct TerminalFlags {
    /// Pass standard input to the container
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal, which the remote command gets
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Print only the output of the remote command
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

impl TerminalFlags {
    /// Returns the streams to connect. A terminal needs one on the user's side.
    ///
    /// # Errors
    /// When standard error is closed.
    pub fn connected(self, streams: &mut Streams) -> Result<Connected> {
        let tty = self.stdin && self.tty;
        if tty && !streams.input_is_terminal && !self.quiet {
            streams.note("Unable to use a TTY - input is not a terminal or the right kind of file")?;
        }
        Ok(Connected { stdin: self.stdin, tty: tty && streams.input_is_terminal })
    }
}

/// Connects the process at this path to the user's own streams until it ends. `redraw` changes the size of the terminal
/// back and forth at first, so that a program that is running already draws its screen.
///
/// # Errors
/// Those of [`run`], and when the terminal cannot be used.
pub async fn interact(session: &mut Session, path: RequestPath, connected: Connected, redraw: bool) -> Result<Ended> {
    let failed = |source| CliError::io("using the terminal", source);
    session.streams.flush()?;
    let mut inputs = Inputs::default();
    if connected.stdin {
        inputs.stdin = Some(pieces(session.streams.take_input()));
    }
    let raw = if connected.tty {
        inputs.sizes = Some(sizes(redraw).map_err(failed)?);
        Some(RawMode::enter().map_err(failed)?)
    } else {
        None
    };
    let mut end = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let transport = session.transport.clone();
    let streams = &mut session.streams;
    let process = run(&transport, connected.query(path), inputs, |source, bytes| match source {
        Source::Stdout => streams.text(bytes).and_then(|()| streams.flush()),
        Source::Stderr => streams.error_text(bytes),
    });
    let ended = tokio::select! {
        ended = process => ended,
        // The terminal has to leave raw mode first.
        _ = end.recv() => Err(CliError::Exit(128 + 15)),
        _ = hang_up.recv() => Err(CliError::Exit(128 + 1)),
    };
    drop(raw);
    ended
}

fn sizes(redraw: bool) -> std::io::Result<Sizes> {
    let changes = signal(SignalKind::window_change())?;
    let mut first: Vec<TerminalSize> = terminal::size().into_iter().collect();
    if let (true, Some(size)) = (redraw, first.first().copied()) {
        first.insert(0, TerminalSize { width: size.width.saturating_add(1), height: size.height.saturating_add(1) });
    }
    Ok(Sizes { first, changes })
}

/// Time to wait for a pod, as a flag.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RunningTimeout {
    /// Maximum time to wait until the workload or service has a pod
    #[arg(long, default_value = "1m", value_parser = crate::duration::parse)]
    pub pod_running_timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_become_exit_codes_or_reasons() {
        let success = ended(br#"{"metadata":{},"status":"Success"}"#).expect("a report");
        assert_eq!(success, Ended::Code(0));
        let five = r#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code",
            "details":{"causes":[{"reason":"ExitCode","message":"5"}]}}"#;
        assert_eq!(ended(five.as_bytes()).expect("a report"), Ended::Code(5));
        let failed =
            r#"{"status":"Failure","reason":"InternalError","message":"Internal error occurred: no such file"}"#;
        let reason = "Internal error occurred: no such file".to_owned();
        assert_eq!(ended(failed.as_bytes()).expect("a report"), Ended::Failed(reason));
        let without = r#"{"status":"Failure","reason":"NonZeroExitCode"}"#;
        assert!(ended(without.as_bytes()).is_err() && ended(b"{").is_err());
    }
}
