//! The manager: an informer for as long as the process lives, and a [`Leader`] whenever this master leads.

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

/// Before the leader's tasks are started anew because one of them died.
const RESTART_AFTER: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("a task of the manager died")]
    Task(#[source] JoinError),
    #[error("a task of the manager ended although nobody asked it to")]
    EndedEarly,
}

/// Scheduler and controllers of one master; active while it leads.
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

    /// Whether scheduler and controllers run here: false again only after all of them have stopped.
    #[must_use]
    pub fn active(&self) -> watch::Receiver<bool> {
        self.active.subscribe()
    }

    /// Runs until `shutdown` fires; then everything that it started has ended.
    ///
    /// # Errors
    /// When one of its tasks died, which is a bug; the process had better end.
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
        tasks.spawn(self.hold_office(cluster, expiry, stop.clone()));
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

    /// Leads whenever this master is elected, once for each term.
    async fn hold_office(self, cluster: Arc<Cluster>, expiry: EventExpiry, stop: CancellationToken) {
        let mut leadership = self.store.leadership();
        while !stop.is_cancelled() {
            // The term is copied out at once: a reference that is held would block whoever announces the next leader.
            let elected = async { leadership.wait_for(|now| now.is_active_leader).await.map(|now| now.term) };
            let term = match stop.run_until_cancelled(elected).await {
                Some(Ok(term)) => term,
                // The store is gone: it shuts down before us.
                Some(Err(_)) => return stop.cancelled().await,
                None => return,
            };
            self.active.send_replace(true);
            let in_office = stop.child_token();
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
                in_office.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = leader.run(term, in_office.clone()) => {}
                () = until_deposed => {}
            }
            self.active.send_replace(false);
            if !in_office.is_cancelled() {
                stop.run_until_cancelled(tokio::time::sleep(RESTART_AFTER)).await;
            }
        }
    }
}
