//! The layout of a cluster on one machine: directories, ports, certificates, configuration files.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_pki::{Authorities, Authority, Lifetimes, Pair, Subject, Usage};
use quorate_registry::pool::Pools;
use rand::Rng;

use super::UpArgs;
use super::cluster::{ClusterFile, ClusterMember, Role};
use super::quorum;
use crate::config::{AgentOptions, MemberSpec, ServerOptions, check_quorum_size};
use crate::kubeconfig;
use crate::logging::progress;
use crate::machine;

/// Validity of the certificates, long enough for any cluster on one machine.
const LIFETIMES: Lifetimes =
    Lifetimes { certificate: Duration::from_secs(3650 * 24 * 3600), authority: Duration::from_secs(3650 * 24 * 3600) };

/// Range of ports to pick from. It lies below Linux's range for outgoing connections, so the port of a stopped member
/// stays free until the member returns.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Data directory of a cluster.
pub struct Layout {
    pub data_dir: PathBuf,
}

impl Layout {
    pub fn open(args: &UpArgs) -> anyhow::Result<Layout> {
        check_quorum_size(args.masters)?;
        fs::create_dir_all(&args.data_dir).with_context(|| format!("cannot create {}", args.data_dir.display()))?;
        let data_dir = args.data_dir.canonicalize()?;
        fs::create_dir_all(data_dir.join("logs"))?;
        Ok(Layout { data_dir })
    }

    pub fn logs(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// Returns the existing cluster or a new one, with certificates and configuration files written. An existing
    /// cluster keeps its members and addresses, because they are part of its Raft state. New masters join it, and
    /// masters that its quorum has removed are dropped.
    pub async fn prepare(&self, args: &UpArgs) -> anyhow::Result<ClusterFile> {
        let mut cluster = match ClusterFile::load(&self.data_dir)? {
            Some(cluster) => self.current(args, cluster).await?,
            None => self.new_cluster(args)?,
        };
        while cluster.count(Role::Master) < args.masters {
            let mut master = self.new_master(args, &cluster)?;
            master.join = Some(quorum::invite(self, &cluster, &master).await?);
            cluster.members.push(master);
        }
        self.write_files(args, &cluster)?;
        Ok(cluster)
    }

    /// Returns an existing cluster, without the masters that were removed from its quorum.
    async fn current(&self, args: &UpArgs, mut cluster: ClusterFile) -> anyhow::Result<ClusterFile> {
        if let Some(names) = quorum::members(self, &cluster).await {
            cluster.members.retain(|member| {
                let stays = member.role == Role::Worker || names.contains(&member.name);
                if !stays {
                    progress(format!("{} is no longer a member of the quorum; it is not started", member.name));
                }
                stays
            });
        }
        let (masters, workers) = (cluster.count(Role::Master), cluster.count(Role::Worker));
        ensure!(
            masters <= args.masters && workers == args.workers,
            "{} holds a cluster of {masters} masters and {workers} workers; ask for these, or for more masters, or use \
             another --data-dir. `qctl quorum remove` removes a master",
            self.data_dir.display()
        );
        Ok(cluster)
    }

    /// Returns a new master that will join.
    fn new_master(&self, args: &UpArgs, cluster: &ClusterFile) -> anyhow::Result<ClusterMember> {
        let mut ports = Ports::new(None);
        let is_free = |name: &String| {
            !self.data_dir.join(name).exists() && cluster.members.iter().all(|member| member.name != *name)
        };
        let name = (1..).map(|number| format!("master-{number}")).find(is_free).context("a free name")?;
        self.member(args, Role::Master, name, &mut ports)
    }

    fn new_cluster(&self, args: &UpArgs) -> anyhow::Result<ClusterFile> {
        let mut ports = Ports::new(args.base_port);
        let mut members = Vec::new();
        for (role, prefix, count) in [(Role::Master, "master", args.masters), (Role::Worker, "worker", args.workers)] {
            for i in 1..=count {
                members.push(self.member(args, role, format!("{prefix}-{i}"), &mut ports)?);
            }
        }
        let name = format!("up-{:08x}", rand::rng().random::<u32>());
        let founders = founders(&members)?;
        Ok(ClusterFile { name, runtime: args.runtime, members, founders })
    }

    fn member(&self, args: &UpArgs, role: Role, name: String, ports: &mut Ports) -> anyhow::Result<ClusterMember> {
        let mut url = |scheme: &str| -> anyhow::Result<Option<String>> {
            Ok(Some(format!("{scheme}://127.0.0.1:{}", ports.next()?)))
        };
        let master = role == Role::Master;
        Ok(ClusterMember {
            role,
            pid: 0,
            log: self.logs().join(format!("{name}.log")),
            data: self.data_dir.join(&name),
            api: if master { url("https")? } else { None },
            etcd: if master { url(if args.etcd_plain { "http" } else { "https" })? } else { None },
            peer: if master { url("https")? } else { None },
            metrics: if master { url("http")? } else { None },
            node: if master { None } else { url("https")? },
            join: None,
            name,
        })
    }

    fn write_files(&self, args: &UpArgs, cluster: &ClusterFile) -> anyhow::Result<()> {
        let pki = self.data_dir.join("pki");
        let Authorities { cluster: ca, peers: peer_ca, lifetimes } = Authorities::open(&pki, LIFETIMES)?;
        let [ca_cert, peer_ca_cert] = [Authorities::CLUSTER, Authorities::PEERS].map(|name| Pair::new(&pki, name).cert);
        let hosts = ["localhost", "127.0.0.1"].map(str::to_owned);
        // The masters run with the default `service-cidr`.
        let api_hosts = machine::api_hosts(&Pools::default());
        let issue = |authority: &Authority, file: &str, user: &str, group: Option<&str>, hosts: &[String], usage| {
            let pair = Pair::new(&pki, file);
            // The certificates of an older version may lack some hosts.
            if machine::is_due(&pair.cert, hosts)? {
                let (user, group, hosts) = (user.to_owned(), group.map(str::to_owned), hosts.to_vec());
                authority.issue(&pair, &Subject { user, group, hosts, usage }, lifetimes.certificate)?;
            }
            anyhow::Ok(pair)
        };
        let servers = cluster.with_role(Role::Master).filter_map(|master| master.api.clone()).collect::<Vec<_>>();
        for member in cluster.with_role(Role::Master) {
            let name = &member.name;
            let serving = issue(&ca, name, name, None, &api_hosts, Usage::Server)?;
            let peer = issue(&peer_ca, &format!("{name}-peer"), name, None, &hosts, Usage::Peer)?;
            let node_client = issue(
                &ca,
                &format!("{name}-node-client"),
                "quorate:apiserver",
                Some("system:masters"),
                &[],
                Usage::Client,
            )?;
            write_config(
                member,
                &ServerOptions {
                    name: Some(name.clone()),
                    data_dir: Some(member.data.clone()),
                    members: member.join.is_none().then(|| cluster.founders.clone()),
                    join: member.join.clone(),
                    api_listen: Some(address(member.api.as_deref())?),
                    etcd_listen: member.etcd.as_deref().map(|url| address(Some(url))).transpose()?,
                    etcd_plain: member.etcd.as_ref().map(|url| url.starts_with("http://")),
                    peer_listen: Some(address(member.peer.as_deref())?),
                    metrics_listen: Some(address(member.metrics.as_deref())?),
                    client_ca_file: Some(ca_cert.clone()),
                    tls_cert_file: Some(serving.cert),
                    tls_key_file: Some(serving.key),
                    peer_ca_file: Some(peer_ca_cert.clone()),
                    peer_cert_file: Some(peer.cert),
                    peer_key_file: Some(peer.key),
                    node_client_cert_file: Some(node_client.cert),
                    node_client_key_file: Some(node_client.key),
                    node_monitor_grace: args.node_monitor_grace,
                    eviction_after: args.eviction_after,
                    fence_after: args.fence_after,
                    log_level: args.log_level.clone(),
                    ..ServerOptions::default()
                },
            )?;
        }
        for member in cluster.with_role(Role::Worker) {
            let name = &member.name;
            let user = format!("system:node:{name}");
            let client = issue(&ca, &format!("{name}-client"), &user, Some("system:nodes"), &[], Usage::Client)?;
            let serving = issue(&ca, name, &user, None, &hosts, Usage::Server)?;
            write_config(
                member,
                &AgentOptions {
                    node_name: Some(name.clone()),
                    cluster: Some(cluster.name.clone()),
                    masters: Some(servers.clone()),
                    data_dir: Some(member.data.clone()),
                    listen: Some(address(member.node.as_deref())?),
                    runtime: Some(cluster.runtime),
                    ca_file: Some(ca_cert.clone()),
                    client_cert_file: Some(client.cert),
                    client_key_file: Some(client.key),
                    tls_cert_file: Some(serving.cert),
                    tls_key_file: Some(serving.key),
                    heartbeat_interval: args.heartbeat_interval,
                    log_level: args.log_level.clone(),
                    ..AgentOptions::default()
                },
            )?;
        }
        let admin = issue(&ca, "admin", "kubernetes-admin", Some("system:masters"), &[], Usage::Client)?;
        kubeconfig::write(&self.kubeconfig(), "quorate", &servers, &ca_cert, &admin)
    }
}

/// Returns the list of founders. Their ids are their positions, starting at 1.
fn founders(members: &[ClusterMember]) -> anyhow::Result<Vec<MemberSpec>> {
    let spec = |(id, member): (u64, &ClusterMember)| -> anyhow::Result<MemberSpec> {
        let (api, peer) = member.api.clone().zip(member.peer.as_deref()).context("a master without addresses")?;
        let peer = peer.trim_start_matches("https://").to_owned();
        Ok(MemberSpec { id, name: member.name.clone(), peer, api, etcd: member.etcd.clone().unwrap_or_default() })
    };
    (1..).zip(members.iter().filter(|member| member.role == Role::Master)).map(spec).collect()
}

fn address(url: Option<&str>) -> anyhow::Result<SocketAddr> {
    let (_, address) = url.and_then(|url| url.split_once("://")).context("cluster.json lacks an address")?;
    address.parse().with_context(|| format!("cluster.json: {address:?} is not an address"))
}

fn write_config(member: &ClusterMember, options: &impl serde::Serialize) -> anyhow::Result<()> {
    // The options may contain a token, so the file is private.
    Ok(quorate_pki::write_private(&member.config(), toml::to_string(options)?.as_bytes())?)
}

/// Allocates ports that are currently free.
struct Ports {
    /// Next port to use. The type is wider than a port, so that it can count past the last one.
    base: Option<u32>,
    taken: HashSet<u16>,
}

impl Ports {
    fn new(base: Option<u16>) -> Self {
        Ports { base: base.map(u32::from), taken: HashSet::new() }
    }

    fn next(&mut self) -> anyhow::Result<u16> {
        if let Some(base) = &mut self.base {
            let port = u16::try_from(*base).context("--base-port is too high for so many members")?;
            *base += 1;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port} is not free"))?;
            return Ok(port);
        }
        for _ in 0..1000 {
            let port = rand::rng().random_range(PORTS);
            if self.taken.insert(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        anyhow::bail!("no port between {} and {} is free", PORTS.start, PORTS.end)
    }
}
