//! Events about pods. An event that happens again is counted instead of being created anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::plan::{ContainerKind, PodRef};

/// Maximum number of events that wait for a master. More are dropped, since events are best effort.
const QUEUE: usize = 1024;
/// Maximum number of different events that are remembered for counting.
const REMEMBERED: usize = 1024;
const ATTEMPTS: u32 = 3;

/// The content of one event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// `spec.containers{name}`, for an event about one container.
    pub field_path: Option<String>,
}

impl Note {
    pub(crate) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Note { warning: false, reason, message: message.into(), field_path: None }
    }

    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Note { warning: true, ..Note::normal(reason, message) }
    }

    pub(crate) fn about(self, container: &str, kind: ContainerKind) -> Self {
        Note { field_path: Some(format!("spec.{}{{{container}}}", kind.list())), ..self }
    }
}

/// Queues events without ever blocking.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<(PodRef, Note, Timestamp)>,
}

impl Recorder {
    pub(crate) fn record(&self, pod: &PodRef, note: Note) {
        if let Err(error) = self.queue.try_send((pod.clone(), note, Timestamp::now())) {
            tracing::debug!(error = %error, "the queue of events is full; one was dropped");
        }
    }
}

/// The task that sends events to the masters.
pub(crate) struct Sender {
    queue: mpsc::Receiver<(PodRef, Note, Timestamp)>,
    cluster: Arc<dyn Cluster>,
    node_name: String,
    sent: HashMap<(PodRef, Note), Event>,
}

pub(crate) fn channel(cluster: Arc<dyn Cluster>, node_name: &str) -> (Recorder, Sender) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let sender_task = Sender { queue, cluster, node_name: node_name.to_owned(), sent: HashMap::new() };
    (Recorder { queue: sender }, sender_task)
}

impl Sender {
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return,
                next = self.queue.recv() => next,
            };
            let Some((pod, note, at)) = next else { return };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.send(pod, note, at) => {}
            }
        }
    }

    async fn send(&mut self, pod: PodRef, note: Note, at: Timestamp) {
        let key = (pod, note);
        if let Some(known) = self.sent.get_mut(&key) {
            known.count = known.count.map(|count| count + 1);
            known.last_timestamp = Some(Time(at));
            match self.cluster.repeat_event(known).await {
                Ok(()) => return,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(error = %error, "an event could not be counted");
                    return;
                }
            }
        }
        let event = self.event(&key.0, &key.1, at);
        for attempt in 1..=ATTEMPTS {
            match self.cluster.create_event(&event).await {
                Ok(()) => break,
                Err(error) if error.is_conflict() => break,
                Err(error) if error.code().is_some() || attempt == ATTEMPTS => {
                    tracing::debug!(error = %error, "an event could not be sent");
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        if self.sent.len() >= REMEMBERED {
            self.sent.clear();
        }
        self.sent.insert(key, event);
    }

    fn event(&self, pod: &PodRef, note: &Note, at: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                // The kubelet's form of a name: it sorts by time, also within one second.
                name: Some(format!("{}.{:x}", pod.name, at.as_nanosecond())),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(pod.uid.clone()),
                field_path: note.field_path.clone(),
                resource_version: None,
            },
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.to_owned()),
            message: Some(note.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(at)),
            last_timestamp: Some(Time(at)),
            source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(self.node_name.clone()) }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node_name.clone()),
            ..Event::default()
        }
    }
}
