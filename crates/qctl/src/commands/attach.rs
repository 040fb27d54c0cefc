//! `attach`: connects to the process that a container runs.

use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::pods::{self, Found};
use crate::remote::{RunningTimeout, TerminalFlags, interact};
use crate::session::Session;

/// Attach to the process of a running container
#[derive(Debug, clap::Args)]
pub struct Attach {
    /// POD, TYPE/NAME or TYPE NAME
    #[arg(value_name = "POD|TYPE/NAME")]
    arguments: Vec<String>,
    /// The container
    #[arg(short = 'c', long)]
    container: Option<String>,
    #[command(flatten)]
    terminal: TerminalFlags,
    #[command(flatten)]
    timeout: RunningTimeout,
}

impl Attach {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        match self.arguments.len() {
            0 => return Err(CliError::usage("at least 1 argument is required for attach")),
            1 | 2 => {}
            count => {
                return Err(CliError::usage(format!(
                    "expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments) saw {count}: {}",
                    self.arguments.join(" ")
                )));
            }
        }
        let patience = self.timeout.pod_running_timeout;
        let found = pods::find(session, &self.arguments, &FileFlags::default(), patience).await?;
        found.must_not_be_completed("attach")?;
        let container = pods::choose_container(session, &found.pod, self.container.as_deref(), self.terminal.quiet)
            .map_err(|error| CliError::usage(format!("cannot attach to the container: {error}")))?;
        attach(session, &found, &container, self.terminal).await
    }
}

/// Attaches to a container until its process ends.
///
/// # Errors
/// Those of [`interact`], and when the process fails.
async fn attach(session: &mut Session, found: &Found, container: &str, mut terminal: TerminalFlags) -> Result<()> {
    let (spec, list) = pods::container(&found.pod, container)
        .ok_or_else(|| CliError::usage(format!("container {container} is not valid for pod {}", found.name())))?;
    let has_tty = spec["tty"].as_bool().unwrap_or(false);
    let is_ephemeral = list == "ephemeralContainers";
    if terminal.tty && !has_tty && !terminal.quiet {
        session.streams.note(format!("error: Unable to use a TTY - container {container} did not allocate one"))?;
    }
    // A container with a terminal has no other form of output.
    terminal.tty = has_tty;
    let connected = terminal.connected(&mut session.streams)?;
    if !terminal.quiet {
        session.streams.note(
            "All commands and output from this session will be recorded in container logs, including credentials and sensitive information passed through the command prompt.\nIf you don't see a command prompt, try pressing enter.",
        )?;
    }
    let path = found.path("attach").query("container", container);
    let ended = interact(session, path, connected, true).await?;
    if connected.tty && !terminal.quiet {
        let (pod, namespace) = (found.name(), found.namespace());
        let again = format!("'qctl attach {pod} -c {container} -n {namespace} -i -t'");
        session.streams.line(if is_ephemeral {
            format!(
                "Session ended, the ephemeral container will not be restarted but may be reattached using {again} if it is still running"
            )
        } else {
            format!("Session ended, resume using {again} command")
        })?;
    }
    ended.report(&mut session.streams)
}

/// Attaches to a container, or prints its log if it cannot be attached to.
///
/// # Errors
/// When the process fails, or the log cannot be read.
pub async fn attach_or_log(
    session: &mut Session,
    found: &Found,
    container: &str,
    terminal: TerminalFlags,
) -> Result<()> {
    match attach(session, found, container, terminal).await {
        Err(error) if !matches!(error, CliError::Exit(_)) => {
            let name = found.name();
            session
                .streams
                .note(format!("warning: couldn't attach to pod/{name}, falling back to streaming logs: {error}"))?;
            pods::follow_log(session, found.path("log").query("container", container)).await
        }
        done => done,
    }
}
