//! The start of a member and its tasks.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::damage;
use super::identity::{self, Origin};
use super::supervisor::Supervisor;
use crate::error::StoreError;
use crate::handle::Store;
use crate::hub::HubConfig;
use crate::membership::Member;
use crate::platform::TaskTracker;
use crate::platform::tokio::net::TcpListener;
use crate::platform::tokio::sync::oneshot;
use crate::raft::config::{PeerListen, RaftConfig};
use crate::raft::elections::failover;
use crate::raft::engine::RaftEngine;
use crate::raft::membership::{changing, departure};
use crate::raft::network::client::{PeerSender, Peers};
use crate::raft::network::server::PeerServer;
use crate::raft::network::tls::PeerTlsContext;
use crate::raft::node::{Node, Queues, Settings};
use crate::raft::requests::batching::Batcher;
use crate::raft::requests::rounds::Rounds;
use crate::raft::requests::{commands, proposals, reads};
use crate::raft::state::watching::Watching;
use crate::raft::upkeep::{compaction, integrity, leases, log_proof, log_purge, space};

/// Starts this member. Returns when its databases are open and its peers can reach it; a leader may not be known yet.
/// On the first start the members form the quorum by themselves.
///
/// # Errors
/// When the configuration is invalid, the directory belongs to another member, or its data is damaged.
pub async fn start(config: RaftConfig) -> Result<Store, StoreError> {
    let node = start_node(config).await?;
    Ok(Store::new(Arc::new(RaftEngine::new(node))))
}

/// Returns the member that owns a data directory, if there is one. A member that has joined needs no list of founders.
///
/// # Errors
/// When the owner cannot be read.
pub fn owner(data_dir: &Path) -> Result<Option<Member>, StoreError> {
    Ok(identity::read(data_dir)?.filter(|owner| owner.origin != Origin::Joining).map(|owner| owner.member))
}

pub async fn start_node(config: RaftConfig) -> Result<Arc<Node>, StoreError> {
    integrity::check_mark(&config.data_dir)?;
    let lock = identity::lock(&config.data_dir)?;
    let owner = identity::claim(&config.data_dir, &config.member, &config.members)?;
    let (cluster, member) = (owner.cluster, owner.member);
    let tls = PeerTlsContext::load(&config.tls)?;
    let listener = bind(config.peer_listen).await?;
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());

    // Connections and the listener must outlive the transfer of leadership, so they have a token of their own.
    let transport = CancellationToken::new();
    let sender = PeerSender { cluster, member: member.id, incarnation: member.incarnation };
    let peers = Peers::new(sender, config.peer_via, tls.clone(), tasks.clone(), transport.clone());
    let settings = Settings {
        member,
        founders: config.members,
        cluster,
        data_dir: config.data_dir,
        retention: config.retention,
        timing: config.timing,
        log_retention: config.log_retention,
        request_timeout: config.request_timeout,
        reserve_bytes: config.reserve_bytes,
        integrity_interval: config.integrity_interval,
        commands: config.commands,
    };
    let node = launch(settings, HubConfig::default(), peers, tasks, shutdown, transport.clone()).await?;
    let serving = PeerServer::new(node.clone(), listener, tls.acceptor).run(transport);
    node.tasks.spawn(async move {
        serving.await;
        // The transport ends only after the databases are closed, so the directory can be unlocked now.
        drop(lock);
    });
    Ok(node)
}

/// Opens a member and starts its tasks, except for the server that receives its peers' messages. `transport` is
/// cancelled when the member ends.
pub async fn launch(
    settings: Settings,
    hub: HubConfig,
    peers: Peers,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    transport: CancellationToken,
) -> Result<Arc<Node>, StoreError> {
    let (lead, lead_batcher) = Batcher::new(proposals::LIMITS, tasks.clone());
    let (forward, forward_batcher) = Batcher::new(proposals::LIMITS, tasks.clone());
    let (read_index, read_index_rounds) = Rounds::new(reads::QUEUE);
    let (barrier, barrier_rounds) = Rounds::new(reads::QUEUE);
    let node = Arc::new(Node::new(
        settings,
        peers,
        Queues { lead, forward, read_index, barrier },
        Arc::new(Watching::new(hub)),
        tasks.clone(),
        shutdown.clone(),
    ));

    let (opened, open) = oneshot::channel();
    let supervisor = Supervisor::new(node.clone());
    let (supervised, ended) = (shutdown.clone(), transport.clone());
    tasks.spawn(async move {
        supervisor.run(opened, supervised).await;
        ended.cancel();
    });
    match open.await {
        Ok(Ok(())) => {}
        failed => {
            shutdown.cancel();
            tasks.close();
            tasks.wait().await;
            let ended = || Err(StoreError::Fatal("the supervisor ended".to_owned()));
            return Err(failed.unwrap_or_else(|_| ended()).err().unwrap_or(StoreError::ShuttingDown));
        }
    }

    let run = node.clone();
    tasks.spawn(lead_batcher.run(move |batch, slot| proposals::lead(run.clone(), batch, slot), transport.clone()));
    let run = node.clone();
    tasks
        .spawn(forward_batcher.run(move |batch, slot| proposals::forward(run.clone(), batch, slot), transport.clone()));
    let run = node.clone();
    tasks.spawn(read_index_rounds.run(move || reads::read_index_round(run.clone()), transport.clone()));
    let run = node.clone();
    tasks.spawn(barrier_rounds.run(move || reads::barrier_round(run.clone()), transport.clone()));
    tasks.spawn(node.watching.run(node.serving.clone()));
    tasks.spawn(leases::run(node.clone(), shutdown.clone()));
    tasks.spawn(compaction::run_leader(node.clone(), shutdown.clone()));
    tasks.spawn(compaction::run_deletion(node.clone(), shutdown.clone()));
    tasks.spawn(log_proof::run(node.clone(), shutdown.clone()));
    tasks.spawn(log_purge::run(node.clone(), shutdown.clone()));
    tasks.spawn(integrity::run(node.clone(), shutdown.clone()));
    tasks.spawn(space::run(node.clone(), shutdown.clone()));
    tasks.spawn(failover::run(node.clone(), shutdown.clone()));
    tasks.spawn(changing::run(node.clone(), shutdown.clone()));
    tasks.spawn(departure::run(node.clone(), shutdown.clone()));
    tasks.spawn(damage::run(node.clone(), shutdown.clone()));
    tasks.spawn(commands::run(node.clone(), shutdown.clone()));
    Ok(node)
}

async fn bind(listen: PeerListen) -> Result<TcpListener, StoreError> {
    let bound = match listen {
        PeerListen::Address(address) => TcpListener::bind(address).await,
        PeerListen::Bound(listener) => listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)),
    };
    bound.map_err(|error| StoreError::Fatal(format!("cannot listen for peers: {error}")))
}
