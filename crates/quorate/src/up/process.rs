//! The processes of the members: start, watch, stop.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use futures::stream::{FuturesUnordered, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::cluster::{ClusterFile, ClusterMember, Role};
use crate::logging::progress;

const POLL: Duration = Duration::from_millis(20);
/// Time for a killed process to end. Only a hanging disk makes it take longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that this command started, and its exit status.
pub struct Spawned {
    name: String,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// Starts every member that does not run, and records its pid. With `own`, the members end with this command, so none
/// may run already.
pub fn start_missing(cluster: &mut ClusterFile, own: bool) -> anyhow::Result<Vec<Spawned>> {
    let program = std::env::current_exe().context("cannot find the quorate binary")?;
    let mut spawned = Vec::new();
    for member in &mut cluster.members {
        wait_ended(member);
        if is_running(member) {
            anyhow::ensure!(!own, "{} runs already (pid {}); stop the cluster first", member.name, member.pid);
            continue;
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&member.log)
            .with_context(|| format!("cannot open {}", member.log.display()))?;
        let command = match member.role {
            Role::Master => "server",
            Role::Worker => "agent",
        };
        // Each member has its own process group, so Ctrl-C at the terminal reaches only `up`, which then stops the
        // members in order.
        let mut child = Command::new(&program)
            .arg(command)
            .arg("--config")
            .arg(member.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        member.pid = i32::try_from(child.id())?;
        let (ended, exit) = watch::channel(None);
        // Each child gets a thread, because waiting blocks and there are at most a few dozen children.
        std::thread::Builder::new().name(member.name.clone()).spawn(move || {
            if let Ok(status) = child.wait() {
                ended.send_replace(Some(status));
            }
        })?;
        spawned.push(Spawned { name: member.name.clone(), exit });
    }
    Ok(spawned)
}

/// Fails as soon as one of the started processes ends.
pub async fn first_exit(spawned: &[Spawned], cluster: &ClusterFile) -> anyhow::Result<()> {
    let mut exits = exits(spawned);
    match exits.next().await {
        None => std::future::pending().await,
        Some((name, status)) => {
            let log = cluster.members.iter().find(|m| m.name == name).map(|m| m.log.as_path());
            let last = log.map(last_lines).unwrap_or_default();
            anyhow::bail!("{name} ended ({status}) before the cluster was ready; its log ends with:\n{last}")
        }
    }
}

/// Reports every process that ends, and never returns. Another `up --detach` may restart members, and this command
/// still stops them at its end.
pub async fn report_exits(spawned: &[Spawned], cluster: &ClusterFile) {
    let mut exits = exits(spawned);
    while let Some((name, status)) = exits.next().await {
        let log = cluster.members.iter().find(|m| m.name == name).map(|m| m.log.display().to_string());
        progress(format!("{name} ended: {status}; see {}", log.unwrap_or_default()));
    }
    progress("all members started here have ended; `quorate up --detach` starts them again, Ctrl-C ends this command");
    std::future::pending().await
}

fn exits(spawned: &[Spawned]) -> FuturesUnordered<impl Future<Output = (String, ExitStatus)>> {
    spawned
        .iter()
        .map(|process| {
            let mut exit = process.exit.clone();
            let name = process.name.clone();
            async move {
                let status = exit.wait_for(Option::is_some).await.map(|status| *status);
                match status {
                    Ok(Some(status)) => (name, status),
                    _ => std::future::pending().await,
                }
            }
        })
        .collect()
}

/// Stops all members of a role together: SIGTERM, and after `grace` SIGKILL.
pub async fn stop(cluster: &ClusterFile, role: Role, grace: Duration) {
    let running = || cluster.with_role(role).filter(|member| is_running(member));
    for member in running() {
        send(member, Signal::SIGTERM);
    }
    let deadline = Instant::now() + grace;
    while running().next().is_some() && Instant::now() < deadline {
        sleep(POLL).await;
    }
    for member in running() {
        progress(format!("{} did not stop within {grace:?}; killed. See {}", member.name, member.log.display()));
        send(member, Signal::SIGKILL);
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    let left = || cluster.with_role(role).filter(|member| process_state(member) != ProcessState::Gone);
    while left().next().is_some() && Instant::now() < deadline {
        sleep(POLL).await;
    }
    for member in left() {
        progress(format!("{} (pid {}) was killed and has not ended; the kernel holds it", member.name, member.pid));
    }
}

/// Waits for a member that is ending, up to a limit.
fn wait_ended(member: &ClusterMember) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    while process_state(member) == ProcessState::Ending && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
}

fn send(member: &ClusterMember, signal: Signal) {
    match kill(Pid::from_raw(member.pid), signal) {
        // The process ended by itself meanwhile.
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => progress(format!("cannot stop {} (pid {}): {error}", member.name, member.pid)),
    }
}

/// Returns whether the member's pid is alive and still belongs to that member.
pub fn is_running(member: &ClusterMember) -> bool {
    process_state(member) == ProcessState::Running
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessState {
    Running,
    /// The process no longer works, but its files and ports stay in use until its last thread has ended.
    Ending,
    Gone,
}

fn process_state(member: &ClusterMember) -> ProcessState {
    if member.pid <= 0 {
        return ProcessState::Gone;
    }
    let proc = PathBuf::from(format!("/proc/{}", member.pid));
    let config = member.config();
    match fs::read(proc.join("cmdline")) {
        // A process that is ending loses its command line first.
        Ok(cmdline) if cmdline.is_empty() && is_ending(&proc) => ProcessState::Ending,
        Ok(cmdline) if cmdline.split(|&b| b == 0).any(|arg| arg == config.as_os_str().as_encoded_bytes()) => {
            ProcessState::Running
        }
        _ => ProcessState::Gone,
    }
}

/// Returns whether a process without a command line is still ending.
fn is_ending(proc: &Path) -> bool {
    /// The kernel's `PF_KTHREAD`. A kernel thread has no command line, and may have the pid after a restart of the
    /// machine.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let Ok(stat) = fs::read_to_string(proc.join("stat")) else { return false };
    // The name before these fields is in brackets and may contain any characters.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let (state, flags) = (fields.first(), fields.get(6).and_then(|flags| flags.parse::<u64>().ok()));
    let is_of_the_kernel = flags.is_none_or(|flags| flags & KERNEL_THREAD != 0);
    let threads = fs::read_dir(proc.join("task")).map_or(0, Iterator::count);
    !is_of_the_kernel && (state != Some(&"Z") || threads > 1)
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|error| format!("({} cannot be read: {error})", log.display()));
    let lines = text.lines().rev().take(8).collect::<Vec<_>>();
    lines.into_iter().rev().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_last_thread() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("a process");
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        assert!(is_ending(&proc), "the process is alive");
        if fs::read("/proc/2/comm").is_ok_and(|name| name == b"kthreadd\n") {
            assert!(!is_ending(Path::new("/proc/2")), "kernel threads are not members");
        }
        child.kill().expect("it ends");
        // The zombie has not been reaped, but holds no resources.
        while is_ending(&proc) {
            std::thread::yield_now();
        }
        assert!(proc.exists());
        child.wait().expect("it has ended");
        assert!(!is_ending(&proc));
    }
}
