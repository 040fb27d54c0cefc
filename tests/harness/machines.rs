//! Simulated machines: each has a network namespace with an address on a common switch, a host name, and its own
//! `/var/lib`.
//!
//! The switch is a bridge in its own namespace, so that the host's network does not change. All names contain the
//! test's process id, so that a later run finds the namespaces of a killed test.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cluster::binary;
use crate::commands::{Output, run};
use crate::retry::eventually;

const PREFIX: &str = "quorate-";
static NETWORKS: AtomicUsize = AtomicUsize::new(0);

/// Machines on one switch. Dropping this kills their processes and removes them.
pub struct Network {
    name: String,
    dir: Option<TempDir>,
    namespaces: Vec<String>,
}

impl Network {
    /// Creates a switch without machines.
    ///
    /// # Panics
    /// Without root, or without iproute2.
    #[must_use]
    pub fn start() -> Network {
        remove_stale();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("quorate-machines-").tempdir().expect("a temporary directory");
        let mut network = Network { name, dir: Some(dir), namespaces: Vec::new() };
        let switch = network.namespace("switch");
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        network
    }

    fn namespace(&mut self, name: &str) -> String {
        let namespace = format!("{}-{name}", self.name);
        ip(&["netns", "add", &namespace]);
        self.namespaces.push(namespace.clone());
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        namespace
    }

    /// Adds a bare machine with the address `10.0.0.<number>`.
    ///
    /// # Panics
    /// When the machine cannot be created.
    pub fn machine(&mut self, name: &str, number: u8) -> Machine {
        let namespace = self.namespace(name);
        let (switch, port) = (&self.namespaces[0], format!("port{number}"));
        ip(&["link", "add", "eth0", "netns", &namespace, "type", "veth", "peer", "name", &port, "netns", switch]);
        ip(&["-n", switch, "link", "set", &port, "master", "br0", "up"]);
        let address = format!("10.0.0.{number}");
        ip(&["-n", &namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        let dir = self.dir.as_ref().expect("a directory until the drop").path().join(name);
        fs::create_dir_all(dir.join("var-lib")).expect("a directory");
        Machine { name: name.to_owned(), address, namespace, dir, process: None }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            remove(namespace);
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            report(&format!("--- kept {}", dir.keep().display()));
        }
    }
}

/// A machine. Dropping this kills its service.
pub struct Machine {
    pub name: String,
    pub address: String,
    namespace: String,
    dir: PathBuf,
    process: Option<Child>,
}

impl Machine {
    /// Returns a shell command of the machine's administrator, with `quorate` and `qctl` on PATH.
    fn command(&self, line: &str) -> Command {
        let bin = ["quorate", "qctl"].map(|name| binary(name).parent().expect("a directory").to_owned())[0].clone();
        let path = std::env::var("PATH").unwrap_or_default();
        let script = format!(
            "mount --make-rprivate / && mount --bind {}/var-lib /var/lib && hostname {} && exec {line}",
            self.dir.display(),
            self.name
        );
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "unshare", "--uts", "--mount", "sh", "-c", &script]);
        command.env("PATH", format!("{}:{path}", bin.display())).env("HOME", &self.dir);
        command.env("KUBECONFIG", "/var/lib/quorate/server/kubeconfig");
        command
    }

    /// Runs a shell command to its end.
    pub fn run(&self, line: &str) -> Output {
        run(&mut self.command(line), "")
    }

    /// Starts a shell command as the machine's service.
    ///
    /// # Panics
    /// When the service cannot be started.
    pub fn start(&mut self, line: &str) {
        assert!(self.process.is_none(), "{} already runs a service", self.name);
        let file =
            |name: &str| fs::OpenOptions::new().create(true).append(true).open(self.dir.join(name)).expect("a file");
        let mut command = self.command(line);
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("log")).process_group(0);
        self.process = Some(command.spawn().expect("ip from iproute2"));
    }

    /// Kills the service, as a power cut does.
    ///
    /// # Panics
    /// When the machine runs no service.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Stops the service with SIGTERM.
    ///
    /// # Panics
    /// When the machine runs no service.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("the machine runs a service");
        let pid = Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
        // The process may have ended by itself (ESRCH).
        kill(pid, signal).ok();
        process.wait().expect("it ends");
    }

    /// Standard output of the service.
    #[must_use]
    pub fn printed(&self) -> String {
        fs::read_to_string(self.dir.join("out")).unwrap_or_default()
    }

    /// Waits until the service prints a line that starts with `beginning`, and returns the line without its indent.
    ///
    /// # Panics
    /// With the output and the log, when the deadline passes first.
    #[must_use]
    pub fn printed_line(&self, beginning: &str) -> String {
        eventually(beginning, || {
            let (printed, log) = (self.printed(), fs::read_to_string(self.dir.join("log")).unwrap_or_default());
            let found = printed.lines().map(str::trim).find(|line| line.starts_with(beginning)).map(str::to_owned);
            found.ok_or((printed, log))
        })
    }

    /// Log of the service.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Path of the machine's `/var/lib` on the host.
    #[must_use]
    pub fn var_lib(&self) -> PathBuf {
        self.dir.join("var-lib")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines = log.lines().collect::<Vec<_>>();
            let last = lines[lines.len().saturating_sub(15)..].join("\n  ");
            report(&format!("--- the log of {} ends with\n  {last}", self.name));
        }
        if let Some(process) = &mut self.process {
            // Both calls may fail if the service has ended by itself.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// Runs `ip` from iproute2.
fn ip(args: &[&str]) {
    let output = run(Command::new("ip").args(args), "");
    assert!(output.success, "ip {}: {} (these tests need root)", args.join(" "), output.stderr.trim());
}

/// Kills the processes in a namespace and removes it.
fn remove(namespace: &str) {
    let pids = run(Command::new("ip").args(["netns", "pids", namespace]), "");
    for pid in pids.stdout.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        // The process may have ended by itself (ESRCH).
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    let removed = run(Command::new("ip").args(["netns", "del", namespace]), "");
    if !removed.success {
        report(&format!("--- cannot remove {namespace}: {}", removed.stderr.trim()));
    }
}

/// Removes the namespaces of tests that were killed.
fn remove_stale() {
    let listed = run(Command::new("ip").args(["netns", "list"]), "").stdout;
    for namespace in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let pid = namespace.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let is_alive = |pid: &str| Path::new("/proc").join(pid).exists();
        if pid.is_some_and(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && !is_alive(pid)) {
            remove(namespace);
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test runner shows it beside the failure")]
fn report(text: &str) {
    eprintln!("{text}");
}
