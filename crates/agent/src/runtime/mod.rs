//! What pods run on: Docker, or nothing at all. Runtimes carry out; they decide nothing.

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
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, RuntimeChoice};
use crate::plan::{FailureReason, Observed, PodRef};

pub(crate) use docker::DockerFence;
pub use docker::DockerRuntime;
pub use hollow::HollowRuntime;

/// Why the runtime could not do something.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("cannot reach Docker at {endpoint}")]
    Unreachable { endpoint: String, source: bollard::errors::Error },
    #[error("Docker did not answer within {seconds} s while it was to {doing}")]
    TimedOut { doing: &'static str, seconds: u64 },
    #[error("{message}")]
    Docker { message: String, code: Option<u16> },
    #[error("the Docker engine at {endpoint} {message}")]
    Version { endpoint: String, message: String },
    #[error("no sandbox program for the processor {arch}")]
    Architecture { arch: &'static str },
    #[error("the container {id} is not known")]
    NoSuchContainer { id: String },
    #[error("cannot prepare {path}")]
    Host { path: PathBuf, source: std::io::Error },
    #[error("{message}")]
    Config { message: String },
}

impl RuntimeError {
    /// The waiting reason of a container that could not be made because of this.
    #[must_use]
    pub fn create_reason(&self) -> FailureReason {
        match self {
            RuntimeError::Config { .. } => FailureReason::CreateContainerConfigError,
            _ => FailureReason::CreateContainerError,
        }
    }
}

/// Why an image is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    pub reason: FailureReason,
    pub message: String,
}

/// A pod's network and host name.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    pub pod: PodRef,
    pub attempt: u32,
    pub hostname: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// The containers of the pod see the sandbox's process.
    pub shares_processes: bool,
    pub ports: Vec<HostPort>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
}

/// A port of the pod that the node opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A directory or file of the node inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    /// Docker's name: `rprivate`, `rslave` or `rshared`.
    pub propagation: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: i64,
    /// Microseconds of processor time in each 100 ms; 0 means no limit.
    pub cpu_quota: i64,
    /// Bytes; 0 means no limit.
    pub memory_bytes: i64,
    pub oom_score_adj: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// The image's user when `None`.
    pub user: Option<i64>,
    /// The user's own group when `None`.
    pub group: Option<i64>,
    pub groups: Vec<String>,
    /// The container is not started as the user 0, nor as one that may be it.
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

/// The kinds of protection that the engine can give on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub app_armor: bool,
    pub se_linux: bool,
    /// The engine filters system calls, by default as well.
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
    /// `NAME=value`.
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    pub mounts: Vec<BindMount>,
    pub limits: Limits,
    pub security: Security,
    pub host_pid: bool,
    /// The containers of the pod see each other's processes.
    pub share_processes: bool,
    /// Where the termination message is read from on this machine.
    pub message_file: Option<PathBuf>,
    /// Where the container writes it.
    pub message_path: String,
    /// An empty message is replaced by the end of the log when the container failed.
    pub message_from_logs: bool,
    /// `SIGTERM` or the image's own when `None`.
    pub stop_signal: Option<String>,
    pub stdin: bool,
    /// The input ends with the first client that was attached to it.
    pub stdin_once: bool,
    pub tty: bool,
}

/// What a command run inside a container gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    pub code: i64,
    /// The first 10 KiB of standard output and error.
    pub output: String,
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
    /// As in the Node object: `docker://20.10.24`.
    pub version: String,
}

/// A pod that the runtime holds something of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPod {
    pub pod: PodRef,
    pub sandbox_running: bool,
}

pub type LogStream = BoxStream<'static, Result<Bytes, RuntimeError>>;

/// When a call returns, [`Runtime::subscribe`] already shows what it did.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The scheme of container ids in statuses.
    fn scheme(&self) -> &'static str;

    /// Whether probes and hooks are to be taken as passed without being run.
    fn is_hollow(&self) -> bool {
        false
    }

    async fn info(&self) -> Result<RuntimeInfo, RuntimeError>;

    /// The protection that containers can be given, or `None` where none is started that could lack it.
    async fn capabilities(&self) -> Result<Option<Capabilities>, RuntimeError>;

    /// Looks at everything of this node anew.
    async fn relist(&self) -> Result<(), RuntimeError>;

    /// Keeps what [`Runtime::subscribe`] shows up to date until `shutdown`.
    async fn observe(self: Arc<Self>, shutdown: CancellationToken);

    /// Every pod of this node of which anything is left.
    fn known_pods(&self) -> Vec<KnownPod>;

    fn subscribe(&self, uid: &str) -> watch::Receiver<Arc<Observed>>;

    /// Nobody subscribes to this pod any more.
    fn forget(&self, uid: &str);

    /// Whether the image is on this machine. One whose name is malformed is an error.
    async fn has_image(&self, image: &str) -> Result<bool, ImageError>;

    async fn pull_image(&self, image: &str) -> Result<(), ImageError>;

    /// Makes a sandbox in which containers can be made.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError>;

    /// Starts a sandbox that has been made. One that does not start is removed.
    async fn start_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError>;

    /// Makes a container in a sandbox that has been made.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError>;

    /// Starts a container that has been made, in a sandbox that runs.
    async fn start_container(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError>;

    /// SIGTERM, then SIGKILL after `grace`. Zero kills at once. Returns when it has ended.
    async fn stop_container(&self, pod: &PodRef, id: &str, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes ended containers or sandboxes.
    async fn remove(&self, pod: &PodRef, ids: &[String]) -> Result<(), RuntimeError>;

    async fn stop_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError>;

    /// Removes all containers and sandboxes of a pod, running or not.
    async fn remove_pod(&self, pod: &PodRef) -> Result<(), RuntimeError>;

    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult, RuntimeError>;

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
