//! The pods of this node. Starts a worker for each pod bound to it, and removes what is left of other pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cluster::PodChange;
use crate::config::AgentConfig;
use crate::context::Context;
use crate::plan::{self, PodRef};
use crate::worker::{Desired, Worker};
use crate::{checkpoint, volumes};

/// Interval between two searches for containers and directories that belong to no pod of this node.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Grace period of containers whose pod is not this node's.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// Maximum delay before a worker that panicked is started again, in seconds.
const MAX_RESTART_SECONDS: i64 = 60;

/// The pods of this node by uid, as the node API shows them.
pub(crate) type PodTable = Arc<ArcSwap<BTreeMap<String, Arc<Pod>>>>;

pub(crate) struct Pods {
    context: Arc<Context>,
    data_dir: PathBuf,
    table: PodTable,
    workers: HashMap<String, watch::Sender<Desired>>,
    running: JoinSet<PodRef>,
    /// The pod of each running worker, by the id of its task.
    tasks: HashMap<Id, PodRef>,
    /// Number of times that the worker of a pod has panicked, by uid.
    panics: HashMap<String, u32>,
    /// Uids of pods of other nodes whose containers are being removed from this one.
    orphans: BTreeSet<String>,
    clearing: JoinSet<String>,
    /// The API has listed this node's pods at least once. From then on, a pod without a worker is not this node's.
    synced: bool,
}

impl Pods {
    pub(crate) fn new(config: &AgentConfig, context: Arc<Context>, table: PodTable) -> Self {
        Pods {
            context,
            data_dir: config.data_dir.clone(),
            table,
            workers: HashMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            panics: HashMap::new(),
            orphans: BTreeSet::new(),
            clearing: JoinSet::new(),
            synced: false,
        }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.initial_relist() => {}
        }
        let mut changes = self.context.cluster.pods();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let offline = tokio::time::sleep(self.context.offline_after);
        tokio::pin!(offline);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                change = changes.next() => match change {
                    Some(change) => self.handle_change(change, &shutdown).await,
                    None => break,
                },
                Some(ended) = self.running.join_next_with_id() => self.reap(ended, &shutdown),
                Some(cleared) = self.clearing.join_next() => self.finish_clearing(cleared),
                () = &mut offline, if !self.synced && self.workers.is_empty() => {
                    self.adopt_offline(&shutdown).await;
                    offline.as_mut().reset(tokio::time::Instant::now() + SWEEP_INTERVAL);
                }
                _ = sweep.tick(), if self.synced => self.sweep().await,
            }
        }
        while let Some(ended) = self.running.join_next_with_id().await {
            self.reap(ended, &shutdown);
        }
    }

    /// Lists what runs on this node, and retries until it succeeds: no decision about a pod is made before.
    async fn initial_relist(&self) {
        while let Err(error) = self.context.runtime.relist().await {
            tracing::warn!(error = %error, "cannot list the containers of this node");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn handle_change(&mut self, change: PodChange, shutdown: &CancellationToken) {
        match change {
            PodChange::Synced(pods) => {
                let present: BTreeSet<String> = pods.iter().map(|pod| plan::pod_ref(pod).uid).collect();
                for pod in pods {
                    self.apply(pod, shutdown);
                }
                for (uid, worker) in &self.workers {
                    if !present.contains(uid) {
                        worker.send_modify(|desired| desired.gone = true);
                    }
                }
                self.synced = true;
                self.sweep().await;
            }
            PodChange::Applied(pod) => self.apply(*pod, shutdown),
            PodChange::Deleted(pod) => {
                if let Some(worker) = self.workers.get(&plan::pod_ref(&pod).uid) {
                    worker.send_modify(|desired| desired.gone = true);
                }
            }
        }
        self.publish();
    }

    fn apply(&mut self, pod: Pod, shutdown: &CancellationToken) {
        let reference = plan::pod_ref(&pod);
        let ours = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&self.context.node_name);
        if let Some(worker) = self.workers.get(&reference.uid) {
            worker.send_modify(|desired| {
                desired.pod = Arc::new(pod);
                desired.gone |= !ours;
            });
        } else if ours {
            tracing::debug!(pod = %reference, "a pod was bound to this node");
            self.start_worker(reference, pod, shutdown);
        }
    }

    fn start_worker(&mut self, reference: PodRef, pod: Pod, shutdown: &CancellationToken) {
        let (sender, desired) = watch::channel(Desired { pod: Arc::new(pod), gone: false });
        self.workers.insert(reference.uid.clone(), sender);
        self.spawn_worker(reference, desired, Duration::ZERO, shutdown);
    }

    fn spawn_worker(
        &mut self,
        reference: PodRef,
        desired: watch::Receiver<Desired>,
        delay: Duration,
        shutdown: &CancellationToken,
    ) {
        let (context, pod, shutdown) = (Arc::clone(&self.context), reference.clone(), shutdown.clone());
        let work = async move {
            tokio::select! {
                () = shutdown.cancelled() => return pod,
                () = tokio::time::sleep(delay) => {}
            }
            Worker::new(context, desired).run(shutdown).await
        };
        let handle = self.running.spawn(work);
        self.tasks.insert(handle.id(), reference);
    }

    /// Starts another worker for the pod of one that panicked. The new worker adopts the containers that run.
    fn restart_worker(&mut self, reference: PodRef, error: &JoinError, shutdown: &CancellationToken) {
        let Some(desired) = self.workers.get(&reference.uid).map(watch::Sender::subscribe) else { return };
        let count = self.panics.entry(reference.uid.clone()).or_default();
        let seconds = plan::backoff::doubled(1, MAX_RESTART_SECONDS, *count);
        *count += 1;
        tracing::error!(pod = %reference, error = %error, seconds, "the worker of a pod panicked; it will be restarted");
        let delay = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
        self.spawn_worker(reference, desired, delay, shutdown);
    }

    fn reap(&mut self, ended: Result<(Id, PodRef), JoinError>, shutdown: &CancellationToken) {
        match ended {
            Ok((id, reference)) => {
                self.tasks.remove(&id);
                self.panics.remove(&reference.uid);
                self.workers.remove(&reference.uid);
                self.context.runtime.forget(&reference.uid);
                self.context.allocations.remove(&reference.uid);
                let pods = self.workers.values().map(|worker| Arc::clone(&worker.borrow().pod));
                let needed = pods.flat_map(|pod| volumes::references(&pod)).collect();
                self.context.objects.forget_unwatched(&needed);
                self.publish();
            }
            Err(error) => {
                if let Some(reference) = self.tasks.remove(&error.id()) {
                    self.restart_worker(reference, &error, shutdown);
                }
            }
        }
    }

    /// Manages the running pods while no master answers. A pod that does not run is not started.
    async fn adopt_offline(&mut self, shutdown: &CancellationToken) {
        let running: BTreeSet<String> = self
            .context
            .runtime
            .known_pods()
            .into_iter()
            .filter(|known| known.may_run)
            .map(|known| known.pod.uid)
            .collect();
        match checkpoint::load(&self.data_dir).await {
            Ok(pods) => {
                for pod in pods {
                    let reference = plan::pod_ref(&pod);
                    if running.contains(&reference.uid) {
                        tracing::info!(pod = %reference, "no master answers; the pod is kept running from its checkpoint");
                        self.start_worker(reference, pod, shutdown);
                    }
                }
            }
            Err(error) => tracing::warn!(error = %error, "no master answers, and the checkpoints cannot be read"),
        }
        self.publish();
    }

    /// Removes containers and directories of pods that have no worker.
    async fn sweep(&mut self) {
        for known in self.context.runtime.known_pods() {
            if self.workers.contains_key(&known.pod.uid) || !self.orphans.insert(known.pod.uid.clone()) {
                continue;
            }
            tracing::info!(pod = %known.pod, "removing the containers of a pod that is not this node's");
            // Stopping takes up to the grace period, so neither other orphans nor this node's own pods wait for it.
            self.clearing.spawn(clear(Arc::clone(&self.context), known.pod));
        }
        // A pod that has vanished together with its containers has neither a worker nor a container to be removed.
        self.context.fence.retain(|uid| self.workers.contains_key(uid) || self.orphans.contains(uid)).await;
        match checkpoint::uids(&self.data_dir).await {
            Ok(uids) => {
                for uid in uids {
                    if self.workers.contains_key(&uid) || self.orphans.contains(&uid) {
                        continue;
                    }
                    if let Err(error) = volumes::clean_up(&self.data_dir, &uid).await {
                        tracing::warn!(%uid, error = %error, "cannot remove a pod's volumes");
                    }
                }
            }
            Err(error) => tracing::warn!(error = %error, "cannot list the pods' directories"),
        }
    }

    fn finish_clearing(&mut self, cleared: Result<String, JoinError>) {
        match cleared {
            Ok(uid) => {
                self.orphans.remove(&uid);
            }
            Err(error) => {
                tracing::error!(error = %error, "the task that removes an orphaned pod panicked");
                // The error does not tell the pod, so the next sweep retries all of them. Removing twice is harmless.
                self.orphans.clear();
            }
        }
    }

    fn publish(&self) {
        let pods = self.workers.iter().map(|(uid, worker)| (uid.clone(), Arc::clone(&worker.borrow().pod)));
        self.table.store(Arc::new(pods.collect()));
    }
}

/// Removes the containers and directories of a pod, and returns its uid. After a failure the next sweep tries again.
async fn clear(context: Arc<Context>, pod: PodRef) -> String {
    if let Err(error) = remove_orphan(&context, &pod).await {
        tracing::warn!(pod = %pod, error = %error, "cannot remove the containers of an orphaned pod");
    } else if let Err(error) = volumes::clean_up(&context.data_dir, &pod.uid).await {
        tracing::warn!(pod = %pod, error = %error, "cannot remove a pod's volumes");
    } else {
        context.fence.forget(&pod.uid).await;
    }
    pod.uid
}

async fn remove_orphan(context: &Context, pod: &PodRef) -> Result<(), crate::runtime::RuntimeError> {
    let observed = Arc::clone(&context.runtime.subscribe(&pod.uid).borrow());
    let stops = observed.running().map(|record| context.runtime.stop_container(pod, &record.id, ORPHAN_GRACE));
    futures::future::try_join_all(stops).await?;
    context.runtime.remove_pod(pod).await?;
    context.runtime.forget(&pod.uid);
    Ok(())
}
