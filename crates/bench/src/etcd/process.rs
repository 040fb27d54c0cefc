//! Process of one member: its start and end, and the kernel's figures about it.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// Unit of CPU time in `/proc`: `USER_HZ`, which is 100 on the supported Linux architectures.
const TICKS_PER_SECOND: f64 = 100.0;
const POLL: Duration = Duration::from_millis(5);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A program that runs or can be started again. Dropping this kills it.
pub struct Process {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// File for standard output and standard error.
    log: PathBuf,
    child: Option<Child>,
    /// CPU seconds of earlier runs.
    spent: f64,
}

impl Process {
    /// Creates a process that does not run yet.
    pub fn new(program: PathBuf, arguments: Vec<OsString>, log: PathBuf) -> Self {
        Process { program, arguments, log, child: None, spent: 0.0 }
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        // The process has its own group, so that Ctrl-C reaches only the benchmark, which then stops it.
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Fails with the end of the log if the process has ended by itself.
    pub fn expect_running(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { anyhow::bail!("{} was not started", self.program.display()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        let log = fs::read_to_string(&self.log)?;
        let last: Vec<_> = log.lines().rev().take(5).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        anyhow::bail!("{} ended ({status}); its log ends with:\n{}", self.program.display(), last.join("\n"))
    }

    /// Sends SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.spent = self.cpu_s();
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends SIGTERM, and waits until the process has ended.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.spent = self.cpu_s();
        let Some(child) = &mut self.child else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_WITHIN;
        while child.try_wait()?.is_none() {
            anyhow::ensure!(Instant::now() < deadline, "{} did not stop", self.program.display());
            sleep(POLL).await;
        }
        self.child = None;
        Ok(())
    }

    /// CPU seconds since the first start, with a resolution of 1/100 s.
    pub fn cpu_s(&self) -> f64 {
        self.spent + self.proc("stat").and_then(|stat| cpu_s(&stat)).unwrap_or(0.0)
    }

    /// Current and peak resident memory since [`reset_peak`](Process::reset_peak); `None` if the process does not run.
    pub fn memory_mib(&self) -> Option<Memory> {
        let status = self.proc("status")?;
        Some(Memory { resident_mib: mebibytes(&status, "VmRSS:")?, peak_mib: mebibytes(&status, "VmHWM:")? })
    }

    /// Resets the peak of the resident memory (`clear_refs` in proc(5)).
    pub fn reset_peak(&self) -> anyhow::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        fs::write(format!("/proc/{}/clear_refs", child.id()), "5").context("cannot reset the peak of memory")
    }

    fn proc(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.as_ref()?.id())).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that cannot be killed is left alone.
        self.kill().ok();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub resident_mib: f64,
    pub peak_mib: f64,
}

/// CPU seconds of this process, the load generator.
pub fn own_cpu_s() -> anyhow::Result<f64> {
    cpu_of_s("self")
}

/// CPU seconds of a process.
pub fn cpu_of_s(pid: impl Display) -> anyhow::Result<f64> {
    let stat = format!("/proc/{pid}/stat");
    cpu_s(&fs::read_to_string(&stat)?).with_context(|| format!("{stat} cannot be parsed"))
}

/// CPU seconds of everything on this machine, including other guests of the host.
pub fn machine_cpu_s() -> anyhow::Result<f64> {
    busy_s(&fs::read_to_string("/proc/stat")?).context("/proc/stat cannot be parsed")
}

/// Parses the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, and guest times that
/// are part of user and nice.
fn busy_s(stat: &str) -> Option<f64> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(str::parse::<u64>);
    let times = times.take(8).collect::<Result<Vec<_>, _>>().ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = times.try_into().ok()?;
    Some((user + nice + system + irq + softirq + steal) as f64 / TICKS_PER_SECOND)
}

/// Parses user and system time in `/proc/PID/stat`: fields 14 and 15, counted from the end of the name, which may
/// contain any character.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) as f64 / TICKS_PER_SECOND)
}

/// Parses a line of `/proc/PID/status`, such as `VmHWM:     1024 kB`.
fn mebibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_parsed() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 2000 0 5 0 250 50 0 0 20 0 12 0 7000 1000 500\n";
        assert_eq!(cpu_s(stat), Some(3.0));
        assert_eq!(cpu_s("42 (a"), None);
        let machine = "cpu  100 200 300 4000 5000 10 20 70 9 9\ncpu0 1 2 3\n";
        assert_eq!((busy_s(machine), busy_s("cpu  1 2"), busy_s("")), (Some(7.0), None, None));
        let status = "VmPeak:\t  4096 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((mebibytes(status, "VmHWM:"), mebibytes(status, "VmRSS:")), (Some(2.0), Some(1.0)));
        assert_eq!(mebibytes(status, "VmSwap:"), None);
    }
}
