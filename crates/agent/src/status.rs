//! Sends pod statuses to the masters: the latest one of each pod, retried until a master accepts it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::PodStatus;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterError};
use crate::plan::PodRef;

/// Maximum number of concurrent requests.
const CONCURRENT_REPORTS: usize = 16;
const RETRY_DELAY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Pending {
    waiting: Mutex<HashMap<PodRef, PodStatus>>,
    changed: Notify,
}

/// The side of the workers: takes their pods' statuses.
#[derive(Clone)]
pub(crate) struct Reporter {
    pending: Arc<Pending>,
}

impl Reporter {
    /// Replaces the pod's status that has not been sent yet.
    pub(crate) fn publish(&self, pod: &PodRef, status: PodStatus) {
        self.pending.waiting.lock().insert(pod.clone(), status);
        self.pending.changed.notify_one();
    }

    /// Drops the unsent status of a pod that is gone.
    pub(crate) fn forget(&self, pod: &PodRef) {
        self.pending.waiting.lock().remove(pod);
    }
}

/// The task that sends statuses.
pub(crate) struct Sender {
    pending: Arc<Pending>,
    cluster: Arc<dyn Cluster>,
}

pub(crate) fn channel(cluster: Arc<dyn Cluster>) -> (Reporter, Sender) {
    let pending = Arc::new(Pending::default());
    (Reporter { pending: Arc::clone(&pending) }, Sender { pending, cluster })
}

impl Sender {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut sending = FuturesUnordered::new();
        let mut busy: Vec<PodRef> = Vec::new();
        loop {
            while sending.len() < CONCURRENT_REPORTS {
                let Some((pod, status)) = self.take(&busy) else { break };
                busy.push(pod.clone());
                sending.push(self.send(pod, status));
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.pending.changed.notified() => {}
                Some(pod) = sending.next() => busy.retain(|other| *other != pod),
            }
        }
    }

    /// Takes the next status of a pod that has no request in flight, because statuses of one pod must not overtake each
    /// other.
    fn take(&self, busy: &[PodRef]) -> Option<(PodRef, PodStatus)> {
        let mut waiting = self.pending.waiting.lock();
        let pod = waiting.keys().find(|pod| !busy.contains(pod))?.clone();
        waiting.remove_entry(&pod)
    }

    async fn send(&self, pod: PodRef, status: PodStatus) -> PodRef {
        match self.cluster.report_pod(&pod, &status).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {
                tracing::debug!(pod = %pod, error = %error, "dropped the status of a pod that is gone");
            }
            Err(ClusterError::Refused { code, reason, message }) if (400..500).contains(&code) => {
                tracing::warn!(pod = %pod, code, %reason, %message, "the masters refused the status of a pod");
            }
            Err(error) => {
                tracing::debug!(pod = %pod, error = %error, "cannot send the status of a pod; retrying later");
                tokio::time::sleep(RETRY_DELAY).await;
                self.pending.waiting.lock().entry(pod.clone()).or_insert(status);
            }
        }
        pod
    }
}
