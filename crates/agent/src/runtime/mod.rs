//! Runtimes, on which pods run: Docker, or the hollow one, which starts nothing. Runtimes act and make no decisions.

mod docker;
pub use docker::remove_containers;
mod hollow;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, RuntimeChoice};
use crate::plan::{FailureReason, Observed, PodRef};

pub use docker::DockerRuntime;
pub(crate) use docker::{DockerFence, EngineProcess, Running, engine_process};
#[cfg(test)]
pub(crate) use docker::{STOP_TAKES, fake};
pub use hollow::HollowRuntime;

/// Why a call to the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("cannot reach Docker at {endpoint}")]
    Unreachable { endpoint: String, source: bollard::errors::Error },
    #[error("Docker did not answer the request to {doing} within {seconds} s")]
    TimedOut { doing: &'static str, seconds: u64 },
    #[error("{message}")]
    Docker { message: String, code: Option<u16> },
    #[error("the Docker engine at {endpoint} {message}")]
    Version { endpoint: String, message: String },
    #[error("the sandbox program does not support the processor architecture {arch}")]
    Architecture { arch: &'static str },
    #[error("the container {id} does not exist")]
    NoSuchContainer { id: String },
    #[error("cannot prepare {path}")]
    Host { path: PathBuf, source: std::io::Error },
    #[error("{message}")]
    Config { message: String },
    #[error("this node's runtime starts no processes, so it cannot {doing}")]
    Hollow { doing: &'static str },
    #[error("the pod {pod} has no running sandbox")]
    NoSandbox { pod: PodRef },
    #[error("failed to connect to port {port} of pod {pod}: {source}")]
    Connect { pod: PodRef, port: u16, source: std::io::Error },
}

impl RuntimeError {
    /// Returns the waiting reason of a container that could not be made because of this error.
    #[must_use]
    pub fn create_reason(&self) -> FailureReason {
        match self {
            RuntimeError::Config { .. } => FailureReason::CreateContainerConfigError,
            _ => FailureReason::CreateContainerError,
        }
    }
}

/// Why an image is not available on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    pub reason: FailureReason,
    pub message: String,
}

/// The sandbox to make for a pod: its network, host name and shared namespaces.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    pub pod: PodRef,
    pub attempt: u32,
    pub hostname: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// The containers of the pod join the sandbox's process namespace.
    pub shares_processes: bool,
    pub ports: Vec<HostPort>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
}

/// A port of the pod that is opened on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A directory or file of the node that is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    /// Docker's name of the mount propagation: `rprivate`, `rslave` or `rshared`.
    pub propagation: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: i64,
    /// CPU time in each period of 100 ms, in microseconds. 0 means no limit.
    pub cpu_quota: i64,
    /// Memory limit, in bytes. 0 means no limit.
    pub memory_bytes: i64,
    pub oom_score_adj: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// The user id. `None` means the image's user.
    pub user: Option<i64>,
    /// The group id. `None` means the user's own group.
    pub group: Option<i64>,
    pub groups: Vec<String>,
    /// The container is not started if its user is 0 or may be 0.
    pub must_not_be_root: bool,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    /// `unconfined`, or a profile as JSON. `None` is the engine's own profile.
    pub seccomp: Option<String>,
    /// `unconfined`, or the name of a loaded profile. `None` is the engine's own profile.
    pub app_armor: Option<String>,
    /// Parts of the SELinux label, such as `level:s0:c1,c2`.
    pub se_linux: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
}

/// The security mechanisms that the engine supports on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub app_armor: bool,
    pub se_linux: bool,
    /// The engine filters system calls, also by default.
    pub seccomp: bool,
}

/// One container to make and start.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    pub pod: PodRef,
    pub name: String,
    pub attempt: u32,
    pub sandbox_id: String,
    /// An init container that must end before the next one starts.
    pub runs_to_completion: bool,
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// Environment variables as `NAME=value`.
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    pub mounts: Vec<BindMount>,
    pub limits: Limits,
    pub security: Security,
    pub host_pid: bool,
    /// The containers of the pod see each other's processes.
    pub share_processes: bool,
    /// Id of the running container whose processes this one sees, unless it sees those of the pod or the node.
    pub process_target: Option<String>,
    /// The file of this machine from which the termination message is read.
    pub message_file: Option<PathBuf>,
    /// The path at which the container writes the termination message.
    pub message_path: String,
    /// An empty message is replaced by the end of the log when the container failed.
    pub message_from_logs: bool,
    /// The stop signal. `None` means the image's own or `SIGTERM`.
    pub stop_signal: Option<String>,
    pub stdin: bool,
    /// Standard input is closed when the first attached client disconnects.
    pub stdin_once: bool,
    pub tty: bool,
}

/// The result of a command that was run inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    pub code: i64,
    /// The first 10 KiB of standard output and standard error.
    pub output: String,
}

/// The streams of a process that a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The process has a terminal, whose output comes as standard output.
    pub tty: bool,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

pub type OutputStream = BoxStream<'static, std::io::Result<(Source, Bytes)>>;

/// A process with its streams.
pub struct Session {
    /// Ends with the process.
    pub output: OutputStream,
    /// Its shutdown ends the process's standard input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    pub process: Arc<dyn Process>,
}

/// Control of a process whose streams a client has.
#[async_trait]
pub trait Process: Send + Sync {
    async fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError>;

    /// Returns the exit code of a command that has ended. A container's own process always counts as a success, because the
    /// pod's status has its code.
    async fn exit_code(&self) -> Result<i64, RuntimeError>;

    /// Kills a command whose client has gone. A container's own process keeps running.
    async fn abandon(&self) -> Result<(), RuntimeError>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Name and version in the form of the Node object, such as `docker://20.10.24`.
    pub version: String,
}

/// A pod of which the runtime has a sandbox or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPod {
    pub pod: PodRef,
    /// Its sandbox runs, or the state of one of its containers is unknown.
    pub may_run: bool,
}

pub type LogStream = BoxStream<'static, Result<Bytes, RuntimeError>>;

/// A container runtime. When a call returns, [`Runtime::subscribe`] already shows its effect.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Returns the scheme of container ids in statuses.
    fn scheme(&self) -> &'static str;

    /// Whether probes and hooks succeed without being run.
    fn is_hollow(&self) -> bool {
        false
    }

    async fn info(&self) -> Result<RuntimeInfo, RuntimeError>;

    /// Returns the security mechanisms of the engine, or `None` for a runtime that starts no containers.
    async fn capabilities(&self) -> Result<Option<Capabilities>, RuntimeError>;

    /// Lists all containers of this node again.
    async fn relist(&self) -> Result<(), RuntimeError>;

    /// Watches the containers until `shutdown`, so that [`Runtime::subscribe`] stays up to date.
    async fn observe(self: Arc<Self>, shutdown: CancellationToken);

    /// Returns every pod of this node of which anything is left.
    fn known_pods(&self) -> Vec<KnownPod>;

    fn subscribe(&self, uid: &str) -> watch::Receiver<Arc<Observed>>;

    /// Drops the state of a pod that has no subscribers any more.
    fn forget(&self, uid: &str);

    /// Whether the image is on this machine. A malformed name is an error.
    async fn has_image(&self, image: &str) -> Result<bool, ImageError>;

    async fn pull_image(&self, image: &str) -> Result<(), ImageError>;

    /// Makes a sandbox, in which containers can then be made.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError>;

    /// Starts a sandbox that has been made. Removes a sandbox that does not start.
    async fn start_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError>;

    /// Makes a container in a sandbox that has been made.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError>;

    /// Starts a container that has been made, in a sandbox that runs.
    async fn start_container(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError>;

    /// Changes the CPU and memory of a running container. Other limits stay as they are.
    async fn update_container(&self, id: &str, limits: &Limits) -> Result<(), RuntimeError>;

    /// Sends SIGTERM, and SIGKILL after `grace`. Zero kills at once. Returns when the container has ended.
    async fn stop_container(&self, pod: &PodRef, id: &str, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes ended containers or sandboxes.
    async fn remove(&self, pod: &PodRef, ids: &[String]) -> Result<(), RuntimeError>;

    async fn stop_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError>;

    /// Removes all containers and sandboxes of a pod, running or not.
    async fn remove_pod(&self, pod: &PodRef) -> Result<(), RuntimeError>;

    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult, RuntimeError>;

    /// Starts a command in a running container.
    async fn start_exec(&self, id: &str, command: &[String], streams: Streams) -> Result<Session, RuntimeError>;

    /// Attaches to the main process of a running container.
    async fn attach(&self, id: &str, streams: Streams) -> Result<Session, RuntimeError>;

    /// Connects to a port of a pod, as from a process inside it.
    async fn connect(&self, pod: &PodRef, port: u16) -> Result<TcpStream, RuntimeError>;

    async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream, RuntimeError>;
}

pub(crate) fn choose(config: &AgentConfig) -> Result<Arc<dyn Runtime>, RuntimeError> {
    Ok(match &config.runtime {
        RuntimeChoice::Docker { endpoint } => Arc::new(DockerRuntime::new(config, endpoint.as_deref())?),
        RuntimeChoice::Hollow => Arc::new(match &config.hollow_dir {
            Some(dir) => HollowRuntime::kept(&config.node_name, dir)?,
            None => HollowRuntime::new(&config.node_name),
        }),
    })
}
