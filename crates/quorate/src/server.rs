//! `quorate server`: composes one master.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context;
use quorate_apiserver::{Api, Identity};
use quorate_manager::{Manager, ManagerConfig};
use quorate_store::raft::{self, PeerListen, PeerTls, Pem, RaftConfig};
use quorate_store::{Member, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{MemberSpec, ServerArgs, ServerConfig, read_pem};
use crate::{logging, metrics, process};

pub fn main(args: ServerArgs) -> anyhow::Result<()> {
    let config = args.resolve()?;
    logging::start(&config.log_level)?;
    // Everything that can be wrong is found before the store is opened.
    let listeners = Listeners::bind(&config)?;
    process::run(async move |shutdown| serve(config, listeners, shutdown).await)
}

struct Listeners {
    api: TcpListener,
    peer: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    fn bind(config: &ServerConfig) -> anyhow::Result<Listeners> {
        Ok(Listeners {
            api: bind(config.api_listen, "api-listen")?,
            peer: bind(config.peer_listen, "peer-listen")?,
            metrics: bind(config.metrics_listen, "metrics-listen")?,
        })
    }
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}; change `{key}` or stop what listens there"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(config: ServerConfig, listeners: Listeners, shutdown: CancellationToken) -> anyhow::Result<()> {
    let name = &config.member.name;
    tracing::info!(name, members = config.members.len(), data_dir = %config.data_dir.display(), "starting");
    let store = raft::start(raft_config(&config, listeners.peer)).await.context("the store cannot start")?;
    let api = Api::new(store.clone(), quorate_registry::builtin());
    let result = run_services(&config, listeners.api, listeners.metrics, &store, api, shutdown).await;
    store.shutdown().await.context("the store did not stop in order")?;
    tracing::info!(name, "stopped");
    result
}

/// Runs everything above the store, until `shutdown` or until one part fails, which ends the others.
async fn run_services(
    config: &ServerConfig,
    api_listener: TcpListener,
    metrics_listener: TcpListener,
    store: &Store,
    api: Api,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let tracker = TaskTracker::new();
    let stop = shutdown.child_token();
    let server_config = quorate_apiserver::ServerConfig {
        listener: tokio::net::TcpListener::from_std(api_listener)?,
        identity: identity(&config.tls.cert, &config.tls.key)?,
        client_authority_pem: read_pem(&config.tls.ca)?,
        node_client: Some(identity(&config.node_client_cert, &config.node_client_key)?),
        max_in_flight: quorate_apiserver::ServerConfig::DEFAULT_MAX_IN_FLIGHT,
    };
    let server = tracker.spawn(quorate_apiserver::serve(api.clone(), server_config, stop.clone()));
    let metrics_listener = tokio::net::TcpListener::from_std(metrics_listener)?;
    let metrics = tracker.spawn(metrics::serve(metrics_listener, store.clone(), stop.clone()));
    let mut manager_config = ManagerConfig::default();
    manager_config.settings.node_monitor_grace = config.node_monitor_grace;
    manager_config.settings.eviction_after = config.eviction_after;
    let manager = tracker.spawn(Manager::new(store.clone(), api, manager_config).run(stop.clone()));
    tracker.close();

    let result = tokio::select! {
        ended = server => ended?.context("the API server failed"),
        ended = metrics => ended?.context("the metrics endpoint failed"),
        ended = manager => ended?.context("the manager failed"),
        () = shutdown.cancelled() => Ok(()),
    };
    stop.cancel();
    tracker.wait().await;
    result
}

fn identity(cert: &Path, key: &Path) -> anyhow::Result<Identity> {
    Ok(Identity { certificate_pem: read_pem(cert)?, key_pem: read_pem(key)? })
}

fn raft_config(config: &ServerConfig, listener: TcpListener) -> RaftConfig {
    let tls = PeerTls {
        ca: Pem::File(config.peer_tls.ca.clone()),
        cert: Pem::File(config.peer_tls.cert.clone()),
        key: Pem::File(config.peer_tls.key.clone()),
    };
    let members = config.members.iter().map(member).collect();
    let listen = PeerListen::Bound(listener);
    let mut raft = RaftConfig::new(member(&config.member), members, config.data_dir.join("store"), listen, tls);
    raft.retention = config.retention;
    raft
}

fn member(spec: &MemberSpec) -> Member {
    Member { id: spec.id, name: spec.name.clone(), peer: spec.peer.clone(), api: spec.api.clone() }
}
