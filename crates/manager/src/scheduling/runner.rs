//! The scheduler's loop on the leader: pop, decide, assume, bind. One task decides on one pod after another; bindings
//! are written concurrently.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use quorate_api::{GroupVersionResource, ObjectKey, Reason, Status};
use quorate_apiserver::LocalClient;
use quorate_controllers::EventType;
use quorate_controllers::cache::Object;
use quorate_scheduler::{Decision, PodInfo, schedule};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::events::{Record, Recorder};
use crate::guard;
use crate::scheduling::status::unschedulable_patch;

static PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");
const COMPONENT: &str = "default-scheduler";
/// Maximum number of attempts at a status update that conflicts with a newer pod.
const STATUS_ATTEMPTS: usize = 3;

#[derive(Clone)]
pub(crate) struct SchedulerRunner {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) client: LocalClient,
    pub(crate) recorder: Recorder,
    pub(crate) parallel_bindings: usize,
    pub(crate) request_timeout: Duration,
}

/// Write to make about one pod.
enum Outcome {
    Bind {
        pod: Arc<PodInfo>,
        node: Arc<str>,
    },
    Unschedulable {
        pod: Arc<PodInfo>,
        message: String,
    },
    /// The scheduling function panicked.
    Failed {
        pod: Arc<PodInfo>,
    },
}

impl SchedulerRunner {
    /// Runs until cancelled. Bindings in progress are then abandoned, and their assumptions undone.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        self.cluster.scheduling.lock().queue.restart();
        let mut writes = JoinSet::new();
        loop {
            while let Some(ended) = writes.try_join_next() {
                log_failure(ended);
            }
            while writes.len() < self.parallel_bindings {
                let Some(outcome) = self.decide() else { break };
                let (runner, shutdown) = (self.clone(), shutdown.clone());
                writes.spawn(async move { runner.write(outcome, &shutdown).await });
            }
            let full = writes.len() >= self.parallel_bindings;
            let deadline = self.cluster.scheduling.lock().queue.next_deadline();
            let due = deadline.map(|due| due.saturating_sub(self.cluster.now()));
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = writes.join_next() => log_failure(ended),
                () = self.cluster.scheduling_changed.notified(), if !full => {}
                () = tokio::time::sleep(due.unwrap_or(Duration::MAX)), if !full && due.is_some() => {}
            }
        }
        while let Some(ended) = writes.join_next().await {
            log_failure(ended);
        }
    }

    /// Takes the next pod and decides. A chosen node is already assumed in the snapshot when this returns.
    fn decide(&self) -> Option<Outcome> {
        let now = self.cluster.now();
        let mut scheduling = self.cluster.scheduling.lock();
        let pod = scheduling.queue.pop(now)?;
        let decision = guard::catch(COMPONENT, || schedule(&scheduling.snapshot, &pod, scheduling.cursor));
        let Some(decision) = decision else {
            scheduling.queue.retry(&pod.key, now);
            return Some(Outcome::Failed { pod });
        };
        scheduling.cursor.start = scheduling.cursor.start.wrapping_add(decision.evaluated());
        scheduling.cursor.seed = scheduling.cursor.seed.wrapping_add(1);
        Some(match decision {
            Decision::Bind { node, evaluated, feasible } => {
                scheduling.snapshot.assume(&pod, &node);
                tracing::debug!(pod = %pod.key, %node, evaluated, feasible, "node chosen");
                Outcome::Bind { pod, node }
            }
            Decision::Unschedulable(why) => {
                scheduling.queue.park(&pod.key, why.wake_on, now);
                tracing::debug!(pod = %pod.key, why = why.message, "no node");
                Outcome::Unschedulable { pod, message: why.message }
            }
        })
    }

    async fn write(&self, outcome: Outcome, shutdown: &CancellationToken) {
        match outcome {
            Outcome::Bind { pod, node } => {
                let result = shutdown.run_until_cancelled(self.bind(&pod, &node)).await;
                match result {
                    Some(Ok(())) => {
                        tracing::info!(pod = %pod.key, %node, "bound");
                        let message = format!("Successfully assigned {} to {node}", pod.key);
                        self.report(&pod, EventType::Normal, "Scheduled", message);
                    }
                    Some(Err(status)) => self.binding_failed(&pod, &node, &status),
                    None => self.forget(&pod),
                }
            }
            Outcome::Unschedulable { pod, message } => {
                let written = shutdown.run_until_cancelled(self.report_unschedulable(&pod, &message)).await;
                if let Some(Err(status)) = written {
                    tracing::warn!(pod = %pod.key, %status, "the pod's status could not be written");
                }
            }
            Outcome::Failed { pod } => {
                self.report(&pod, EventType::Warning, "FailedScheduling", "internal error; see the log".to_owned());
            }
        }
    }

    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), Status> {
        let binding = self.client.bind(&pod.key.namespace, &pod.key.name, &pod.uid, node);
        self.in_time(binding).await.map(drop)
    }

    fn binding_failed(&self, pod: &PodInfo, node: &str, status: &Status) {
        self.forget(pod);
        let mut scheduling = self.cluster.scheduling.lock();
        if status.reason == Reason::NotFound {
            // The pod was deleted meanwhile; the informer will report it too. A new pod of the same name has another
            // uid.
            if scheduling.queue.get(&pod.key).is_some_and(|queued| queued.uid == pod.uid) {
                scheduling.queue.remove(&pod.key);
            }
            tracing::debug!(pod = %pod.key, node, "the pod was gone before it was bound");
            return;
        }
        scheduling.queue.retry(&pod.key, self.cluster.now());
        drop(scheduling);
        tracing::warn!(pod = %pod.key, node, %status, "binding failed; retrying");
        self.report(pod, EventType::Warning, "FailedScheduling", format!("binding to {node} failed: {status}"));
    }

    /// Undoes the decision, which may make room for other pods.
    fn forget(&self, pod: &PodInfo) {
        let mut scheduling = self.cluster.scheduling.lock();
        let events = scheduling.snapshot.forget(&pod.key, &pod.uid);
        scheduling.queue.wake(events, self.cluster.now());
        drop(scheduling);
        self.cluster.scheduling_changed.notify_one();
    }

    /// Writes the condition, unless the pod already has it, and an event for each attempt. An event with the same
    /// message as the last one is only counted.
    async fn report_unschedulable(&self, info: &PodInfo, message: &str) -> Result<(), Status> {
        let (namespace, name) = (info.key.namespace.as_ref(), info.key.name.as_ref());
        let Some(mut pod) = self.cached(info) else { return Ok(()) };
        self.report(info, EventType::Warning, "FailedScheduling", message.to_owned());
        for attempt in 1..=STATUS_ATTEMPTS {
            let Some(patch) = unschedulable_patch(&pod, message, Timestamp::now()) else { return Ok(()) };
            let write = self.client.patch_merge(&PODS, Some(namespace), name, Some("status"), patch);
            match self.in_time(write).await {
                Ok(_) => {
                    tracing::info!(pod = %info.key, why = message, "unschedulable");
                    return Ok(());
                }
                Err(status) if status.reason == Reason::NotFound => return Ok(()),
                Err(status) if status.reason == Reason::Conflict && attempt < STATUS_ATTEMPTS => {}
                Err(status) => return Err(status),
            }
            let newest = self.in_time(self.client.get(&PODS, Some(namespace), name)).await?;
            let newest: Pod = serde_json::from_value(newest).map_err(Status::internal)?;
            let bound = newest.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            if bound || newest.metadata.uid.as_deref() != Some(&info.uid) {
                return Ok(());
            }
            pod = newest;
        }
        Ok(())
    }

    /// Returns the pod from the cache; `None` when it is gone or has another uid.
    fn cached(&self, info: &PodInfo) -> Option<Pod> {
        let key = ObjectKey {
            group: String::new(),
            resource: "pods".to_owned(),
            namespace: Some(info.key.namespace.to_string()),
            name: info.key.name.to_string(),
        };
        let cache = self.cluster.cache();
        match &cache.get(&key)?.object {
            Object::Pod(pod) if pod.metadata.uid.as_deref() == Some(&info.uid) => Some(Pod::clone(pod)),
            _ => None,
        }
    }

    fn report(&self, pod: &PodInfo, event_type: EventType, reason: &str, message: String) {
        let regarding = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.key.namespace.as_ref(),
            "name": pod.key.name.as_ref(),
            "uid": pod.uid.as_ref(),
        });
        let component = COMPONENT.to_owned();
        self.recorder.record(Record { component, regarding, event_type, reason: reason.to_owned(), message });
    }

    async fn in_time(&self, request: impl Future<Output = Result<Value, Status>>) -> Result<Value, Status> {
        match tokio::time::timeout(self.request_timeout, request).await {
            Ok(result) => result,
            Err(_) => Err(Status::new(Reason::Timeout, "the request timed out")),
        }
    }
}

fn log_failure(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task that writes a binding failed");
    }
}
