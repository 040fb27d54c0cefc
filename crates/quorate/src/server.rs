//! `quorate server`: composes a master.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use quorate_api::key::REGISTRY_ROOT;
use quorate_apiserver::{ALLOCATIONS, Api, JOIN_ROWS, MASTERS, PodDefaults};
use quorate_etcd::{Access, Guard};
use quorate_manager::{Manager, ManagerConfig};
use quorate_pki::{Authorities, LiveIdentity, Pair};
use quorate_store::raft::{self, JoinConfig, PeerListen, PeerTls, Pem, RaftConfig};
use quorate_store::{Member, Store, StoreError};
use rustls::pki_types::CertificateDer;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Join, MemberSpec, ServerArgs, ServerConfig, TlsFiles, read_pem};
use crate::machine::{self, Credentials, Founding};
use crate::{logging, metrics, process};

/// Subdirectory of the data directory for the store.
pub const STORE_DIRECTORY: &str = "store";

/// Maximum number of blocking threads, which is the runtime's default.
const BLOCKING_THREADS: usize = 512;

pub fn main(args: ServerArgs) -> anyhow::Result<()> {
    let mut config = args.resolve()?;
    logging::start(&config.log_level)?;
    // All configuration errors are found before the store is opened.
    let founding = machine::prepare_master(&mut config)?;
    let member = known_member(&config)?;
    let listeners = Listeners::bind(&config)?;
    let start = Start { founding, credentials: credentials(&config)?, listeners };
    process::run(BLOCKING_THREADS, async move |shutdown| serve(config, member, start, shutdown).await)
}

/// Parts that are prepared before the store starts.
struct Start {
    founding: Founding,
    credentials: Credentials,
    listeners: Listeners,
}

/// Indexes of the [`Credentials`] by use.
const API: usize = 0;
const PEER: usize = 1;
const NODES: usize = 2;

fn credentials(config: &ServerConfig) -> anyhow::Result<Credentials> {
    let pair = |files: &TlsFiles| Pair { cert: files.cert.clone(), key: files.key.clone() };
    let node_client = Pair { cert: config.node_client_cert.clone(), key: config.node_client_key.clone() };
    Credentials::load([pair(&config.tls), pair(&config.peer_tls), node_client]).context("cannot load the certificates")
}

struct Listeners {
    api: TcpListener,
    etcd: Option<TcpListener>,
    peer: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    fn bind(config: &ServerConfig) -> anyhow::Result<Listeners> {
        Ok(Listeners {
            api: bind(config.api_listen, "api-listen")?,
            etcd: config.etcd.map(|etcd| bind(etcd.listen, "etcd-listen")).transpose()?,
            peer: bind(config.peer_listen, "peer-listen")?,
            metrics: bind(config.metrics_listen, "metrics-listen")?,
        })
    }
}

/// Listeners of the services above the store.
struct ServiceListeners {
    api: TcpListener,
    etcd: Option<TcpListener>,
    metrics: TcpListener,
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}; change `{key}` or stop what listens there"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(
    config: ServerConfig,
    known: Option<Member>,
    start: Start,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Start { founding, credentials, listeners } = start;
    let name = &config.name;
    let peer_tls = peer_tls(&config, &credentials);
    tracing::info!(name, founders = config.founders.len(), data_dir = %config.data_dir.display(), "starting");
    let member = match known {
        Some(member) => member,
        None => match shutdown.run_until_cancelled(join(&config, peer_tls.clone())).await {
            Some(joined) => joined?,
            None => return Ok(()),
        },
    };
    let raft_config = raft_config(&config, member.clone(), listeners.peer, peer_tls);
    let store = raft::start(raft_config).await.context("the store cannot start")?;
    let api = Api::with_pools(store.clone(), quorate_registry::builtin(), config.pools.clone());
    api.set_build(build()).expect("the API has just been created");
    api.set_pod_defaults(PodDefaults { eviction_after: config.eviction_after, fence_after: config.fence_after });
    if config.managed.is_some() {
        let authorities = Authorities::load(&config.pki(), config.lifetimes())?;
        api.set_authorities(Arc::new(authorities));
    }
    let services = ServiceListeners { api: listeners.api, etcd: listeners.etcd, metrics: listeners.metrics };
    let part = Part { config: &config, founding, member };
    let result = run_services(part, services, credentials, &store, api, shutdown).await;
    store.shutdown().await.context("the store did not stop cleanly")?;
    tracing::info!(name, "stopped");
    result
}

/// Returns the build information that the build script recorded.
fn build() -> quorate_apiserver::Build {
    quorate_apiserver::Build {
        commit: env!("QUORATE_COMMIT"),
        tree_state: env!("QUORATE_TREE_STATE"),
        date_seconds: env!("QUORATE_BUILD_SECONDS").parse().expect("the build script writes a number"),
    }
}

/// This master's membership in its quorum.
struct Part<'a> {
    config: &'a ServerConfig,
    founding: Founding,
    member: Member,
}

/// Runs the services above the store until `shutdown`, or until one of them fails, which ends the others.
async fn run_services(
    part: Part<'_>,
    listeners: ServiceListeners,
    credentials: Credentials,
    store: &Store,
    api: Api,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Part { config, founding, member } = part;
    let tracker = TaskTracker::new();
    let stop = shutdown.child_token();
    let server_config = quorate_apiserver::ServerConfig {
        listener: tokio::net::TcpListener::from_std(listeners.api)?,
        identity: credentials.live(API),
        client_authority_pem: read_pem(&config.tls.ca)?,
        node_client: Some(credentials.live(NODES)),
        max_in_flight: quorate_apiserver::ServerConfig::DEFAULT_MAX_IN_FLIGHT,
        deadlines: quorate_apiserver::Deadlines::default(),
    };
    let server = tracker.spawn(quorate_apiserver::serve(api.clone(), server_config, stop.clone()));
    if let Some(listener) = listeners.etcd {
        let etcd_config = etcd_config(config, listener, credentials.live(API))?;
        tracker.spawn(quorate_etcd::serve(store.clone(), etcd_config, stop.clone()));
    }
    let metrics_listener = tokio::net::TcpListener::from_std(listeners.metrics)?;
    let metrics = tracker.spawn(metrics::serve(metrics_listener, store.clone(), api.clone(), stop.clone()));
    let mut manager_config = ManagerConfig::default();
    let settings = &mut manager_config.settings;
    settings.node_monitor_grace = config.node_monitor_grace;
    settings.eviction_after = config.eviction_after;
    settings.eviction_rate = config.eviction_rate;
    settings.terminated_pods = config.terminated_pods;
    settings.failed_pods_per_replica_set = config.failed_pods_per_replica_set;
    settings.root_authority = Some(root_authority(&config.tls.ca)?);
    let manager = tracker.spawn(Manager::new(store.clone(), api.clone(), manager_config).run(stop.clone()));
    tracker.spawn(machine::keep_master(config.clone(), member, credentials, store.clone(), stop.clone()));
    tracker.spawn(machine::publish_hosts(config.clone(), api.clone(), stop.clone()));
    let announced = machine::announce(founding, config.clone(), api, store.clone(), stop.clone());
    tracker.spawn(async move {
        if let Err(error) = announced.await {
            tracing::error!(error = format!("{error:#}"), "the tokens for other machines were not created");
        }
    });
    tracker.close();

    let result = tokio::select! {
        ended = server => ended?.context("the API server failed"),
        ended = metrics => ended?.context("the metrics endpoint failed"),
        ended = manager => ended?.context("the manager failed"),
        reason = store.removed() => Err(anyhow::anyhow!(reason)),
        () = shutdown.cancelled() => Ok(()),
    };
    stop.cancel();
    tracker.wait().await;
    result
}

fn etcd_config(
    config: &ServerConfig,
    listener: TcpListener,
    identity: Arc<LiveIdentity>,
) -> anyhow::Result<quorate_etcd::ServerConfig> {
    let etcd = config.etcd.context("the etcd API has an address")?;
    let access = if etcd.plain {
        Access::Plain
    } else {
        let tls =
            quorate_apiserver::server_config(identity, &read_pem(&config.tls.ca)?).context("TLS of the etcd API")?;
        // The etcd API has no roles and exposes all Secrets, so only administrators are admitted.
        let is_admin = |certificate: &CertificateDer<'_>| {
            quorate_apiserver::certificate_user(certificate)
                .is_some_and(|user| user.groups.iter().any(|group| group == MASTERS))
        };
        Access::Tls { acceptor: TlsAcceptor::from(Arc::new(tls)), admits: Arc::new(is_admin) }
    };
    // Allocations are guarded too, because they belong to the objects that hold them.
    let registry = [REGISTRY_ROOT, ALLOCATIONS].into_iter().filter(|_| !etcd.write_registry);
    let guard = Guard::new(registry).with_own([raft::INVITATIONS]).with_own(JOIN_ROWS);
    Ok(quorate_etcd::ServerConfig {
        listener: tokio::net::TcpListener::from_std(listener)?,
        access,
        guard,
        answers_bytes: quorate_etcd::ServerConfig::DEFAULT_ANSWERS_BYTES,
    })
}

/// Reads the authority with which pods verify the API server. It also signs the masters' serving certificates.
fn root_authority(file: &Path) -> anyhow::Result<String> {
    String::from_utf8(read_pem(file)?).with_context(|| format!("{} is not PEM", file.display()))
}

/// Returns this member if it is known without the quorum: a founder, or a member that has joined with this directory
/// before.
fn known_member(config: &ServerConfig) -> anyhow::Result<Option<Member>> {
    let owner = raft::owner(&config.data_dir.join(STORE_DIRECTORY))?;
    // The directory's owner takes precedence over the list of founders, which may predate the join.
    if let Some(owner) = owner.filter(|owner| owner.name == config.name) {
        return Ok(Some(owner));
    }
    if config.join.is_some() {
        return Ok(None);
    }
    if let Some(founder) = config.founder() {
        return Ok(Some(member(founder)));
    }
    let names: Vec<_> = config.founders.iter().map(|founder| founder.name.as_str()).collect();
    anyhow::ensure!(names.is_empty(), "`name` is {:?}, but the members are {}", config.name, names.join(", "));
    anyhow::bail!(
        "neither `members` nor `join` is set, and no member owns this directory: name the founding members, or give the \
         token of `qctl quorum add`"
    );
}

/// Joins the quorum with the token.
async fn join(config: &ServerConfig, tls: PeerTls) -> anyhow::Result<Member> {
    let Some(Join::Peers(token)) = &config.join else {
        anyhow::bail!(
            "the token of `join` provides certificates; leave out the certificate files, or use a token of `qctl quorum add`"
        );
    };
    let etcd = config.etcd.map(|etcd| (if etcd.plain { "http" } else { "https" }, etcd.listen.port()));
    let join = JoinConfig {
        token: token.clone(),
        name: config.name.clone(),
        api_port: config.api_listen.port(),
        etcd,
        data_dir: config.data_dir.join(STORE_DIRECTORY),
        tls,
        peer_via: config.peer_via.clone(),
    };
    let joined = raft::join(join).await;
    if is_settled(&joined) {
        machine::Invitation::of(config).remove()?;
    }
    joined.context("cannot join the quorum")
}

/// Returns whether the invitation is used or refused. After any other failure the quorum may have let this master in, and
/// knows it again by the same invitation.
fn is_settled(joined: &Result<Member, StoreError>) -> bool {
    matches!(joined, Ok(_) | Err(StoreError::JoinRefused { .. }))
}

fn peer_tls(config: &ServerConfig, credentials: &Credentials) -> PeerTls {
    PeerTls { ca: Pem::File(config.peer_tls.ca.clone()), identity: credentials.live(PEER) }
}

fn raft_config(config: &ServerConfig, own: Member, listener: TcpListener, tls: PeerTls) -> RaftConfig {
    let founders = config.founders.iter().map(member).collect();
    let (store, listen) = (config.data_dir.join(STORE_DIRECTORY), PeerListen::Bound(listener));
    let mut raft = RaftConfig::new(own, founders, store, listen, tls);
    raft.retention = config.retention;
    raft.log_retention = config.log_retention;
    raft.peer_via.clone_from(&config.peer_via);
    raft
}

pub fn member(spec: &MemberSpec) -> Member {
    Member {
        id: spec.id,
        name: spec.name.clone(),
        peer: spec.peer.clone(),
        api: spec.api.clone(),
        etcd: spec.etcd.clone(),
        ..Member::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_join_or_a_refusal_uses_up_the_invitation() {
        let refused = StoreError::JoinRefused { name: "m2".to_owned(), reason: "the token is not known".to_owned() };
        assert!(is_settled(&Ok(Member::default())) && is_settled(&Err(refused)));
        for error in [
            StoreError::NoLeader("nobody answers".to_owned()),
            // The answer could not be written to the disk.
            StoreError::Fatal("no space left on device".to_owned()),
            StoreError::ShuttingDown,
        ] {
            assert!(!is_settled(&Err(error.clone())), "{error}");
        }
    }
}
