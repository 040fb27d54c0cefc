//! Opens the Raft instance, and opens it again when it dies.
//!
//! openraft ends its core for good after a storage error, and a panic in the core leaves a member that looks alive and
//! does nothing. The data on disk is sound in either case, so the supervisor tears the instance down and starts it from
//! disk. (A failed sync ends the process before that, and [damage](super::damage) ends the member.)

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use rocksdb::Cache;
use tokio_util::sync::CancellationToken;

use super::closing::{Closed, close_signal};
use super::exit_codes::EX_SOFTWARE;
use super::identity::REJOIN;
use crate::error::StoreError;
use crate::platform::tokio::sync::oneshot;
use crate::platform::tokio::time::Instant;
use crate::platform::{TaskTracker, exit, fs, tokio};
use crate::raft::elections::leadership;
use crate::raft::log::{LogOptions, LogStore};
use crate::raft::membership::formation;
use crate::raft::membership::roster::Roster;
use crate::raft::network::openraft_network::NetworkFactory;
use crate::raft::node::{Instance, Node};
use crate::raft::state::state_machine::StateMachine;
use crate::raft::state::{StateOptions, StateStore};
use crate::raft::types::Raft;

/// Size of the cache for blocks of the state.
const BLOCK_CACHE_BYTES: usize = 16 << 20;
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// Minimum age of an instance that is restarted without a pause after it dies.
const MIN_AGE: Duration = Duration::from_secs(10);
/// How long a leader that shuts down waits for the transfer of leadership.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(1);

/// Owns the Raft instance.
pub struct Supervisor {
    node: Arc<Node>,
    cache: Cache,
}

struct Running {
    instance: Arc<Instance>,
    closed: [Closed; 2],
    followers: TaskTracker,
    stop: CancellationToken,
}

impl Supervisor {
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Supervisor { node, cache: Cache::new_lru_cache(BLOCK_CACHE_BYTES) }
    }

    /// Runs until the node's shutdown; sends the result of the first start to `opened`.
    pub async fn run(self, opened: oneshot::Sender<Result<(), StoreError>>, shutdown: CancellationToken) {
        let mut running = match self.open().await {
            Ok(running) => {
                drop(opened.send(Ok(())));
                running
            }
            Err(error) => {
                self.node.watching.detach();
                drop(opened.send(Err(error)));
                return;
            }
        };
        loop {
            let began = Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.hand_over(&running.instance).await;
                    self.close(running).await;
                    return;
                }
                () = self.node.out_of_service() => {
                    self.node.serving.cancel();
                    self.hand_over(&running.instance).await;
                    self.close(running).await;
                    return shutdown.cancelled().await;
                }
                reason = died(&running.instance) => {
                    tracing::error!(reason, "the raft instance died; restarting it from disk");
                    if !self.close(running).await {
                        // A second instance that writes to the same log would destroy it.
                        tracing::error!("the databases of the dead raft instance cannot be closed; this process ends");
                        exit(EX_SOFTWARE);
                    }
                    let died_young = began.elapsed() < MIN_AGE;
                    if died_young && shutdown.run_until_cancelled(tokio::time::sleep(RESTART_PAUSE)).await.is_none() {
                        return;
                    }
                }
            }
            running = loop {
                match self.open().await {
                    Ok(running) => break running,
                    Err(error) => tracing::error!(%error, "the raft instance cannot be started; will retry"),
                }
                self.node.watching.detach();
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.node.out_of_service() => {
                        self.node.serving.cancel();
                        return shutdown.cancelled().await;
                    }
                    () = tokio::time::sleep(RESTART_PAUSE) => {}
                }
            };
        }
    }

    async fn open(&self) -> Result<Running, StoreError> {
        let fatal = |what: &str, error: &dyn std::fmt::Display| StoreError::Fatal(format!("{what}: {error}"));
        let (log_signal, log_closed) = close_signal();
        let (state_signal, state_closed) = close_signal();
        let dir = self.node.settings.data_dir.clone();
        let (log_path, state_path, space) = (dir.join("log"), dir.join("state"), self.node.space.clone());
        let exists = |path| fs::exists(path).map_err(|error| fatal("the directory", &error));
        if exists(&state_path)? && !exists(&log_path)? {
            // The log held this member's votes, and the entries that it acknowledged and had not applied.
            return Err(fatal(&format!("{} is missing", log_path.display()), &REJOIN));
        }
        let state_options = StateOptions {
            cache: self.cache.clone(),
            watching: self.node.watching.clone(),
            traces: self.node.traces.clone(),
            space: space.clone(),
            damage: self.node.damage.clone(),
            decodable: self.node.decodable.clone(),
        };
        let options = LogOptions { prepares_first: true, ..LogOptions::default() };
        let opening_log = tokio::task::spawn_blocking(move || LogStore::open(&log_path, options, space, log_signal));
        let opening_state =
            tokio::task::spawn_blocking(move || StateStore::open(&state_path, state_options, state_signal));
        let (log, state) = tokio::join!(opening_log, opening_state);
        let log = log.map_err(|error| fatal("the log", &error))?.map_err(|error| fatal("the log", &error))?;
        let state = state.map_err(|error| fatal("the state", &error))?.map_err(|error| fatal("the state", &error))?;
        let state = Arc::new(state);
        if let Some(applied) = state.position().borrow().log_id {
            log.reconcile(applied).map_err(|error| fatal("the log", &error))?;
        }
        let config = raft_config(&self.node)?;
        let network = NetworkFactory::new(self.node.peers.clone(), self.node.announced.clone());
        let machine = StateMachine::new(state.clone());
        let raft = Raft::new(self.node.id(), Arc::new(config), network, log.clone(), machine)
            .await
            .map_err(|error| fatal("raft", &error))?;
        // The membership comes from the log, and peers must be checked against it from their first message.
        let known = raft.with_raft_state(|state| {
            let known = &state.membership_state;
            Roster::of(known.effective(), known.committed())
        });
        if let Some(roster) = known.await.map_err(|error| fatal("raft", &error))? {
            self.node.set_roster(roster);
        }
        let instance = Arc::new(Instance { raft, log, state });
        self.node.set_instance(Some(instance.clone()));
        let (followers, stop) = (TaskTracker::new(), self.node.shutdown.child_token());
        followers.spawn(leadership::run(self.node.clone(), instance.clone(), stop.clone()));
        followers.spawn(formation::run(self.node.clone(), instance.clone(), stop.clone()));
        Ok(Running { instance, closed: [log_closed, state_closed], followers, stop })
    }

    /// Transfers leadership to the member that has most of the log, if this member leads.
    async fn hand_over(&self, instance: &Instance) {
        let metrics = instance.metrics();
        let Some(heir) = leadership::heir(&self.node, &metrics) else { return };
        if let Err(error) = instance.raft.trigger().transfer_leader(heir).await {
            tracing::info!(%error, "leadership was not transferred");
            return;
        }
        let mut changes = instance.raft.metrics();
        let handed_over = async {
            while changes.borrow_watched().current_leader.is_none_or(|leader| leader == self.node.id()) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(HAND_OVER_DEADLINE, handed_over).await {
            Ok(()) => tracing::info!(heir, "leadership transferred"),
            Err(_) => tracing::warn!(heir, "leadership was not transferred in time"),
        }
    }

    /// Closes an instance; returns whether both of its databases are closed.
    async fn close(&self, running: Running) -> bool {
        let Running { instance, closed, followers, stop } = running;
        stop.cancel();
        instance.state.stop_waiting();
        self.node.set_instance(None);
        if let Err(error) = instance.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        followers.close();
        followers.wait().await;
        let state = instance.state.clone();
        drop(instance);
        match tokio::task::spawn_blocking(move || state.flush().map(drop)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the state was not flushed; it is replayed from the log"),
            Err(error) => tracing::warn!(%error, "the state was not flushed; it is replayed from the log"),
        }
        self.node.watching.detach();
        let mut all_closed = true;
        for (closed, what) in closed.into_iter().zip(["log", "state"]) {
            if !closed.wait(CLOSE_DEADLINE).await {
                tracing::warn!(what, "a database is still in use");
                all_closed = false;
            }
        }
        all_closed
    }
}

/// Waits until the core of an instance ends; returns the reason.
async fn died(instance: &Instance) -> String {
    // Server metrics change rarely, and their channel closes with the core.
    let mut metrics = instance.raft.server_metrics();
    while metrics.changed().await.is_ok() {}
    match &instance.metrics().running_state {
        Ok(()) => "it ended".to_owned(),
        Err(fatal) => fatal.to_string(),
    }
}

fn raft_config(node: &Node) -> Result<Config, StoreError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timing = node.settings.timing;
    let config = Config {
        cluster_name: format!("quorate-{:08x}", node.settings.cluster),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        enable_pre_vote: Some(true),
        // The commit index that a restarted leader knows may be older than what it has acknowledged, so it must win an
        // election first.
        enable_leader_restore: Some(false),
        // `upkeep` purges the log by bytes.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        install_snapshot_timeout: 60_000,
        max_payload_entries: 256,
        api_channel_size: Some(8192),
        notification_channel_size: Some(8192),
        backoff: "50ms 100ms 200ms ..500ms".to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|error| StoreError::Fatal(format!("the raft timing is invalid: {error}")))
}
