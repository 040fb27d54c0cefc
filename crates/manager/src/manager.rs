//! The manager: an informer that runs as long as the process, and a [`Leader`] whenever this master leads.

use std::sync::Arc;
use std::time::Duration;

use quorate_apiserver::{Api, LocalClient, UserInfo};
use quorate_store::Store;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::ManagerConfig;
use crate::events::EventExpiry;
use crate::informer::Informer;
use crate::leader::Leader;

/// Pause before the leader's tasks are restarted because one of them ended.
const RESTART_AFTER: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("a task of the manager failed")]
    Task(#[source] JoinError),
    #[error("a task of the manager ended without being asked to")]
    EndedEarly,
}

/// Scheduler and controllers of a master; active while it leads.
pub struct Manager {
    store: Store,
    api: Api,
    config: ManagerConfig,
    active: watch::Sender<bool>,
}

impl Manager {
    #[must_use]
    pub fn new(store: Store, api: Api, config: ManagerConfig) -> Manager {
        Manager { store, api, config, active: watch::Sender::new(false) }
    }

    /// Returns whether scheduler and controllers run on this master. The value becomes false only after all of them
    /// have stopped.
    #[must_use]
    pub fn active(&self) -> watch::Receiver<bool> {
        self.active.subscribe()
    }

    /// Runs until `shutdown` fires. When it returns, all tasks that it started have ended.
    ///
    /// # Errors
    /// Fails when one of its tasks failed, which is a bug; the process should then end.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ManagerError> {
        let cluster = Arc::new(Cluster::new(rand::random()));
        let client = LocalClient::new(self.api.clone(), UserInfo::master("system:kube-controller-manager"));
        let expiry = EventExpiry::new(self.store.clone(), client, self.config.event_ttl);
        let informer =
            Informer { store: self.store.clone(), cluster: cluster.clone(), page_size: self.config.page_size };
        let stop = shutdown.child_token();
        let mut tasks = JoinSet::new();
        tasks.spawn(informer.run(stop.clone()));
        tasks.spawn(expiry.clone().keep_history(stop.clone()));
        tasks.spawn(self.lead_when_elected(cluster, expiry, stop.clone()));
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let expected = stop.is_cancelled();
            stop.cancel();
            match ended {
                Err(error) => result = Err(ManagerError::Task(error)),
                Ok(()) if !expected => result = Err(ManagerError::EndedEarly),
                Ok(()) => {}
            }
        }
        result
    }

    /// Runs a [`Leader`] whenever this master is elected, once for each term.
    async fn lead_when_elected(self, cluster: Arc<Cluster>, expiry: EventExpiry, stop: CancellationToken) {
        let mut leadership = self.store.leadership();
        while !stop.is_cancelled() {
            // The term is copied at once, because a held reference would block the sender that announces the next
            // leader.
            let elected = async { leadership.wait_for(|now| now.is_active_leader).await.map(|now| now.term) };
            let term = match stop.run_until_cancelled(elected).await {
                Some(Ok(term)) => term,
                // The store shut down before this manager.
                Some(Err(_)) => return stop.cancelled().await,
                None => return,
            };
            self.active.send_replace(true);
            let leading = stop.child_token();
            let leader = Leader {
                store: self.store.clone(),
                api: self.api.clone(),
                cluster: cluster.clone(),
                config: self.config.clone(),
                expiry: expiry.clone(),
            };
            let mut deposed = leadership.clone();
            let until_deposed = async {
                let closed = deposed.wait_for(|now| !now.is_active_leader || now.term != term).await.is_err();
                tracing::info!(term, closed, "leadership lost");
                leading.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = leader.run(term, leading.clone()) => {}
                () = until_deposed => {}
            }
            self.active.send_replace(false);
            if !leading.is_cancelled() {
                stop.run_until_cancelled(tokio::time::sleep(RESTART_AFTER)).await;
            }
        }
    }
}
