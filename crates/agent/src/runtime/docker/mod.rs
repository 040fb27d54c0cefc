//! Runs pods on a Docker engine. A sandbox container holds each pod's network, and the pod's containers join it.

mod capabilities;
mod connection;
mod create;
mod dial;
mod exec;
mod fence;
mod labels;
mod log_stream;
mod logs;
mod look;
mod observe;
mod pause;
mod process;
mod purge;
mod session;
mod table;
mod user;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error as DockerError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptions, InspectContainerOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StatsOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{Docker, body_full};
use futures::TryStreamExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(crate) use self::fence::STOP_TAKES;
pub(crate) use self::fence::{DockerFence, Running};
pub(crate) use self::process::{EngineProcess, engine_process};
pub use self::purge::remove_containers;

use self::connection::Connection;
use self::dial::DialError;
use self::labels::Owner;
use self::session::Sessions;
use self::table::{Container, Table};
use super::{
    Capabilities, ContainerSpec, ExecResult, ImageError, KnownPod, Limits, LogOptions, LogStream, Runtime,
    RuntimeError, RuntimeInfo, SandboxSpec, Session, Streams,
};
use crate::config::AgentConfig;
use crate::machine;
use crate::plan::{FailureReason, Observed, PodRef, Role, SandboxState};

const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";
/// Maximum time of a call to Docker, except stops and pulls.
const DEADLINE: Duration = Duration::from_secs(60);
/// Maximum time of a pull.
const PULL_DEADLINE: Duration = Duration::from_secs(600);
const CONCURRENT_INSPECTIONS: usize = 8;
/// Maximum number of concurrent inspections of containers that could not be inspected before. They have permits of their
/// own, because each may hang until its deadline.
const CONCURRENT_RETRIES: usize = 2;

/// The capabilities of the present engine.
#[derive(Default)]
struct Answered {
    /// Number of engines before. Another engine may answer after the stream of events has ended.
    engine: u64,
    capabilities: Option<Capabilities>,
}

/// [`Runtime`] over the Docker Engine API.
pub struct DockerRuntime {
    docker: Docker,
    connection: Connection,
    engine: logs::Engine,
    owner: Owner,
    network: String,
    min_oom_score: i64,
    table: Table,
    /// One permit for each concurrent inspection.
    inspections: Semaphore,
    retries: Semaphore,
    capabilities: parking_lot::Mutex<Answered>,
    /// One request for the capabilities at a time.
    asking: Mutex<()>,
    making_pause_image: Mutex<()>,
}

impl DockerRuntime {
    /// # Errors
    /// When the endpoint is malformed. Whether an engine answers is not checked here.
    pub fn new(config: &AgentConfig, endpoint: Option<&str>) -> Result<Self, RuntimeError> {
        let owner = Owner { cluster: config.cluster_id.clone(), node: config.node_name.clone() };
        DockerRuntime::of(owner, &config.pod_network, endpoint)
    }

    fn of(owner: Owner, network: &str, endpoint: Option<&str>) -> Result<Self, RuntimeError> {
        let connection = Connection::new(endpoint)?;
        Ok(DockerRuntime {
            docker: connection.docker.clone(),
            engine: logs::Engine::new(endpoint.unwrap_or(DEFAULT_ENDPOINT)),
            connection,
            owner,
            network: network.to_owned(),
            min_oom_score: min_oom_score(),
            table: Table::default(),
            inspections: Semaphore::new(CONCURRENT_INSPECTIONS),
            retries: Semaphore::new(CONCURRENT_RETRIES),
            capabilities: parking_lot::Mutex::default(),
            asking: Mutex::default(),
            making_pause_image: Mutex::default(),
        })
    }

    /// Imports the sandbox image, unless it exists.
    async fn ensure_pause_image(&self) -> Result<(), RuntimeError> {
        let _one_at_a_time = self.making_pause_image.lock().await;
        let reference = format!("{}:{}", pause::IMAGE, pause::TAG);
        if within("look for the sandbox image", self.docker.inspect_image(&reference)).await.is_ok() {
            return Ok(());
        }
        let arch = std::env::consts::ARCH;
        let machine = pause::Architecture::of(arch).ok_or(RuntimeError::Architecture { arch })?;
        let image = body_full(pause::image(machine).into());
        let import = self.docker.import_image(ImportImageOptions::default(), image, None);
        within("make the sandbox image", import.try_for_each(|_| std::future::ready(Ok(())))).await
    }

    /// Makes a container. Removes an unstarted container of the same name that an earlier agent has left behind.
    async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, RuntimeError> {
        let options = || Some(CreateContainerOptionsBuilder::default().name(name).build());
        let doing = "create the container";
        let created = within(doing, self.docker.create_container(options(), body.clone())).await;
        match created {
            Err(RuntimeError::Docker { code: Some(409), .. }) => {
                self.remove_container(name).await?;
                Ok(within(doing, self.docker.create_container(options(), body)).await?.id)
            }
            created => Ok(created?.id),
        }
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        within("start the container", self.docker.start_container(id, None::<StartContainerOptions>)).await
    }

    /// Removes a container, running or not. Succeeds if it is gone already.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        ignore_gone(within("remove the container", self.docker.remove_container(id, Some(options))).await)
    }

    /// Returns the user of a container, after checking it against `runAsNonRoot`.
    async fn user_of(&self, spec: &ContainerSpec) -> Result<Option<String>, RuntimeError> {
        let image = if user::depends_on_image(spec) {
            let image = within("inspect the image", self.docker.inspect_image(&spec.image)).await?;
            image.config.and_then(|config| config.user)
        } else {
            None
        };
        user::of(spec, image.as_deref()).map_err(|message| RuntimeError::Config { message })
    }
}

/// Returns the minimum OOM score adjustment of containers. A value below zero requires CAP_SYS_RESOURCE, without which
/// runc fails. Docker is assumed to have the capability if the agent has it; inside many containers neither does.
fn min_oom_score() -> i64 {
    if machine::may_lower_oom_score() { -1000 } else { 0 }
}

fn failed(doing: &'static str, error: DockerError) -> RuntimeError {
    match error {
        DockerError::DockerResponseServerError { status_code, message } => {
            RuntimeError::Docker { message, code: Some(status_code) }
        }
        error => RuntimeError::Docker { message: format!("cannot {doing}: {error}"), code: None },
    }
}

async fn within<T>(doing: &'static str, call: impl Future<Output = Result<T, DockerError>>) -> Result<T, RuntimeError> {
    within_limit(doing, DEADLINE, call).await
}

async fn within_limit<T>(
    doing: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(|error| failed(doing, error)),
        Err(_) => Err(RuntimeError::TimedOut { doing, seconds: limit.as_secs() }),
    }
}

/// Converts a grace period to Docker's whole seconds. It is rounded up, so that no container gets less.
fn whole_seconds(grace: Duration) -> i32 {
    i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

fn is_gone(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::Docker { code: Some(404), .. })
}

/// Treats a container that is absent, not running or being removed as a success.
fn ignore_gone(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(RuntimeError::Docker { code: Some(304 | 404 | 409), .. }) => Ok(()),
        result => result,
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn scheme(&self) -> &'static str {
        "docker"
    }

    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        let version = self.connection.negotiate().await?;
        Ok(RuntimeInfo { version: format!("docker://{version}") })
    }

    async fn capabilities(&self) -> Result<Option<Capabilities>, RuntimeError> {
        let _one_at_a_time = self.asking.lock().await;
        let engine = {
            let known = self.capabilities.lock();
            if known.capabilities.is_some() {
                return Ok(known.capabilities);
            }
            known.engine
        };
        let info = within("ask for the engine's settings", self.docker.info()).await?;
        let answer = Some(capabilities::of(&info.security_options.unwrap_or_default()));
        let mut known = self.capabilities.lock();
        if known.engine == engine {
            known.capabilities = answer;
        }
        Ok(answer)
    }

    async fn relist(&self) -> Result<(), RuntimeError> {
        self.list().await
    }

    async fn observe(self: Arc<Self>, shutdown: CancellationToken) {
        self.follow(shutdown).await;
    }

    fn known_pods(&self) -> Vec<KnownPod> {
        self.table.known()
    }

    fn subscribe(&self, uid: &str) -> watch::Receiver<Arc<Observed>> {
        self.table.subscribe(uid)
    }

    fn forget(&self, uid: &str) {
        self.table.forget(uid);
    }

    async fn has_image(&self, image: &str) -> Result<bool, ImageError> {
        if image.is_empty()
            || image.contains(char::is_whitespace)
            || image.contains(char::is_uppercase) && !image.contains(':')
        {
            let message = format!("Failed to apply default image tag \"{image}\": couldn't parse image name");
            return Err(ImageError { reason: FailureReason::InvalidImageName, message });
        }
        match within("inspect the image", self.docker.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(ImageError { reason: FailureReason::ErrImagePull, message: error.to_string() }),
        }
    }

    async fn pull_image(&self, image: &str) -> Result<(), ImageError> {
        let tagged = image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let reference = if tagged { image.to_owned() } else { format!("{image}:latest") };
        let options = CreateImageOptionsBuilder::default().from_image(&reference).build();
        let pull = self.docker.create_image(Some(options), None, None).try_for_each(|_| std::future::ready(Ok(())));
        let refused = |message: String| ImageError { reason: FailureReason::ErrImagePull, message };
        match tokio::time::timeout(PULL_DEADLINE, pull).await {
            Ok(pulled) => pulled.map_err(|error| refused(failed("pull the image", error).to_string())),
            Err(_) => Err(refused(format!("the pull took longer than {} s", PULL_DEADLINE.as_secs()))),
        }
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let body = create::sandbox(spec, &self.network, self.min_oom_score, self.owner.of_sandbox(spec));
        let name = labels::sandbox_name(spec);
        let id = match self.create(&name, body.clone()).await {
            // The image has not been imported yet, or was removed.
            Err(error) if is_gone(&error) => {
                self.ensure_pause_image().await?;
                self.create(&name, body).await?
            }
            created => created?,
        };
        self.inspect(&spec.pod.uid, &id).await
    }

    async fn start_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        let started = self.start(id).await;
        if started.is_err() {
            // A sandbox that did not start would count as a stopped one, and has nothing worth keeping.
            self.remove_container(id).await?;
        }
        self.inspect(&pod.uid, id).await?;
        started
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let user = self.user_of(spec).await?;
        let body = create::container(spec, user, self.min_oom_score, self.owner.of_container(spec));
        let name = labels::container_name(&spec.pod, &spec.name, spec.attempt);
        let id = self.create(&name, body).await?;
        self.inspect(&spec.pod.uid, &id).await
    }

    async fn start_container(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        let started = self.start(id).await;
        // A container that could not be started is shown too, as a failed attempt.
        self.inspect(&pod.uid, id).await?;
        started
    }

    async fn update_container(&self, id: &str, limits: &Limits) -> Result<(), RuntimeError> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        if limits.memory_bytes > 0 {
            // A limit below the usage may make the kernel kill the container instead of refusing the limit.
            let mut stats = std::pin::pin!(self.docker.stats(id, Some(options)));
            let stats = within("measure the container's memory", stats.try_next()).await?;
            let used = stats.and_then(|stats| stats.memory_stats?.usage).unwrap_or(0);
            let limit = u64::try_from(limits.memory_bytes).unwrap_or(0);
            if used > limit {
                let message = format!("the memory limit of {limit} bytes is below the {used} bytes in use");
                return Err(RuntimeError::Config { message });
            }
        }
        within("resize the container", self.docker.update_container(id, create::update(limits))).await
    }

    async fn stop_container(&self, pod: &PodRef, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let stopped = if grace.is_zero() {
            let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            within("kill the container", self.docker.kill_container(id, Some(options))).await
        } else {
            let options = StopContainerOptionsBuilder::default().t(whole_seconds(grace)).build();
            let stop = self.docker.stop_container(id, Some(options));
            within_limit("stop the container", grace + DEADLINE, stop).await
        };
        ignore_gone(stopped)?;
        // The container has been stopped even if it cannot be inspected.
        self.inspect_or_lose(&Container { pod: pod.clone(), id: id.to_owned(), role: Role::Container }).await;
        Ok(())
    }

    async fn remove(&self, pod: &PodRef, ids: &[String]) -> Result<(), RuntimeError> {
        for id in ids {
            self.remove_container(id).await?;
            self.table.remove(&pod.uid, id);
        }
        Ok(())
    }

    async fn stop_sandbox(&self, pod: &PodRef, id: &str) -> Result<(), RuntimeError> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        ignore_gone(within("stop the sandbox", self.docker.kill_container(id, Some(options))).await)?;
        self.inspect_or_lose(&Container { pod: pod.clone(), id: id.to_owned(), role: Role::Sandbox }).await;
        Ok(())
    }

    async fn remove_pod(&self, pod: &PodRef) -> Result<(), RuntimeError> {
        // The labels also find containers that the table does not know yet.
        let mut filters: HashMap<String, Vec<String>> = self.owner.filters();
        filters.entry("label".to_owned()).or_default().push(format!("io.kubernetes.pod.uid={}", pod.uid));
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let list = within("list the pod's containers", self.docker.list_containers(Some(options))).await?;
        let removals = list.into_iter().filter_map(|summary| summary.id).map(|id| async move {
            self.remove_container(&id).await?;
            self.table.remove(&pod.uid, &id);
            Ok(())
        });
        futures::future::try_join_all(removals).await?;
        let observed = self.table.observed(&pod.uid);
        for sandbox in &observed.sandboxes {
            self.table.remove(&pod.uid, &sandbox.id);
        }
        for record in &observed.containers {
            self.table.remove(&pod.uid, &record.id);
        }
        for id in observed.unknown.keys() {
            self.table.remove(&pod.uid, id);
        }
        Ok(())
    }

    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult, RuntimeError> {
        exec::run(&self.docker, id, command, timeout).await
    }

    async fn start_exec(&self, id: &str, command: &[String], streams: Streams) -> Result<Session, RuntimeError> {
        let prefix = self.connection.version_prefix();
        let sessions = Sessions { docker: &self.docker, engine: &self.engine, version_prefix: &prefix };
        sessions.exec(id, command, streams).await
    }

    async fn attach(&self, id: &str, streams: Streams) -> Result<Session, RuntimeError> {
        let prefix = self.connection.version_prefix();
        let sessions = Sessions { docker: &self.docker, engine: &self.engine, version_prefix: &prefix };
        sessions.attach(id, streams).await
    }

    async fn connect(&self, pod: &PodRef, port: u16) -> Result<TcpStream, RuntimeError> {
        let observed = self.table.observed(&pod.uid);
        let running = observed.sandboxes.iter().find(|sandbox| sandbox.state == SandboxState::Running);
        let sandbox = running.ok_or_else(|| RuntimeError::NoSandbox { pod: pod.clone() })?;
        let inspect = self.docker.inspect_container(&sandbox.id, None::<InspectContainerOptions>);
        let state = within("inspect the sandbox", inspect).await?.state;
        let pid = state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| RuntimeError::NoSandbox { pod: pod.clone() })?;
        let connected = match dial::inside(pid, sandbox.id.clone(), port).await {
            Err(DialError::Namespace(error)) => {
                tracing::debug!(%pod, %error, "a port is reached by the pod's address");
                dial::address(sandbox.ips.first().map_or("127.0.0.1", String::as_str), port).await
            }
            connected => connected,
        };
        connected.map_err(|error| {
            let (DialError::Namespace(source) | DialError::Connect(source)) = error;
            RuntimeError::Connect { pod: pod.clone(), port, source }
        })
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream, RuntimeError> {
        let inspect = self.docker.inspect_container(id, None::<InspectContainerOptions>);
        let container = within("inspect the container", inspect).await?;
        let is_terminal = container.config.and_then(|config| config.tty).unwrap_or(false);
        logs::read(&self.engine, &self.connection.version_prefix(), id, is_terminal, options).await
    }
}

#[cfg(test)]
pub(crate) mod fake;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods_are_rounded_up_to_seconds() {
        let cases = [(1, 1), (1000, 1), (2999, 3), (3000, 3), (29_950, 30)];
        for (millis, seconds) in cases {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
        assert_eq!(whole_seconds(Duration::MAX), i32::MAX);
    }
}
