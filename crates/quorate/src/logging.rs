//! Log lines, fatal errors and progress messages.

use std::io::Write;

use tracing_subscriber::EnvFilter;

/// Log filter of commands that work on a store. It shows only the reason why the process ends when a sync fails.
pub const STORE_ERRORS_ONLY: &str = "off,quorate_store::raft::state=error,quorate_store::raft::log=error";

/// Starts structured logging to standard error. `level` is a `tracing` filter such as `info` or `info,openraft=warn`.
pub fn start(level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| anyhow::anyhow!("--log-level {level:?}: {error}; try `info` or `debug,openraft=warn`"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Writes the line with which a failed command ends.
pub fn fatal(error: &anyhow::Error) {
    // If standard error is closed, only the exit code can report the failure.
    writeln!(std::io::stderr(), "quorate: {error:#}").ok();
}

/// Writes a warning before logging has started.
pub fn warning(problem: impl std::fmt::Display) {
    // If standard error is closed, the warning is lost.
    writeln!(std::io::stderr(), "quorate: warning: {problem}").ok();
}

/// Writes a progress line to standard output.
pub fn progress(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // A closed standard output must not stop a cluster that is starting.
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}
