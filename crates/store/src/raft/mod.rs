//! A member of the quorum: openraft over RocksDB, and the transport between members.
//!
//! | module | holds |
//! |---|---|
//! | [`config`], [`identity`] | a member's configuration, and the owner of its data directory |
//! | [`types`], [`codec`] | openraft's type parameters, and the encoding on disk and on the wire |
//! | [`log`] | the Raft log |
//! | [`state`], [`state_machine`], [`snapshot`] | the applied state and its copies |
//! | [`network`] | the transport |
//! | [`node`], [`supervisor`] | the running member, and the Raft instance in it, which may be restarted |
//! | [`proposals`], [`reads`], [`batching`] | the entry points: commands and linearizable reads |
//! | [`commands`] | the command version that all members can decode |
//! | [`confirmation`], [`announced`] | how a leader confirms that it still leads, and the commit index it has sent |
//! | [`watching`] | the watch hub over a state that may be replaced (see also [`traces`](crate::traces)) |
//! | [`roster`], [`leadership`], [`failover`], [`voting`] | the members, the leader, and the election when the leader dies |
//! | [`formation`], [`joining`], [`invitations`], [`departure`] | how a quorum forms, and how members join and leave |
//! | [`changing`], [`balance`] | membership changes, and the choice of voters |
//! | [`leases`], [`compaction`], [`upkeep`], [`space`], [`integrity`] | a member's background tasks |
//! | [`damage`], [`ending`], [`told`] | when a member ends by itself, and why |
//! | [`engine`] | the member as an [`Engine`](crate::handle::Engine) |
//!
//! This module does not interpret commands; `quorate-mvcc` does.

mod announced;
mod balance;
pub mod batching;
mod changing;
mod closing;
pub mod codec;
mod commands;
mod compaction;
pub mod config;
mod confirmation;
mod damage;
mod departure;
mod ending;
mod engine;
mod failover;
mod formation;
mod identity;
mod integrity;
mod invitations;
mod joining;
mod leadership;
mod leases;
mod log;
mod network;
mod node;
mod proposals;
mod reads;
mod recovery;
mod restore;
mod roster;
#[cfg(test)]
pub(crate) mod simulation;
pub(crate) mod snapshot;
mod space;
mod state;
mod state_machine;
mod supervisor;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod types;
mod upkeep;
mod voting;
mod watching;

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use invitations::PREFIX as INVITATIONS;
pub use joining::{JoinConfig, join};
pub use recovery::Recovery;
pub use restore::restore;

pub use config::{LogRetention, PeerListen, PeerTls, Pem, RaftConfig, Timing};

use self::batching::{Batcher, Rounds};
use self::engine::RaftEngine;
use self::identity::Origin;
use self::network::client::{Peers, Sender};
use self::network::server::PeerServer;
use self::network::tls::PeerTlsContext;
use self::node::{Node, Queues, Settings};
use self::supervisor::Supervisor;
use self::watching::Watching;
use crate::error::StoreError;
use crate::handle::Store;
use crate::hub::HubConfig;
use crate::membership::Member;
use crate::platform::TaskTracker;
use crate::platform::tokio::net::TcpListener;
use crate::platform::tokio::sync::oneshot;

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

async fn start_node(config: RaftConfig) -> Result<Arc<Node>, StoreError> {
    integrity::check_mark(&config.data_dir)?;
    let lock = identity::lock(&config.data_dir)?;
    let owner = identity::claim(&config.data_dir, &config.member, &config.members)?;
    let (cluster, member) = (owner.cluster, owner.member);
    let tls = PeerTlsContext::load(&config.tls)?;
    let listener = bind(config.peer_listen).await?;
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());

    // Connections and the listener must outlive the transfer of leadership, so they have a token of their own.
    let transport = CancellationToken::new();
    let sender = Sender { cluster, member: member.id, incarnation: member.incarnation };
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
async fn launch(
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
    tasks.spawn(upkeep::run(node.clone(), shutdown.clone()));
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
