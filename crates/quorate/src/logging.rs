//! Where log lines and last words go.

use std::io::Write;

use tracing_subscriber::EnvFilter;

/// The filter of a command that works on a store: why it ends when a sync fails, and nothing else.
pub const LAST_WORDS: &str = "off,quorate_store::raft::state=error,quorate_store::raft::log=error";

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

/// The one line with which a command ends that failed.
pub fn fatal(error: &anyhow::Error) {
    // With standard error gone there is nobody left to tell; the exit code still does.
    writeln!(std::io::stderr(), "quorate: {error:#}").ok();
}

/// A problem that comes before there is a log.
pub fn warning(problem: impl std::fmt::Display) {
    // As above.
    writeln!(std::io::stderr(), "quorate: warning: {problem}").ok();
}

/// A progress line for the person at the terminal.
pub fn progress(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // A closed standard output must not stop a cluster that is starting.
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}
