//! `qctl`, the kubectl-style client: a command tree (`cli`), one module for each command (`commands`), and below them the
//! server's kinds (`resources`), the printers (`output`, `describe`, `jsonpath`), manifests and merges (`manifest`,
//! `three_way`), and the connection (`kubeconfig`, `transport`, `verbs`, `watch`). Kinds come from the server's discovery.

mod changes;
mod cli;
mod commands;
mod describe;
mod duration;
mod error;
mod events;
mod jsonpath;
mod kubeconfig;
mod manifest;
mod output;
mod path;
mod resources;
mod session;
mod streams;
mod three_way;
mod transport;
mod verbs;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

pub use error::CliError;
pub use kubeconfig::{Environment, MASTERS_EXTENSION};
pub use streams::{Capture, Streams};

/// Runs one command in this process: `arguments` as from the command line, program name first.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // There is nothing but standard error to tell it to; failing to write there changes nothing.
            let mut streams = Streams::process();
            return match streams.note(format!("error: the runtime does not start: {error}")) {
                Ok(()) | Err(_) => ExitCode::FAILURE,
            };
        }
    };
    let code = runtime.block_on(execute(arguments, Streams::process(), Environment::of_process()));
    // A name being resolved or a file being read on another thread must not hold the exit back.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Runs one command with the given streams and environment, for tests and embedders; returns the exit code.
pub async fn execute(arguments: impl IntoIterator<Item = OsString>, streams: Streams, environment: Environment) -> u8 {
    cli::execute(arguments.into_iter().collect(), streams, environment).await
}
