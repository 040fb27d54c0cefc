//! A quorum in one process. Each member has its own directory and port.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::Revision;
use quorate_mvcc::{Command, KeyRange, LeaseId, Op, PutRequest, RangeRequest, Txn};
use quorate_pki::LiveIdentity;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::membership::{Member, MemberId};
use crate::raft::engine::RaftEngine;
use crate::raft::lifecycle::start::start_node;
use crate::raft::node::Node;
use crate::raft::{PeerListen, PeerTls, Pem, RaftConfig, start};
use crate::{Consistency, Store, StoreError};

/// Deadline for everything in these tests, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The members of a quorum, of which some or all run in this process.
pub struct Cluster {
    dir: TempDir,
    members: Vec<Member>,
    tls: PeerTls,
    stores: Vec<Option<Store>>,
    listeners: Vec<Option<TcpListener>>,
    adjust: fn(&mut RaftConfig),
}

impl Cluster {
    /// Starts `size` members.
    pub async fn start(size: u64) -> Self {
        Cluster::start_with(size, |_| {}).await
    }

    pub async fn start_with(size: u64, adjust: fn(&mut RaftConfig)) -> Self {
        let mut cluster = Cluster::prepare(size, adjust);
        for id in 1..=size {
            cluster.restart(id).await;
        }
        cluster
    }

    pub fn prepare(size: u64, adjust: fn(&mut RaftConfig)) -> Self {
        let listeners: Vec<_> = (0..size).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let members = listeners.iter().zip(1..).map(|(listener, id)| Member {
            id,
            name: format!("m{id}"),
            peer: listener.local_addr().expect("bound").to_string(),
            ..Member::default()
        });
        Cluster {
            dir: tempfile::tempdir().expect("a directory"),
            members: members.collect(),
            tls: certificates(),
            stores: (0..size).map(|_| None).collect(),
            listeners: listeners.into_iter().map(Some).collect(),
            adjust,
        }
    }

    /// Releases the ports, so that the members can bind them themselves.
    pub fn release_ports(&mut self) {
        self.listeners.iter_mut().for_each(|listener| drop(listener.take()));
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn tls(&self) -> &PeerTls {
        &self.tls
    }

    pub fn config(&self, id: MemberId) -> RaftConfig {
        let member = self.members[slot(id)].clone();
        let address = member.peer.parse().expect("an address");
        let dir = self.data_dir(id);
        let mut config =
            RaftConfig::new(member, self.members.clone(), dir, PeerListen::Address(address), self.tls.clone());
        config.reserve_bytes = 1 << 20;
        (self.adjust)(&mut config);
        config
    }

    pub fn data_dir(&self, id: MemberId) -> PathBuf {
        self.dir.path().join(format!("m{id}"))
    }

    /// Starts a member from its directory.
    pub async fn restart(&mut self, id: MemberId) {
        let mut config = self.config(id);
        if let Some(listener) = self.listeners[slot(id)].take() {
            config.peer_listen = PeerListen::Bound(listener);
        }
        self.stores[slot(id)] = Some(start(config).await.expect("the member starts"));
    }

    /// Shuts a member down.
    pub async fn stop(&mut self, id: MemberId) {
        let store = self.stores[slot(id)].take().expect("it runs");
        store.shutdown().await.expect("it stops");
    }

    pub fn store(&self, id: MemberId) -> &Store {
        self.stores[slot(id)].as_ref().expect("it runs")
    }

    pub fn running(&self) -> impl Iterator<Item = (MemberId, &Store)> {
        self.stores.iter().zip(1..).filter_map(|(store, id)| Some((id, store.as_ref()?)))
    }

    /// Waits until a running member is an active leader.
    pub async fn leader(&self) -> MemberId {
        eventually("a leader", async || {
            self.running().find(|(_, store)| store.leadership().borrow().is_active_leader).map(|(id, _)| id)
        })
        .await
    }

    /// Waits until all running members are at the same revision, and compares their states.
    pub async fn assert_equal_states(&self) {
        let hashes = eventually("equal revisions", async || {
            let mut hashes = Vec::new();
            for (_, store) in self.running() {
                let state = store.hash_at(Revision::ZERO).await.ok()?;
                hashes.push((state.revision, state.hash));
            }
            hashes.windows(2).all(|pair| pair[0].0 == pair[1].0).then_some(hashes)
        })
        .await;
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    }

    pub async fn shutdown(mut self) {
        let stores: Vec<_> = self.stores.iter_mut().filter_map(Option::take).collect();
        futures::future::join_all(stores.iter().map(|store| store.shutdown())).await;
    }
}

/// Calls `ask` again and again until it returns an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

pub fn put(key: &str, value: &[u8]) -> Command {
    put_with_lease(key, value, LeaseId::NONE)
}

pub fn put_with_lease(key: &str, value: &[u8], lease: LeaseId) -> Command {
    let put = PutRequest {
        key: key.to_owned().into(),
        value: bytes::Bytes::copy_from_slice(value),
        lease,
        ..PutRequest::default()
    };
    Command::Txn(Txn { success: vec![Op::Put(put)], ..Txn::default() })
}

/// Returns the last running member of a quorum of three that has written `k`. The cluster keeps its directory.
pub async fn last_of_three() -> (Cluster, Arc<Node>, Store) {
    let mut cluster = Cluster::prepare(3, |_| {});
    for id in [1, 2] {
        cluster.restart(id).await;
    }
    cluster.release_ports();
    let node = start_node(cluster.config(3)).await.expect("it starts");
    let store = Store::new(Arc::new(RaftEngine::new(node.clone())));
    put_surely(&store, "k", b"0").await;
    for id in [1, 2] {
        cluster.stop(id).await;
    }
    (cluster, node, store)
}

/// Puts a key, and retries after errors for which a second put does no harm.
pub async fn put_surely(store: &Store, key: &str, value: &[u8]) -> Revision {
    eventually("a write", async || match store.propose(put(key, value)).await {
        Ok(reply) => Some(reply.revision),
        Err(StoreError::NoLeader(_) | StoreError::OutcomeUnknown(_) | StoreError::Overloaded) => None,
        Err(error) => panic!("{error}"),
    })
    .await
}

pub async fn get(store: &Store, key: &str, consistency: Consistency) -> Result<Option<Vec<u8>>, StoreError> {
    let request = RangeRequest::new(KeyRange::key(key.to_owned()));
    let response = store.range(&request, consistency).await?;
    Ok(response.kvs.first().map(|kv| kv.value.to_vec()))
}

fn slot(id: MemberId) -> usize {
    usize::try_from(id - 1).expect("few members")
}

pub fn certificates() -> PeerTls {
    let Pems { ca, cert, key } = pems();
    let identity = LiveIdentity::from_pem(&cert, &key).expect("the key matches the certificate");
    PeerTls { ca: Pem::Bytes(ca), identity }
}

/// A certificate with its key, and the CA that signed it.
pub struct Pems {
    pub ca: Vec<u8>,
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

pub fn pems() -> Pems {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let member = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = member.signed_by(&key, &issuer).expect("a certificate");
    Pems {
        ca: ca_certificate.pem().into_bytes(),
        cert: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    }
}

/// Prints the members' logs, as selected by `RUST_LOG`.
pub fn show_logs() {
    let shown = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    // Another test in this process may have set the subscriber already.
    drop(shown);
}
