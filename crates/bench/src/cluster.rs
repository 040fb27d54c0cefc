//! The measured cluster: real processes under `quorate up`, with the `quorate` binary in the directory of this program.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: String,
    pub pid: i32,
    pub api: Option<String>,
}

#[derive(Deserialize)]
struct ClusterFile {
    members: Vec<Member>,
}

pub struct Cluster {
    dir: TempDir,
    flags: Vec<String>,
    up: Child,
    /// Time from the start of `quorate up` to its `ready` line.
    pub ready_after: Duration,
}

impl Cluster {
    pub async fn start(masters: usize, workers: usize, runtime: &str) -> anyhow::Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
        let flags = ["--masters", &masters.to_string(), "--workers", &workers.to_string(), "--runtime", runtime]
            .map(str::to_owned)
            .to_vec();
        let started = std::time::Instant::now();
        let mut up = up(dir.path(), &flags)?.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(up.stdout.take().context("no standard output")?).lines();
        loop {
            match lines.next_line().await? {
                Some(line) if line.starts_with("ready") => break,
                Some(_) => {}
                None => bail!("quorate up ended before the cluster was ready; its error is above"),
            }
        }
        // Later output is discarded, so that it cannot fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Cluster { dir, flags, up, ready_after: started.elapsed() })
    }

    pub fn members(&self) -> anyhow::Result<Vec<Member>> {
        let file = std::fs::read(self.dir.path().join("cluster.json"))?;
        Ok(serde_json::from_slice::<ClusterFile>(&file)?.members)
    }

    pub fn with_role(&self, role: &str) -> anyhow::Result<Vec<Member>> {
        Ok(self.members()?.into_iter().filter(|member| member.role == role).collect())
    }

    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.path().join("pki").join(file)
    }

    pub fn kill(&self, member: &Member) -> anyhow::Result<()> {
        kill(Pid::from_raw(member.pid), Signal::SIGKILL).with_context(|| format!("cannot kill {}", member.name))
    }

    /// Stops a member with SIGTERM.
    pub fn terminate(&self, member: &Member) -> anyhow::Result<()> {
        kill(Pid::from_raw(member.pid), Signal::SIGTERM).with_context(|| format!("cannot stop {}", member.name))
    }

    /// Starts the members that do not run, and waits until all are ready.
    pub async fn revive(&self) -> anyhow::Result<()> {
        let output = up(self.dir.path(), &self.flags)?.arg("--detach").output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.up.id().context("quorate up has ended")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        ensure!(self.up.wait().await?.success(), "quorate up failed while it stopped");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Only reached after an error; a successful run ends in `stop`.
        if let Some(pid) = self.up.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
    }
}

fn up(dir: &Path, flags: &[String]) -> anyhow::Result<Command> {
    let mut command = Command::new(quorate_program()?);
    command.arg("up").arg("--data-dir").arg(dir).args(flags);
    Ok(command)
}

/// Path of the measured binary.
pub fn quorate_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("quorate");
    ensure!(program.exists(), "{} is not built; run `cargo build --release --bin quorate`", program.display());
    Ok(program)
}

/// Resident memory of a process, in mebibytes.
pub fn resident_mib(pid: i32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no value of VmRSS")?.parse()?;
    Ok(kib / 1024)
}
