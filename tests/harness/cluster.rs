//! A cluster of real processes under `quorate up`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::commands::{Output, run};
use crate::retry::eventually;

/// Container runtime of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Docker,
    Hollow,
}

/// The cluster to start.
#[derive(Clone, Debug)]
pub struct Spec {
    pub masters: usize,
    pub workers: usize,
    pub runtime: Runtime,
    /// Additional flags of `quorate up`.
    pub flags: Vec<&'static str>,
}

/// A member in `cluster.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: String,
    pub pid: i32,
    pub log: PathBuf,
    pub data: PathBuf,
    pub api: Option<String>,
    pub etcd: Option<String>,
    pub peer: Option<String>,
    pub metrics: Option<String>,
    pub node: Option<String>,
}

impl Member {
    /// Resident memory of the process (`VmRSS`), in bytes.
    ///
    /// # Panics
    /// When the process does not run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the status of a running process");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib << 10
    }
}

#[derive(Deserialize)]
struct ClusterFile {
    name: String,
    members: Vec<Member>,
}

/// A running cluster; dropping it takes it down.
pub struct Cluster {
    dir: Option<TempDir>,
    spec: Spec,
    up: Child,
}

/// Path of one of the workspace's binaries, in the target directory of this test.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.ancestors().nth(2).expect("a profile directory").join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --workspace --bins` first", path.display());
    path
}

/// Directory of the Kubernetes clients that `scripts/test` installs: `python/bin` and `node_modules`.
///
/// # Panics
/// When they are not installed.
#[must_use]
pub fn installed_clients() -> PathBuf {
    let dir = std::env::var_os("QUORATE_CLIENTS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/quorate/clients"),
        PathBuf::from,
    );
    let is_complete = dir.join("key").exists();
    assert!(is_complete, "the Kubernetes clients are not installed in {}; scripts/test installs them", dir.display());
    dir
}

/// Returns whether the `kubectl` on PATH is of 1.27 or later, and says that the test is skipped if it is not. Debian 12
/// has 1.20, which lacks commands and flags.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn kubectl_is_recent() -> bool {
    let output = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output();
    let version = output.ok().and_then(|output| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok());
    let minor = version.as_ref().and_then(|version| version["clientVersion"]["minor"].as_str());
    let is_recent =
        minor.and_then(|minor| minor.trim_end_matches('+').parse::<u32>().ok()).is_some_and(|minor| minor >= 27);
    if !is_recent {
        eprintln!("skipped: the kubectl on PATH is older than 1.27");
    }
    is_recent
}

impl Cluster {
    /// Starts a cluster in a directory of its own, and waits for its `ready` line.
    ///
    /// # Panics
    /// With the end of the members' logs, when the cluster does not become ready.
    #[must_use]
    pub fn start(spec: Spec) -> Cluster {
        let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a temporary directory");
        let mut up = up_command(dir.path(), &spec).stdout(Stdio::piped()).spawn().expect("quorate up");
        let output = BufReader::new(up.stdout.take().expect("a piped standard output"));
        let mut printed = Vec::new();
        let mut lines = output.lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| {
            let ready = line.starts_with("ready");
            printed.push(line);
            ready
        });
        // Later output is discarded, so that it cannot fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).count());
        let cluster = Cluster { dir: Some(dir), spec, up };
        assert!(ready, "quorate up ended before the cluster was ready: {printed:?}");
        cluster
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("a directory until the drop").path()
    }

    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    fn file(&self) -> ClusterFile {
        let bytes = fs::read(self.dir().join("cluster.json")).expect("cluster.json");
        serde_json::from_slice(&bytes).expect("cluster.json as the architecture describes it")
    }

    /// Name of the cluster, which its containers have as a label.
    #[must_use]
    pub fn name(&self) -> String {
        self.file().name
    }

    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.file().members
    }

    /// # Panics
    /// When there is no member of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Member {
        self.members().into_iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no member {name}"))
    }

    #[must_use]
    pub fn masters(&self) -> Vec<Member> {
        self.members().into_iter().filter(|m| m.role == "master").collect()
    }

    /// Client that uses only this master.
    ///
    /// # Panics
    /// When the kubeconfig cannot be used.
    pub async fn client(&self, master: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("the kubeconfig of quorate up");
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a usable kubeconfig");
        let url = self.member(master).api.expect("a master has an API");
        config.cluster_url = url.parse().expect("a URL");
        Client::try_from(config).expect("a client")
    }

    /// Writes a kubeconfig of the administrator with this server, and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn kubeconfig_for(&self, server: &str) -> PathBuf {
        let mut kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("the kubeconfig of quorate up");
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(server.to_owned());
        }
        let path = self.dir().join(format!("kubeconfig-{}", server.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
        let text = serde_json::to_string(&kubeconfig).expect("JSON, which is YAML as well");
        fs::write(&path, text).expect("the directory is ours");
        path
    }

    /// Starts a load balancer that prefers this master.
    ///
    /// # Panics
    /// When there is no such master.
    #[must_use]
    pub fn balancer(&self, preferred: &str) -> Balancer {
        let mut masters = self.masters();
        masters.sort_by_key(|master| master.name != preferred);
        let address = |master: &Member| {
            let url = master.api.as_deref().expect("a master has an API");
            url.trim_start_matches("https://").parse().expect("an address and a port")
        };
        Balancer::start(masters.iter().map(address).collect())
    }

    /// Client with the certificate of this worker's agent that uses only this master.
    ///
    /// # Panics
    /// When the kubeconfig cannot be used.
    pub async fn worker_client(&self, worker: &str, master: &str) -> Client {
        let mut kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("the kubeconfig of quorate up");
        let pki = self.dir().join("pki");
        let file = |end: &str| Some(pki.join(format!("{worker}-client.{end}")).display().to_string());
        for user in kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            (user.client_certificate_data, user.client_key_data) = (None, None);
            (user.client_certificate, user.client_key) = (file("crt"), file("key"));
        }
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a usable kubeconfig");
        let url = self.member(master).api.expect("a master has an API");
        config.cluster_url = url.parse().expect("a URL");
        Client::try_from(config).expect("a client")
    }

    /// Runs `kubectl` as the administrator, against this master.
    pub fn kubectl_at(&self, master: &str, args: &[&str], stdin: &str) -> Output {
        let url = self.member(master).api.expect("a master has an API");
        run(self.kubectl_command().arg("--server").arg(url).args(args), stdin)
    }

    /// Runs `kubectl` as the administrator, against the first master.
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> Output {
        self.kubectl_at("master-1", args, stdin)
    }

    /// Runs `qctl` as the administrator, against this master.
    pub fn qctl_at(&self, master: &str, args: &[&str], stdin: &str) -> Output {
        let url = self.member(master).api.expect("a master has an API");
        run(self.qctl_command().arg("--server").arg(url).args(args), stdin)
    }

    /// Runs `qctl` as the administrator, with the servers of the kubeconfig.
    pub fn qctl(&self, args: &[&str], stdin: &str) -> Output {
        run(self.qctl_command().args(args), stdin)
    }

    /// Command `qctl` as the administrator, without arguments.
    #[must_use]
    pub fn qctl_command(&self) -> Command {
        let mut command = Command::new(binary("qctl"));
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir());
        command
    }

    /// Command `kubectl` as the administrator, without arguments.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.kubeconfig()).arg("--cache-dir").arg(self.dir().join("kubectl-cache"));
        command
    }

    /// Command `etcdctl` as the administrator, with these masters as endpoints.
    ///
    /// # Panics
    /// When a master does not serve the etcd API.
    #[must_use]
    pub fn etcdctl_command(&self, masters: &[&str]) -> Command {
        let url = |name: &&str| self.member(name).etcd.expect("a master has an etcd API");
        let endpoints = masters.iter().map(url).collect::<Vec<_>>().join(",");
        let pki = self.dir().join("pki");
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints]);
        for (flag, file) in [("--cacert", "ca.crt"), ("--cert", "admin.crt"), ("--key", "admin.key")] {
            command.arg(flag).arg(pki.join(file));
        }
        command
    }

    /// Runs `etcdctl` as the administrator, against this master.
    pub fn etcdctl_at(&self, master: &str, args: &[&str], stdin: &str) -> Output {
        run(self.etcdctl_command(&[master]).args(args), stdin)
    }

    /// Waits until this master knows a leader, and returns the leader's name.
    #[must_use]
    pub fn leader_seen_by(&self, master: &str) -> String {
        eventually("a leader", || {
            let text = self.qctl_at(master, &["quorum", "-o", "json"], "").result().map_err(|o| o.stderr)?;
            let quorum: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            quorum["leader"].as_str().map(str::to_owned).ok_or_else(|| text.clone())
        })
    }

    /// Kills a member's process with SIGKILL, and waits until it is gone.
    ///
    /// # Panics
    /// When the process does not run.
    pub fn kill(&self, name: &str) {
        self.kill_at_once(&[self.member(name)]);
    }

    /// Kills all these members, and then waits until they are gone.
    ///
    /// # Panics
    /// When one of the processes does not run.
    pub fn kill_at_once(&self, members: &[Member]) {
        for Member { name, pid, .. } in members {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap_or_else(|error| panic!("cannot kill {name}: {error}"));
        }
        members.iter().for_each(|member| self.wait_gone(&member.name));
    }

    /// Stops a member's process with SIGTERM, and waits until it is gone.
    ///
    /// # Panics
    /// When the process does not run.
    pub fn terminate(&self, name: &str) {
        let pid = self.member(name).pid;
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap_or_else(|error| panic!("cannot stop {name}: {error}"));
        self.wait_gone(name);
    }

    /// Stops a member's process with SIGSTOP: it keeps its connections, but does nothing.
    ///
    /// # Panics
    /// When the process does not run.
    pub fn freeze(&self, name: &str) {
        let pid = self.member(name).pid;
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap_or_else(|error| panic!("cannot freeze {name}: {error}"));
    }

    /// Continues a frozen member.
    ///
    /// # Panics
    /// When the process does not run.
    pub fn thaw(&self, name: &str) {
        let pid = self.member(name).pid;
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap_or_else(|error| panic!("cannot thaw {name}: {error}"));
    }

    /// Waits until a member's process and all its threads are gone; until then its files are in use.
    pub fn wait_gone(&self, name: &str) {
        let pid = self.member(name).pid;
        eventually("the process to be gone", || {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(()) };
            let is_zombie = stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('Z'));
            let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            if is_zombie && threads <= 1 { Ok(()) } else { Err(stat) }
        });
    }

    /// Adds masters until there are `masters` of them.
    ///
    /// # Panics
    /// When the new masters do not become ready.
    pub fn grow(&mut self, masters: usize) {
        self.spec.masters = masters;
        self.revive();
    }

    /// Returns the quorum as reported by a master.
    ///
    /// # Errors
    /// The error of `qctl quorum`.
    pub fn quorum_seen_by(&self, master: &str) -> Result<serde_json::Value, String> {
        let text = self.qctl_at(master, &["quorum", "-o", "json"], "").result().map_err(|o| o.stderr)?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Starts the members that do not run, and waits until all are ready.
    ///
    /// # Panics
    /// When they do not become ready.
    pub fn revive(&self) {
        let output = run(up_command(self.dir(), &self.spec).arg("--detach"), "");
        assert!(output.success, "quorate up --detach failed: {output:?}");
    }
}

fn up_command(dir: &Path, spec: &Spec) -> Command {
    let mut command = Command::new(binary("quorate"));
    command.arg("up").arg("--data-dir").arg(dir);
    command.args(["--masters", &spec.masters.to_string(), "--workers", &spec.workers.to_string()]);
    command.args(["--runtime", if spec.runtime == Runtime::Docker { "docker" } else { "hollow" }]);
    command.args(&spec.flags);
    command
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            for member in self.members() {
                let log = fs::read_to_string(&member.log).unwrap_or_default();
                let lines = log.lines().collect::<Vec<_>>();
                let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
                report(&format!("--- the log of {} ends with\n  {last}", member.name));
            }
        }
        let pid = Pid::from_raw(i32::try_from(self.up.id()).expect("a pid"));
        // The process has ended before the cluster was ready (ESRCH).
        kill(pid, Signal::SIGTERM).ok();
        let status = self.up.wait();
        if let Some(dir) = self.dir.take()
            && failed
        {
            report(&format!("--- kept {}", dir.keep().display()));
        } else {
            assert!(status.is_ok_and(|s| s.success()), "quorate up failed while it stopped");
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test runner shows it beside the failure")]
fn report(text: &str) {
    eprintln!("{text}");
}
