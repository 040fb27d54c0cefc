//! The recorder accepts reports without making the reporter wait, and the writer writes them as Events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use quorate_api::{GroupVersionResource, Reason, Status};
use quorate_apiserver::LocalClient;
use quorate_controllers::EventType;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events::correlator::{Correlator, Write};

pub(crate) static EVENTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "events");

/// Maximum number of reports that wait to be written; further reports are dropped.
const BACKLOG: usize = 4096;
/// Maximum number of writes in progress at a time.
const PARALLEL_WRITES: usize = 16;

/// Report about an object.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Reporting component.
    pub(crate) component: String,
    /// The object, as an ObjectReference.
    pub(crate) regarding: Value,
    pub(crate) event_type: EventType,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Handle of the reporters. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Record>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Queues the report, or drops it when too many wait.
    pub(crate) fn record(&self, record: Record) {
        if self.sender.try_send(record).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "events were dropped, because they arrive faster than they can be written");
            }
        }
    }
}

/// Task that writes the Events.
pub(crate) struct EventWriter {
    receiver: mpsc::Receiver<Record>,
    client: LocalClient,
    request_timeout: Duration,
}

impl EventWriter {
    pub(crate) fn new(client: LocalClient, request_timeout: Duration) -> (Recorder, EventWriter) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Recorder { sender, dropped: Arc::default() }, EventWriter { receiver, client, request_timeout })
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut correlator = Correlator::default();
        let mut writes = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = writes.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task that writes an event failed");
                    }
                }
                record = self.receiver.recv(), if writes.len() < PARALLEL_WRITES => {
                    let Some(record) = record else { break };
                    let Some(write) = correlator.correlate(&record, Timestamp::now()) else { continue };
                    let (client, timeout) = (self.client.clone(), self.request_timeout);
                    writes.spawn(async move { perform(&client, write, timeout).await });
                }
            }
        }
        writes.shutdown().await;
    }
}

async fn perform(client: &LocalClient, write: Write, timeout: Duration) {
    let result = match tokio::time::timeout(timeout, send(client, write)).await {
        Ok(result) => result,
        Err(_) => Err(Status::new(Reason::Timeout, "the request timed out")),
    };
    if let Err(status) = result {
        tracing::debug!(%status, "an event could not be written");
    }
}

async fn send(client: &LocalClient, write: Write) -> Result<(), Status> {
    match write {
        Write::Create { namespace, event } => client.create(&EVENTS, Some(&namespace), event).await.map(drop),
        Write::Count { namespace, name, patch, event } => {
            match client.patch_merge(&EVENTS, Some(&namespace), &name, None, patch).await {
                Err(status) if status.reason == Reason::NotFound => {
                    client.create(&EVENTS, Some(&namespace), event).await.map(drop)
                }
                result => result.map(drop),
            }
        }
    }
}
