//! `completion`: scripts that complete commands and flags in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::Result;
use crate::streams::Streams;

/// Print the completion script of a shell
///
/// For bash: source <(qctl completion bash)
#[derive(Debug, clap::Args)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub fn run(&self, streams: &mut Streams) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "qctl", &mut script);
        streams.text(script)
    }
}
