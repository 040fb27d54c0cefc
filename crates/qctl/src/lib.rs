//! `qctl`, the kubectl-style client: a command tree (`cli`), one module for each command (`commands`), and below them the
//! server's kinds (`resources`), the printers (`output`, `describe`, `jsonpath`), manifests and merges (`manifest`,
//! `three_way`), and the connection (`kubeconfig`, `transport`, `verbs`, `watch`). Kinds come from the server's discovery.
//! Streams of containers are `channels` in a WebSocket, which `remote` connects to the terminal or to a command's own pipes.

mod archive;
mod changes;
mod channels;
mod cli;
mod commands;
mod describe;
mod duration;
mod error;
mod events;
mod explain;
mod jsonpath;
mod kubeconfig;
mod manifest;
mod output;
mod path;
mod pods;
mod remote;
mod resources;
mod session;
mod streams;
mod terminal;
mod three_way;
mod transport;
mod verbs;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

pub use error::CliError;
pub use kubeconfig::{Environment, MASTERS_EXTENSION};
pub use streams::{Capture, Streams};

/// Runs one command in this process. `arguments` are those of the command line, with the program name first.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // Standard error is the only place to report this. A failure to write there cannot be reported.
            let mut streams = Streams::process();
            return match streams.note(format!("error: cannot start the async runtime: {error}")) {
                Ok(()) | Err(_) => ExitCode::FAILURE,
            };
        }
    };
    let code = runtime.block_on(execute(arguments, Streams::process(), Environment::of_process()));
    // A blocking name resolution or file read on another thread must not delay the exit.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Runs one command with the given streams and environment, for tests and embedders; returns the exit code.
pub async fn execute(arguments: impl IntoIterator<Item = OsString>, streams: Streams, environment: Environment) -> u8 {
    cli::execute(arguments.into_iter().collect(), streams, environment).await
}
