//! Opens the Raft instance, and opens it again when it dies.
//!
//! openraft ends its core for good after a storage error, and a panic in it leaves a member that looks alive and does
//! nothing. What is on disk is sound in either case, so the instance is torn down and started from there. (It is not
//! after a sync that failed, which has ended the process by then, nor when it is [damaged](super::damage).)

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use rocksdb::Cache;
use tokio_util::sync::CancellationToken;

use super::closing::{Closed, close_signal};
use super::ending::EX_SOFTWARE;
use super::identity::REJOIN;
use super::log::{LogOptions, LogStore};
use super::network::openraft_network::NetworkFactory;
use super::node::{Instance, Node};
use super::roster::Roster;
use super::state::{StateOptions, StateStore};
use super::state_machine::StateMachine;
use super::types::Raft;
use super::{formation, leadership};
use crate::error::StoreError;
use crate::platform::TaskTracker;
use crate::platform::exit;
use crate::platform::fs;
use crate::platform::tokio;
use crate::platform::tokio::sync::oneshot;
use crate::platform::tokio::time::Instant;

/// For blocks of the state.
const BLOCK_CACHE_BYTES: usize = 16 << 20;
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// An instance that dies younger than this is not started again at once.
const INFANT: Duration = Duration::from_secs(10);
/// How long a leader that goes tries to hand over.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(1);

/// Owns the instance.
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

    /// Runs until the node's shutdown; `opened` learns how the first start went.
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
                () = self.node.condemned() => {
                    self.node.serving.cancel();
                    self.hand_over(&running.instance).await;
                    self.close(running).await;
                    return shutdown.cancelled().await;
                }
                reason = died(&running.instance) => {
                    tracing::error!(reason, "the raft instance died; it is started again from disk");
                    if !self.close(running).await {
                        // Two that write to one log would destroy it.
                        tracing::error!("what the raft instance had open cannot be closed; this process ends");
                        exit(EX_SOFTWARE);
                    }
                    let died_young = began.elapsed() < INFANT;
                    if died_young && shutdown.run_until_cancelled(tokio::time::sleep(RESTART_PAUSE)).await.is_none() {
                        return;
                    }
                }
            }
            running = loop {
                match self.open().await {
                    Ok(running) => break running,
                    Err(error) => tracing::error!(%error, "the raft instance cannot be started; it is tried again"),
                }
                self.node.watching.detach();
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.node.condemned() => {
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
            // Its votes are gone with it, and what it has acknowledged beyond the state.
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
        // Before any peer is heard: who is one is told by the own log.
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

    /// Gives leadership to the member that has most of the log.
    async fn hand_over(&self, instance: &Instance) {
        let metrics = instance.metrics();
        let Some(heir) = leadership::heir(&self.node, &metrics) else { return };
        if let Err(error) = instance.raft.trigger().transfer_leader(heir).await {
            tracing::info!(%error, "leadership is not handed over");
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
            Ok(()) => tracing::info!(heir, "leadership handed over"),
            Err(_) => tracing::warn!(heir, "leadership was not taken over in time"),
        }
    }

    /// Whether all that it had open is closed.
    async fn close(&self, running: Running) -> bool {
        let Running { instance, closed, followers, stop } = running;
        stop.cancel();
        instance.state.stop_waiting();
        self.node.set_instance(None);
        if let Err(error) = instance.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop in order");
        }
        followers.close();
        followers.wait().await;
        let state = instance.state.clone();
        drop(instance);
        match tokio::task::spawn_blocking(move || state.flush().map(drop)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the state was not flushed; the log has it"),
            Err(error) => tracing::warn!(%error, "the state was not flushed; the log has it"),
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

/// Returns when the core has ended without being told to.
async fn died(instance: &Instance) -> String {
    // These change rarely, and end with the core.
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
        // What a restarted leader knows to be committed may be older than what it has acknowledged; an election tells.
        enable_leader_restore: Some(false),
        // The log is purged by bytes, see `upkeep`.
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
    config.validate().map_err(|error| StoreError::Fatal(format!("the raft timing cannot work: {error}")))
}
