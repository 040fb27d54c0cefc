//! The tasks of a leader, from its election until it is deposed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_apiserver::{Api, LocalClient, UserInfo};
use quorate_controllers::controllers;
use quorate_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::ManagerConfig;
use crate::controllers::{ControllerRunner, Dispatch, Executor};
use crate::events::{EventExpiry, EventWriter};
use crate::masters::MasterService;
use crate::repair;
use crate::scheduling::SchedulerRunner;

const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Interval at which this process checks whether it was paused.
const PULSE: Duration = Duration::from_millis(500);
/// Duration of a pulse above which heartbeats may have been missed.
const MISSED_PULSE: Duration = Duration::from_secs(3);

/// Tasks of one term as leader.
pub(crate) struct Leader {
    pub(crate) store: Store,
    pub(crate) api: Api,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) config: ManagerConfig,
    pub(crate) expiry: EventExpiry,
}

impl Leader {
    /// Runs until cancelled, or until one of its tasks ends early. Returns when all tasks have ended.
    pub(crate) async fn run(self, term: u64, cancelled: CancellationToken) {
        let elected = Instant::now();
        if cancelled.run_until_cancelled(self.catch_up()).await.is_none() {
            return;
        }
        tracing::info!(term, after = ?elected.elapsed(), "leading: scheduler and controllers start");
        let tasks_cancelled = cancelled.child_token();
        let mut tasks = JoinSet::new();
        self.start(&mut tasks, &tasks_cancelled);
        tokio::select! {
            () = cancelled.cancelled() => {}
            Some(ended) = tasks.join_next() => {
                tracing::error!(?ended, "a task of the leader ended early; all tasks are restarted");
            }
        }
        self.cluster.detach();
        tasks_cancelled.cancel();
        while tasks.join_next().await.is_some() {}
        tracing::info!(term, "no longer leading: scheduler and controllers have stopped");
    }

    /// Waits until the informer has applied everything that was committed before the election.
    async fn catch_up(&self) {
        while let Err(error) = self.store.read_barrier().await {
            tracing::debug!(%error, "the new leader cannot confirm its state yet");
            tokio::time::sleep(RETRY_AFTER).await;
        }
        let target = self.store.revision();
        if self.cluster.reached().wait_for(|reached| *reached >= target).await.is_err() {
            // The sender lives as long as the cluster, which this leader holds.
            std::future::pending().await
        }
    }

    fn start(&self, tasks: &mut JoinSet<()>, cancelled: &CancellationToken) {
        let controller_client = self.client("system:kube-controller-manager");
        let scheduler_client = self.client("system:kube-scheduler");
        let timeout = self.config.request_timeout;
        let (recorder, writer) = EventWriter::new(controller_client.clone(), timeout);
        tasks.spawn(writer.run(cancelled.clone()));

        let scheduler = SchedulerRunner {
            cluster: self.cluster.clone(),
            client: scheduler_client,
            recorder: recorder.clone(),
            parallel_bindings: self.config.parallel_bindings,
            request_timeout: timeout,
        };
        tasks.spawn(scheduler.run(cancelled.clone()));

        let dispatch = Arc::new(Dispatch::new(controllers()));
        let settings = Arc::new(self.config.settings.clone());
        for (controller, queue) in dispatch.queues() {
            let executor = Executor {
                client: controller_client.clone(),
                recorder: recorder.clone(),
                component: component(controller.name),
                parallel_actions: self.config.parallel_actions,
                request_timeout: timeout,
            };
            let runner = ControllerRunner {
                controller,
                queue,
                cluster: self.cluster.clone(),
                store: self.store.clone(),
                executor,
                settings: settings.clone(),
                workers: self.config.workers_per_controller,
            };
            tasks.spawn(runner.run(cancelled.clone()));
        }
        self.cluster.attach(dispatch);

        tasks.spawn(bootstrap(self.api.clone(), cancelled.clone()));
        let masters = MasterService {
            store: self.store.clone(),
            cluster: self.cluster.clone(),
            executor: Executor {
                client: controller_client.clone(),
                recorder: recorder.clone(),
                component: component("kubernetes-service"),
                parallel_actions: self.config.parallel_actions,
                request_timeout: timeout,
            },
            address: self.api.pools().default_block().map(|block| block.first_usable()),
            forget_after: self.config.forget_masters_after,
        };
        tasks.spawn(masters.run(cancelled.clone()));
        tasks.spawn(repair::run(self.api.clone(), recorder, cancelled.clone()));
        tasks.spawn(self.expiry.clone().sweep(cancelled.clone()));
        tasks.spawn(watch_pulse(self.cluster.clone(), cancelled.clone()));
    }

    fn client(&self, user: &str) -> LocalClient {
        LocalClient::new(self.api.clone(), UserInfo::master(user))
    }
}

/// Returns the component name of a controller in events, for example `deployment-controller`.
fn component(controller: &str) -> String {
    if controller.ends_with("-controller") { controller.to_owned() } else { format!("{controller}-controller") }
}

/// Creates the objects that every cluster has; ends only when cancelled.
async fn bootstrap(api: Api, cancelled: CancellationToken) {
    let until_done = async {
        while let Err(error) = quorate_apiserver::bootstrap(&api).await {
            tracing::warn!(%error, "the cluster's own objects could not be created; retrying");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    };
    cancelled.run_until_cancelled(until_done).await;
    cancelled.cancelled().await;
}

/// Restarts the nodes' grace periods after this process was paused (SIGSTOP, a suspended machine), because it missed
/// heartbeats meanwhile.
async fn watch_pulse(cluster: Arc<Cluster>, cancelled: CancellationToken) {
    loop {
        let before = Instant::now();
        if cancelled.run_until_cancelled(tokio::time::sleep(PULSE)).await.is_none() {
            return;
        }
        let took = before.elapsed();
        if took > MISSED_PULSE {
            tracing::warn!(?took, "this process was paused; nodes get a new grace period");
            cluster.begin_observation();
        }
    }
}
