//! `exec`: runs a command in a container.

use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::pods;
use crate::remote::{RunningTimeout, TerminalFlags, interact};
use crate::session::Session;

/// Run a command in a container
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// POD, or TYPE/NAME such as deployment/web, which picks one of its pods
    #[arg(value_name = "POD|TYPE/NAME")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    /// The container
    #[arg(short = 'c', long)]
    container: Option<String>,
    #[command(flatten)]
    terminal: TerminalFlags,
    #[command(flatten)]
    timeout: RunningTimeout,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

impl Exec {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if self.arguments.len() > usize::from(self.files.is_empty()) {
            return Err(CliError::usage(
                "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead",
            ));
        }
        if self.arguments.is_empty() && self.files.is_empty() {
            return Err(CliError::usage("pod, type/name or --filename must be specified"));
        }
        if self.command.is_empty() {
            return Err(CliError::usage("you must specify at least one command for the container"));
        }
        let found = pods::find(session, &self.arguments, &self.files, self.timeout.pod_running_timeout).await?;
        found.must_not_be_completed("exec into")?;
        let container = pods::choose_container(session, &found.pod, self.container.as_deref(), self.terminal.quiet)?;
        let connected = self.terminal.connected(&mut session.streams)?;
        let ended = interact(session, found.exec(&container, &self.command), connected, false).await?;
        ended.report(&mut session.streams)
    }
}
