//! The runner of one controller: workers that reconcile, and the periodic resync.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quorate_controllers::{Controller, Failure, Input, Plan, Settings, WorkKey};
use quorate_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::controllers::dispatch::{SharedQueue, all_keys};
use crate::controllers::executor::Executor;
use crate::controllers::work_queue::{Finish, Turn};
use crate::guard;

const MIN_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Maximum backoff after a stale plan. The retry only has to wait for the cache.
const MAX_STALE_BACKOFF: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct ControllerRunner {
    pub(crate) controller: &'static Controller,
    pub(crate) queue: Arc<SharedQueue>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) store: Store,
    pub(crate) executor: Executor,
    pub(crate) settings: Arc<Settings>,
    pub(crate) workers: usize,
}

impl ControllerRunner {
    /// Runs until cancelled. A write in progress is then abandoned; whether or not it succeeds, the next leader plans
    /// from the stored state.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        for _ in 0..self.workers {
            let (worker, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move { shutdown.run_until_cancelled(worker.work()).await.unwrap_or_default() });
        }
        tasks.spawn(async move { shutdown.run_until_cancelled(self.resync()).await.unwrap_or_default() });
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller's worker failed");
            }
        }
    }

    async fn work(self) {
        loop {
            let turn = self.queue.next().await;
            let finish = self.reconcile(&turn).await;
            self.queue.finish(&turn.key, finish);
        }
    }

    async fn resync(self) {
        let Some(period) = self.controller.resync else { return std::future::pending().await };
        loop {
            tokio::time::sleep(period).await;
            let keys = all_keys(self.controller, &self.cluster.cache());
            self.queue.add_all(keys);
        }
    }

    fn plan(&self, key: &WorkKey, failure: Option<&Failure>) -> Option<Plan> {
        let cache = self.cluster.cache();
        // The clock is read under the lock, so it is never behind the cache's observations.
        let (now, uptime) = (Timestamp::now(), self.cluster.now());
        let input = Input { cache: &cache, now, uptime, kinds: &self.executor, settings: &self.settings, failure };
        guard::catch(self.controller.name, || (self.controller.reconcile)(input, key))
    }

    async fn reconcile(&self, turn: &Turn) -> Finish {
        let name = self.controller.name;
        let Turn { key, failures, failure } = turn;
        let failures = *failures;
        let plan = self.plan(key, failure.as_ref());
        let Some(plan) = plan else {
            return Finish {
                again_at: Some(self.queue.now() + backoff(failures, MAX_BACKOFF)),
                failed: true,
                ..Finish::default()
            };
        };
        let requeue_at = |after: Duration| self.queue.now() + after;
        if plan.is_empty() {
            return Finish { again_at: plan.requeue_after.map(requeue_at), ..Finish::default() };
        }
        tracing::debug!(controller = name, %key, actions = plan.actions.len(), "executing a plan");
        let result = self.executor.run(plan.actions).await;
        // This member has applied every answered write, so its revision covers them all.
        let hold_until = self.store.revision();
        match result {
            Ok(()) => Finish { hold_until, again_at: plan.requeue_after.map(requeue_at), ..Finish::default() },
            Err(error) if error.is_stale() => {
                tracing::debug!(controller = name, %key, %error, "the plan was stale; retrying");
                let again_at = Some(requeue_at(backoff(failures, MAX_STALE_BACKOFF)));
                Finish { hold_until, again_at, failed: true, failure: None }
            }
            Err(error) => {
                let after = backoff(failures, MAX_BACKOFF);
                tracing::warn!(controller = name, %key, %error, retry_in = ?after, "a plan failed");
                let again_at = Some(requeue_at(after));
                Finish { hold_until, again_at, failed: true, failure: Some(error.into()) }
            }
        }
    }
}

/// Returns a backoff that doubles with each failure, from [`MIN_BACKOFF`] to `max`. Up to 20 % of jitter is added, so
/// that keys that failed together are not retried together.
fn backoff(failures: u32, max: Duration) -> Duration {
    let doubled = MIN_BACKOFF.saturating_mul(1 << failures.min(20)).min(max);
    doubled.mul_f64(1.0 + rand::random::<f64>() / 5.0)
}
