//! Executes one action of a pod's plan and returns its outcome.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use crate::admission;
use crate::checkpoint::pod_dir;
use crate::cluster::ClusterError;
use crate::context::Context;
use crate::env::{self, Facts};
use crate::events::Note;
use crate::gate::Stage;
use crate::hosts;
use crate::plan::{
    self, Action, Completion, ContainerKind, FailureReason, Grace, Observed, Outcome, PodRef, ProbeKind, StopCause,
};
use crate::probes::Target;
use crate::runtime::{BindMount, ImageError, RuntimeError};
use crate::seccomp;
use crate::specs::{self, PullPolicy};
use crate::volumes;

/// Maximum duration of a postStart hook.
const POST_START_LIMIT: Duration = Duration::from_secs(600);

/// Inputs of an action, as they were when it was planned.
pub(crate) struct Task {
    pub context: Arc<Context>,
    pub pod: Arc<Pod>,
    pub observed: Arc<Observed>,
    /// The status that was computed together with the action.
    pub status: PodStatus,
}

struct Failed {
    reason: FailureReason,
    message: String,
}

impl Failed {
    fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Failed { reason, message: message.into() }
    }

    fn runtime(error: &RuntimeError) -> Self {
        Failed::new(FailureReason::Other, error.to_string())
    }
}

impl Task {
    pub(crate) async fn run(self, action: Action) -> Completion {
        let reference = plan::pod_ref(&self.pod);
        let outcome = match self.execute(&reference, &action).await {
            Ok(outcome) => outcome,
            Err(Failed { reason, message }) => {
                tracing::debug!(pod = %reference, ?action, %message, "an action failed");
                Outcome::Failed { reason, message }
            }
        };
        for note in notes_of(&self.pod, &action, &outcome) {
            self.context.recorder.record(&reference, note);
        }
        Completion { action, outcome }
    }

    async fn execute(&self, pod: &PodRef, action: &Action) -> Result<Outcome, Failed> {
        let runtime = &self.context.runtime;
        let plain = |result: Result<(), RuntimeError>| match result {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => Err(Failed::runtime(&error)),
        };
        match action {
            Action::PrepareVolumes => self.prepare_volumes().await,
            Action::EnsureImage { container, image } => self.ensure_image(pod, container, image).await,
            Action::CreateSandbox { attempt } => {
                let _permit = self.context.gate.pass(Stage::CreateSandbox).await;
                let made = runtime.create_sandbox(&specs::sandbox(&self.pod, *attempt)).await;
                made.map_err(|error| Failed::new(FailureReason::FailedSandbox, error.to_string()))?;
                Ok(Outcome::Done)
            }
            Action::StartSandbox { id } => {
                let _permit = self.context.gate.pass(Stage::StartSandbox).await;
                self.admit(pod, FailureReason::FailedSandbox).await?;
                let started = runtime.start_sandbox(pod, id).await;
                started.map_err(|error| Failed::new(FailureReason::FailedSandbox, error.to_string()))?;
                Ok(Outcome::Done)
            }
            Action::CreateContainer { container, attempt, sandbox_id } => {
                self.create_container(pod, container, *attempt, sandbox_id).await
            }
            Action::StartContainer { container, id, .. } => {
                self.check_mounts(pod, container, id).await?;
                self.update_hosts(container).await?;
                let _permit = self.context.gate.pass(Stage::StartContainer).await;
                self.admit(pod, FailureReason::Other).await?;
                let started = runtime.start_container(pod, id).await;
                started.map_err(|error| Failed::new(FailureReason::RunContainerError, error.to_string()))?;
                Ok(Outcome::Done)
            }
            Action::ResizeContainer { container, id, .. } => {
                let (container, _) = self.container(container)?;
                plain(runtime.update_container(id, &specs::limits(&self.pod, &container, &self.context.machine)).await)
            }
            Action::RunPostStart { container, id } => self.post_start(container, id).await,
            Action::RunProbe { container, id, kind } => self.probe(container, id, *kind).await,
            Action::RunPreStop { container, id, grace } => {
                self.pre_stop(pod, container, id, *grace).await;
                Ok(Outcome::Done)
            }
            Action::StopContainer { container, id, grace, pre_stop, why, cause } => {
                let note = about(&self.pod, Note::normal("Killing", why.as_str()), container);
                self.context.recorder.record(pod, note);
                if *cause == StopCause::Fenced
                    && let Err(error) = self.context.fence.mark(&pod.uid, id).await
                {
                    // The stop is more urgent than its record.
                    tracing::warn!(%pod, %id, error = %error, "cannot mark a container as stopped by its fence");
                }
                let grace = grace.begun(Timestamp::now());
                if *pre_stop {
                    self.pre_stop(pod, container, id, grace).await;
                }
                plain(runtime.stop_container(pod, id, grace.for_stop(Timestamp::now())).await)
            }
            Action::StopUnknown { id, grace } => {
                let now = Timestamp::now();
                plain(runtime.stop_container(pod, id, grace.begun(now).for_stop(now)).await)
            }
            Action::MarkFenced { id } => {
                let marked = self.context.fence.mark(&pod.uid, id).await;
                marked.map_err(|error| Failed::new(FailureReason::Other, format!("cannot mark a stop: {error}")))?;
                Ok(Outcome::Done)
            }
            Action::RemoveHistory { ids } => plain(runtime.remove(pod, ids).await),
            Action::StopSandbox { id } => plain(runtime.stop_sandbox(pod, id).await),
            Action::RemovePod => {
                plain(runtime.remove_pod(pod).await)?;
                let cleaned = volumes::clean_up(&self.context.data_dir, &pod.uid).await;
                cleaned
                    .map_err(|error| Failed::new(FailureReason::Other, format!("cannot remove volumes: {error}")))?;
                Ok(Outcome::Done)
            }
            Action::DeleteFromApi => self.delete_from_api(pod).await,
        }
    }

    /// Refuses to start anything of a fenced pod that may run on another node already.
    async fn admit(&self, pod: &PodRef, reason: FailureReason) -> Result<(), Failed> {
        self.context.fence.admit(&pod.uid).await.map_err(|error| Failed::new(reason, error.to_string()))
    }

    fn container(&self, name: &str) -> Result<(Cow<'_, Container>, ContainerKind), Failed> {
        plan::find_container(&self.pod, name)
            .ok_or_else(|| Failed::new(FailureReason::Other, format!("the pod has no container {name}")))
    }

    fn facts<'a>(&'a self, ips: &'a [String]) -> Facts<'a> {
        let context = &self.context;
        Facts { pod: &self.pod, pod_ips: ips, host_ip: &context.facts.host_ip, machine: &context.machine }
    }

    fn ips(&self) -> Vec<String> {
        let host_network = self.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        match self.observed.sandbox() {
            _ if host_network => vec![self.context.facts.host_ip.clone()],
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        }
    }

    async fn prepare_volumes(&self) -> Result<Outcome, Failed> {
        if self.context.runtime.is_hollow() {
            return Ok(Outcome::Done);
        }
        let mount = |message: String| Failed::new(FailureReason::FailedMount, message);
        let wanted = volumes::references(&self.pod);
        let fetched = self.context.objects.fetch(&wanted).await.map_err(|error| mount(error.to_string()))?;
        let ips = self.ips();
        let prepared = self.context.volumes.prepare(&fetched.objects, self.facts(&ips)).await;
        prepared.map_err(|error| mount(error.to_string()))?;
        Ok(match fetched.unreachable {
            None => Outcome::Done,
            Some(error) => {
                tracing::debug!(pod = %plan::pod_ref(&self.pod), error = %error, "volumes show the last known content");
                Outcome::Remembered { message: error.to_string() }
            }
        })
    }

    async fn ensure_image(&self, pod: &PodRef, name: &str, image: &str) -> Result<Outcome, Failed> {
        let (container, kind) = self.container(name)?;
        let refused = |error: ImageError| Failed::new(error.reason, error.message);
        let record =
            |reason, message| self.context.recorder.record(pod, Note::normal(reason, message).about(name, kind));
        let policy = specs::pull_policy(&container);
        let present = self.context.runtime.has_image(image).await.map_err(refused)?;
        match policy {
            PullPolicy::Never | PullPolicy::IfNotPresent if present => {
                record("Pulled", format!("Container image \"{image}\" already present on machine"));
            }
            PullPolicy::Never => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                return Err(Failed::new(FailureReason::ErrImageNeverPull, message));
            }
            PullPolicy::Always | PullPolicy::IfNotPresent => {
                record("Pulling", format!("Pulling image \"{image}\""));
                let begun = Instant::now();
                self.context.runtime.pull_image(image).await.map_err(refused)?;
                record("Pulled", format!("Successfully pulled image \"{image}\" in {:.3?}", begun.elapsed()));
            }
        }
        Ok(Outcome::Done)
    }

    async fn create_container(&self, pod: &PodRef, name: &str, attempt: u32, sandbox: &str) -> Result<Outcome, Failed> {
        let (container, kind) = self.container(name)?;
        let config = |message: String| Failed::new(FailureReason::CreateContainerConfigError, message);
        self.admit_ephemeral(pod, &container, kind).await?;
        let wanted = env::references(&pod.namespace, &container);
        let mut objects = if self.context.runtime.is_hollow() {
            Ok(env::Referenced::default())
        } else {
            let fetched = self.context.objects.fetch(&wanted).await.map_err(|error| config(error.to_string()))?;
            Ok(fetched.objects)
        }?;
        if !self.context.runtime.is_hollow() {
            objects.services = self.context.services.variables(&self.pod).await.map_err(|e| config(e.to_string()))?;
        }
        let ips = self.ips();
        let variables = if self.context.runtime.is_hollow() {
            Vec::new()
        } else {
            env::resolve(&pod.namespace, &container, &objects, self.facts(&ips)).map_err(|e| config(e.to_string()))?
        };
        let by_name = variables.iter().cloned().collect();
        let prepared = specs::Prepared {
            attempt,
            sandbox_id: sandbox.to_owned(),
            mounts: self.mounts(&container, &by_name, &ips).await?,
            variables,
            seccomp_profile: self.seccomp_profile(&container).await?,
            message_file: self.message_file(pod, name, attempt).await?,
            process_target: self.process_target(name)?,
        };
        let spec = specs::container(&self.pod, &container, kind, prepared, &self.context.machine);
        let _permit = self.context.gate.pass(Stage::CreateContainer).await;
        let created = self.context.runtime.create_container(&spec).await;
        created.map_err(|error| Failed::new(error.create_reason(), error.to_string()))?;
        self.context
            .recorder
            .record(pod, Note::normal("Created", format!("Created container: {name}")).about(name, kind));
        Ok(Outcome::Done)
    }

    /// Refuses an ephemeral container that asks for something this node does not support. The pod itself was admitted
    /// before, and keeps running.
    async fn admit_ephemeral(&self, pod: &PodRef, container: &Container, kind: ContainerKind) -> Result<(), Failed> {
        if kind != ContainerKind::Ephemeral {
            return Ok(());
        }
        let config = |message: String| Failed::new(FailureReason::CreateContainerConfigError, message);
        let capabilities = self.context.runtime.capabilities().await.map_err(|error| config(error.to_string()))?;
        let Some(capabilities) = capabilities else { return Ok(()) };
        let verdict = admission::examine_ephemeral(&self.pod, container, &capabilities);
        for message in verdict.unenforced {
            self.context.recorder.record(pod, Note::warning("Unenforced", message).about(&container.name, kind));
        }
        verdict.rejection.map_or(Ok(()), |rejection| Err(config(rejection.message)))
    }

    /// Returns the id of the running container that an ephemeral container targets.
    fn process_target(&self, name: &str) -> Result<Option<String>, Failed> {
        let Some(target) = plan::ephemeral_target(&self.pod, name) else { return Ok(None) };
        match self.observed.latest(target).filter(|record| record.is_running()) {
            Some(record) => Ok(Some(record.id.clone())),
            None => {
                let message = format!("the target container {target} is not running");
                Err(Failed::new(FailureReason::CreateContainerConfigError, message))
            }
        }
    }

    async fn mounts(
        &self,
        container: &Container,
        variables: &BTreeMap<String, String>,
        ips: &[String],
    ) -> Result<Vec<BindMount>, Failed> {
        if self.context.runtime.is_hollow() {
            return Ok(Vec::new());
        }
        let config = |message: String| Failed::new(FailureReason::CreateContainerConfigError, message);
        let mounts = self.context.volumes.bind_mounts(&self.pod, container, variables).await;
        let mut mounts = mounts.map_err(|error| config(error.to_string()))?;
        let hosts = hosts::mount(&self.context.data_dir, &self.pod, container, ips).await;
        mounts.extend(hosts.map_err(|error| config(format!("cannot write the pod's hosts file: {error}")))?);
        Ok(mounts)
    }

    /// Fails when a mount of the container is gone, as after a reboot. The container and its mounts are then remade.
    async fn check_mounts(&self, pod: &PodRef, name: &str, id: &str) -> Result<(), Failed> {
        if self.context.runtime.is_hollow() {
            return Ok(());
        }
        let (container, _) = self.container(name)?;
        let failed = |message: String| Failed::new(FailureReason::CreateContainerError, message);
        let in_place = self.context.volumes.in_place(&self.pod, &container).await;
        if in_place.map_err(|error| failed(format!("cannot check the mounts of the container: {error}")))? {
            return Ok(());
        }
        self.context.runtime.remove(pod, &[id.to_owned()]).await.map_err(|error| failed(error.to_string()))?;
        Err(failed("a volume of the container is no longer mounted: the container will be created again".to_owned()))
    }

    /// Writes the hosts file again: the container may have been made before the pod's address was known.
    async fn update_hosts(&self, name: &str) -> Result<(), Failed> {
        if self.context.runtime.is_hollow() {
            return Ok(());
        }
        let (container, _) = self.container(name)?;
        let updated = hosts::update(&self.context.data_dir, &self.pod, &container, &self.ips()).await;
        updated.map_err(|error| {
            let message = format!("cannot write the pod's hosts file: {error}");
            Failed::new(FailureReason::CreateContainerError, message)
        })
    }

    /// Reads the file of a Localhost seccomp profile.
    async fn seccomp_profile(&self, container: &Container) -> Result<Option<String>, Failed> {
        let Some(file) = specs::seccomp_file(&self.pod, container).map(str::to_owned) else { return Ok(None) };
        if self.context.runtime.is_hollow() {
            return Ok(None);
        }
        let config = |message: String| Failed::new(FailureReason::CreateContainerConfigError, message);
        let data_dir = self.context.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || seccomp::read(&data_dir, &file)).await;
        let read = read.map_err(|error| config(error.to_string()))?;
        read.map(Some).map_err(|error| config(error.to_string()))
    }

    /// Makes an empty file for the container's termination message.
    async fn message_file(&self, pod: &PodRef, name: &str, attempt: u32) -> Result<Option<PathBuf>, Failed> {
        if self.context.runtime.is_hollow() {
            return Ok(None);
        }
        let dir = pod_dir(&self.context.data_dir, &pod.uid).join("messages");
        let path = dir.join(format!("{name}-{attempt}"));
        let make = async {
            tokio::fs::create_dir_all(&dir).await?;
            tokio::fs::write(&path, b"").await?;
            let writable = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            tokio::fs::set_permissions(&path, writable).await
        };
        match make.await {
            Ok(()) => Ok(Some(path)),
            Err(error) => {
                let message = format!("cannot make {}: {error}", path.display());
                Err(Failed::new(FailureReason::CreateContainerError, message))
            }
        }
    }

    async fn post_start(&self, name: &str, id: &str) -> Result<Outcome, Failed> {
        let (container, _) = self.container(name)?;
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(Outcome::Done) };
        let ip = self.ips().into_iter().next().unwrap_or_default();
        let target = Target { container: &container, container_id: id, pod_ip: &ip };
        let report = self.context.prober.hook(target, hook, POST_START_LIMIT).await;
        if report.healthy { Ok(Outcome::Done) } else { Err(Failed::new(FailureReason::FailedPostStart, report.output)) }
    }

    async fn probe(&self, name: &str, id: &str, kind: ProbeKind) -> Result<Outcome, Failed> {
        let (container, _) = self.container(name)?;
        let Some(probe) = plan::probe_of(&container, kind) else { return Ok(Outcome::Done) };
        let ip = self.ips().into_iter().next().unwrap_or_default();
        let report =
            self.context.prober.probe(Target { container: &container, container_id: id, pod_ip: &ip }, probe).await;
        Ok(Outcome::Probed { healthy: report.healthy, output: report.output })
    }

    /// Runs the preStop hook, if there is one, for at most the grace period. The container is stopped even if it fails.
    async fn pre_stop(&self, pod: &PodRef, name: &str, id: &str, grace: Grace) {
        let Some((container, kind)) = plan::find_container(&self.pod, name) else { return };
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let limit = grace.for_hook(Timestamp::now());
        let Some(hook) = hook.filter(|_| !limit.is_zero()) else { return };
        let ip = self.ips().into_iter().next().unwrap_or_default();
        let report = self
            .context
            .prober
            .hook(Target { container: &container, container_id: id, pod_ip: &ip }, hook, limit)
            .await;
        if !report.healthy {
            let note = Note::warning("FailedPreStopHook", format!("PreStopHook failed: {}", report.output));
            self.context.recorder.record(pod, note.about(name, kind));
        }
    }

    /// Reports the last status before the object is deleted, so that watchers see how the pod ended.
    async fn delete_from_api(&self, pod: &PodRef) -> Result<Outcome, Failed> {
        self.context.reporter.forget(pod);
        let gone = |error: &ClusterError| error.is_not_found() || error.is_conflict();
        let cluster = &self.context.cluster;
        match cluster.report_pod(pod, &self.status).await {
            Err(error) if gone(&error) => return Ok(Outcome::Done),
            Err(error @ ClusterError::Unreachable(_)) => {
                return Err(Failed::new(FailureReason::Other, error.to_string()));
            }
            Err(error) => tracing::warn!(pod = %pod, error = %error, "the masters refused the last status of a pod"),
            Ok(()) => {}
        }
        match cluster.release_pod(pod).await {
            Err(error) if !gone(&error) => Err(Failed::new(FailureReason::Other, error.to_string())),
            Ok(()) | Err(_) => Ok(Outcome::Done),
        }
    }
}

/// Returns the event about the container of that name.
fn about(pod: &Pod, note: Note, name: &str) -> Note {
    note.about(name, plan::find_container(pod, name).map_or(ContainerKind::Main, |(_, kind)| kind))
}

/// Returns the events that report an action's outcome, as the kubelet does.
fn notes_of(pod: &Pod, action: &Action, outcome: &Outcome) -> Vec<Note> {
    let about = |note: Note, name: &str| about(pod, note, name);
    match (action, outcome) {
        (Action::StartContainer { container, .. }, Outcome::Done) => {
            vec![about(Note::normal("Started", format!("Started container {container}")), container)]
        }
        (
            Action::CreateContainer { container, .. } | Action::StartContainer { container, .. },
            Outcome::Failed { message, .. },
        ) => vec![about(Note::warning("Failed", format!("Error: {message}")), container)],
        (Action::EnsureImage { container, image }, Outcome::Failed { reason, message }) => {
            let why = match reason {
                FailureReason::ErrImageNeverPull => Note::warning("ErrImageNeverPull", message.clone()),
                FailureReason::InvalidImageName => Note::warning("InspectFailed", message.clone()),
                _ => Note::warning("Failed", format!("Failed to pull image \"{image}\": {message}")),
            };
            let failed = Note::warning("Failed", format!("Error: {}", reason.as_str()));
            vec![about(why, container), about(failed, container)]
        }
        (Action::ResizeContainer { container, .. }, Outcome::Done) => {
            vec![about(Note::normal("ResizeCompleted", format!("Resized container {container}")), container)]
        }
        (Action::ResizeContainer { container, .. }, Outcome::Failed { message, .. }) => {
            let message = format!("Cannot resize container {container}: {message}");
            vec![about(Note::warning("ResizeError", message), container)]
        }
        (Action::PrepareVolumes, Outcome::Failed { message, .. }) => {
            vec![Note::warning("FailedMount", message.clone())]
        }
        (Action::CreateSandbox { .. } | Action::StartSandbox { .. }, Outcome::Failed { message, .. }) => {
            vec![Note::warning("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"))]
        }
        (Action::RunPostStart { container, .. }, Outcome::Failed { message, .. }) => {
            vec![about(Note::warning("FailedPostStartHook", format!("PostStartHook failed: {message}")), container)]
        }
        (Action::RunProbe { container, kind, .. }, Outcome::Probed { healthy: false, output }) => {
            vec![about(Note::warning("Unhealthy", format!("{} probe failed: {output}", kind.title())), container)]
        }
        _ => Vec::new(),
    }
}

/// Returns an event for each container that has entered its backoff, of a crash or of an image pull.
pub(crate) fn back_off_notes(pod: &Pod, before: &PodStatus, after: &PodStatus) -> Vec<Note> {
    let reference = plan::pod_ref(pod);
    fn lists(status: &PodStatus) -> [Option<&Vec<ContainerStatus>>; 3] {
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
            .map(Option::as_ref)
    }
    let reason = |status: &PodStatus, name: &str| {
        let found = lists(status).into_iter().flatten().flatten().find(|container| container.name == name)?;
        found.state.as_ref()?.waiting.as_ref()?.reason.clone()
    };
    let containers = lists(after).into_iter().flatten().flatten();
    let notes = containers.flat_map(|container| {
        let now = reason(after, &container.name).filter(|now| reason(before, &container.name).as_ref() != Some(now));
        let notes = match now.as_deref() {
            Some("CrashLoopBackOff") => vec![Note::warning(
                "BackOff",
                format!("Back-off restarting failed container {} in pod {reference}", container.name),
            )],
            Some("ImagePullBackOff") => vec![
                Note::normal("BackOff", format!("Back-off pulling image \"{}\"", container.image)),
                Note::warning("Failed", "Error: ImagePullBackOff"),
            ],
            _ => Vec::new(),
        };
        notes.into_iter().map(move |note| about(pod, note, &container.name))
    });
    notes.collect()
}
