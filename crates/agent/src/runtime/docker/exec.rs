//! Runs commands inside containers, and kills those that exceed their timeout. Docker has no call for that, so the
//! process is found and signalled on this machine.

use std::fs;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures::TryStreamExt;
use nix::sys::signal::{Signal as GroupSignal, killpg};
use nix::unistd::{Pid, getpgid};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{failed, within};
use crate::runtime::{ExecResult, RuntimeError};

const DOING: &str = "run a command in the container";
/// Maximum size of the output, in bytes. The rest is read and dropped.
const OUTPUT_LIMIT: usize = 10 * 1024;
/// Number of times that a timed-out command is inspected while it has not been started yet.
const LATE_START_INSPECTIONS: u32 = 10;
/// Delay between two of these inspections.
const LATE_START_DELAY: Duration = Duration::from_millis(200);

/// Runs a command, and kills it when it exceeds `timeout`.
pub(super) async fn run(
    docker: &Docker,
    container: &str,
    command: &[String],
    timeout: Duration,
) -> Result<ExecResult, RuntimeError> {
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..CreateExecOptions::default()
    };
    let deadline = tokio::time::Instant::now() + timeout;
    let timed_out = || RuntimeError::TimedOut { doing: DOING, seconds: timeout.as_secs() };
    let created = tokio::time::timeout_at(deadline, docker.create_exec(container, options)).await;
    let exec = created.map_err(|_| timed_out())?.map_err(|error| failed(DOING, error))?.id;
    match tokio::time::timeout_at(deadline, attached(docker, &exec)).await {
        Ok(result) => result.map_err(|error| failed(DOING, error)),
        Err(_) => {
            if let Err(error) = kill(docker, container, &exec).await {
                tracing::warn!(container, error = %error, "cannot kill a command that exceeded its timeout");
            }
            Err(timed_out())
        }
    }
}

async fn attached(docker: &Docker, exec: &str) -> Result<ExecResult, DockerError> {
    let mut text = Vec::new();
    if let StartExecResults::Attached { mut output, .. } = docker.start_exec(exec, None::<StartExecOptions>).await? {
        while let Some(chunk) = output.try_next().await? {
            let bytes = chunk.into_bytes();
            text.extend_from_slice(&bytes[..bytes.len().min(OUTPUT_LIMIT - text.len())]);
        }
    }
    let ended = docker.inspect_exec(exec).await?;
    Ok(ExecResult { code: ended.exit_code.unwrap_or(-1), output: String::from_utf8_lossy(&text).into_owned() })
}

/// Why a command was not killed.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    #[error("{0}")]
    Docker(#[from] RuntimeError),
    #[error("process {pid} of this machine does not belong to the container")]
    Foreign { pid: i32 },
    #[error("process {pid}: {source}")]
    Signal { pid: i32, source: std::io::Error },
}

/// Kills the process group of a command.
pub(super) async fn kill(docker: &Docker, container: &str, exec: &str) -> Result<(), EndError> {
    let mut inspections = 0;
    let pid = loop {
        match inspect(docker, exec).await? {
            Progress::Runs(pid) => break pid,
            // A busy engine may start the command after its caller has given up.
            Progress::NotStarted if inspections < LATE_START_INSPECTIONS => tokio::time::sleep(LATE_START_DELAY).await,
            Progress::NotStarted | Progress::Ended => return Ok(()),
        }
        inspections += 1;
    };
    let signal = |source: rustix::io::Errno| EndError::Signal { pid, source: source.into() };
    let handle = match rustix::process::Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        None | Some(Err(rustix::io::Errno::SRCH)) => return Ok(()),
        Some(opened) => opened.map_err(signal)?,
    };
    // Another process may have got the same pid before the handle was opened. It has not if Docker still reports the
    // command as running with this pid and the process is in the container.
    if inspect(docker, exec).await? != Progress::Runs(pid) {
        return Ok(());
    }
    if !is_of_container(pid, container) {
        return Err(EndError::Foreign { pid });
    }
    // A stopped process cannot exit, so its pid stays valid while its process group is killed.
    match pidfd_send_signal(&handle, Signal::STOP) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        stopped => stopped.map_err(signal)?,
    }
    if getpgid(Some(Pid::from_raw(pid))) == Ok(Pid::from_raw(pid)) {
        killpg(Pid::from_raw(pid), GroupSignal::SIGKILL)
            .map_err(|source| EndError::Signal { pid, source: source.into() })?;
    }
    match pidfd_send_signal(&handle, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        killed => killed.map_err(signal),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    NotStarted,
    /// The pid of the command on the engine's machine.
    Runs(i32),
    Ended,
}

async fn inspect(docker: &Docker, exec: &str) -> Result<Progress, RuntimeError> {
    let found = within("inspect the command", docker.inspect_exec(exec)).await?;
    let pid = found.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    Ok(match pid {
        Some(pid) if found.running == Some(true) => Progress::Runs(pid),
        _ if found.exit_code.is_some() => Progress::Ended,
        _ => Progress::NotStarted,
    })
}

/// Whether a process is in a cgroup that is named after the container. An engine on another machine or in another
/// process namespace reports pids that mean other processes here.
pub(super) fn is_of_container(pid: i32, container: &str) -> bool {
    let groups = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    container.len() >= 64 && String::from_utf8_lossy(&groups).lines().any(|line| line.contains(container))
}
