//! `bench kv`: puts and linearizable reads on a quorum in this process. The members use TLS over real sockets and sync
//! their logs to the disk. The benchmark covers the store only, without REST or objects.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use quorate_api::Revision;
use quorate_mvcc::{Command, KeyRange, Op, PutRequest, RangeRequest, Txn};
use quorate_pki::LiveIdentity;
use quorate_store::raft::{self, PeerListen, PeerTls, Pem, RaftConfig};
use quorate_store::{Consistency, Member, Store};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::report::{Latencies, Report, per_second};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 3)]
    masters: usize,
    /// Numbers of concurrent clients; each number is one round.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,
    /// Duration of each round, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Number of keys that are written and read.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Members that the clients use.
    #[arg(long, value_enum, default_value_t = Through::All)]
    through: Through,
    /// Parent of the members' data directory. Its disk decides the cost of a sync.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Through {
    All,
    Leader,
    Followers,
}

#[derive(Clone, Copy)]
enum Operation {
    Put,
    Read,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let quorum = Quorum::start(args.masters, &args.dir).await?;
    let stores = quorum.stores(args.through).await?;
    let mut report =
        Report::new("kv", &["operation", "clients", "count", "per second", "p50 ms", "p90 ms", "p99 ms", "max ms"]);
    report.set("masters", args.masters);
    report.set("through", format!("{:?}", args.through).to_lowercase());
    report.set("value-bytes", args.value_bytes);
    report.set("keys", args.keys);
    let length = Duration::from_secs(args.seconds);
    for (name, operation) in [("put", Operation::Put), ("read (linearizable)", Operation::Read)] {
        for &clients in &args.clients {
            let (latencies, elapsed) = load(&stores, operation, clients, length, &args).await?;
            let count = latencies.count();
            let head = [name.to_owned(), clients.to_string(), count.to_string(), per_second(count, elapsed)];
            report.row(head.into_iter().chain([0.5, 0.9, 0.99, 1.0].map(|q| latencies.quantile_ms(q))));
        }
    }
    let hash = quorum.stop().await?;
    report.set("state-hash", format!("{hash:016x}"));
    Ok(report)
}

/// Lets clients repeat an operation for a while.
async fn load(
    stores: &[Store],
    operation: Operation,
    clients: usize,
    length: Duration,
    args: &Args,
) -> anyhow::Result<(Latencies, Duration)> {
    let counter = Arc::new(AtomicU64::new(0));
    let value = Bytes::from(vec![b'v'; args.value_bytes]);
    let keys = args.keys.max(1);
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (store, counter, value) = (stores[client % stores.len()].clone(), counter.clone(), value.clone());
        tasks.spawn(async move {
            let mut latencies = Latencies::new();
            while started.elapsed() < length {
                let key = Bytes::from(format!("/bench/{:08}", counter.fetch_add(1, Ordering::Relaxed) % keys));
                let began = Instant::now();
                match operation {
                    Operation::Put => put(&store, key, value.clone()).await?,
                    Operation::Read => read(&store, key).await?,
                }
                latencies.record(began.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Latencies::new();
    while let Some(latencies) = tasks.join_next().await {
        all.merge(&latencies??);
    }
    Ok((all, started.elapsed()))
}

async fn put(store: &Store, key: Bytes, value: Bytes) -> anyhow::Result<()> {
    let put = PutRequest { key, value, ..PutRequest::default() };
    let reply = store.propose(Command::Txn(Txn { success: vec![Op::Put(put)], ..Txn::default() })).await?;
    reply.outcome?;
    Ok(())
}

async fn read(store: &Store, key: Bytes) -> anyhow::Result<()> {
    let request = RangeRequest::new(KeyRange::key(key));
    store.range(&request, Consistency::Linearizable).await?;
    Ok(())
}

/// A quorum whose members run in this process.
struct Quorum {
    stores: Vec<Store>,
    _dir: TempDir,
}

impl Quorum {
    async fn start(size: usize, dir: &std::path::Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir_in(dir).context("a directory for the members' data")?;
        let tls = certificates()?;
        let mut listeners = Vec::new();
        let mut members = Vec::new();
        for id in 1..=u64::try_from(size)? {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let peer = listener.local_addr()?.to_string();
            members.push(Member { id, name: format!("m{id}"), peer, ..Member::default() });
            listeners.push(listener);
        }
        let mut stores = Vec::new();
        for (member, listener) in members.iter().zip(listeners) {
            let listen = PeerListen::Bound(listener);
            let config =
                RaftConfig::new(member.clone(), members.clone(), dir.path().join(&member.name), listen, tls.clone());
            stores.push(raft::start(config).await.with_context(|| format!("starting {}", member.name))?);
        }
        Ok(Quorum { stores, _dir: dir })
    }

    /// Waits for a leader, and returns the members to use.
    async fn stores(&self, through: Through) -> anyhow::Result<Vec<Store>> {
        let mut waiting = JoinSet::new();
        for store in &self.stores {
            let mut leadership = store.leadership();
            waiting
                .spawn(async move { leadership.wait_for(|leadership| leadership.is_active_leader).await.map(|_| ()) });
        }
        let elected = tokio::time::timeout(Duration::from_secs(30), waiting.join_next()).await;
        elected.context("no leader within 30 s")?.context("no members")???;
        let is_leader = |store: &Store| store.leadership().borrow().is_active_leader;
        let picked: Vec<_> = self
            .stores
            .iter()
            .filter(|store| match through {
                Through::All => true,
                Through::Leader => is_leader(store),
                Through::Followers => !is_leader(store),
            })
            .cloned()
            .collect();
        ensure!(!picked.is_empty(), "there is no such member");
        Ok(picked)
    }

    /// Checks that all members have the same state, and stops them.
    async fn stop(self) -> anyhow::Result<u64> {
        let mut hashes = Vec::new();
        for store in &self.stores {
            store.read_barrier().await?;
            let state = store.hash_at(Revision::ZERO).await?;
            hashes.push((state.revision, state.hash));
        }
        ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "the members differ: {hashes:?}");
        for store in &self.stores {
            store.shutdown().await?;
        }
        Ok(hashes.first().map_or(0, |&(_, hash)| hash))
    }
}

fn certificates() -> anyhow::Result<PeerTls> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    let identity = LiveIdentity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
    Ok(PeerTls { ca: Pem::Bytes(ca_certificate.pem().into_bytes()), identity })
}
