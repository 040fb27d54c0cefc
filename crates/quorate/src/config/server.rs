//! Options of `quorate server`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use quorate_api::fence;
use quorate_manager::{EvictionRate, Settings};
use quorate_pki::{Authorities, JoinToken, Lifetimes, parse_host};
use quorate_registry::pool::{AddressBlock, Pools};
use quorate_store::Token;
use quorate_store::raft::LogRetention;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, MemberSpec, PKI_DIRECTORY, TlsFiles, host_name, overlay, read_file, required};

pub const DEFAULT_DATA_DIR: &str = "/var/lib/quorate/server";
/// File in the data directory that keeps the options of the first start.
pub const KEPT_FILE: &str = "server.toml";

/// File names of the certificates that this master issues, without their extension.
pub const SERVER: &str = "server";
pub const PEER: &str = "peer";
pub const NODE_CLIENT: &str = "node-client";
pub const ADMIN: &str = "admin";

#[derive(clap::Args, Clone, Debug)]
pub struct ServerArgs {
    /// TOML file with any of the options below; see `config/server.toml` for an example.
    #[arg(long, env = "QUORATE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: ServerOptions,
}

#[derive(clap::Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServerOptions {
    /// Name of this member. [default: the host name]
    #[arg(long, env = "QUORATE_NAME")]
    pub name: Option<String>,
    /// Directory for the log, the state and the certificates. [default: /var/lib/quorate/server]
    #[arg(long, env = "QUORATE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// All founding members, including this one: 1, 3, 5 or 7. Separated by `;` in a flag or variable. Once the quorum
    /// is formed, only its own list of members counts.
    #[arg(long, env = "QUORATE_MEMBERS", value_delimiter = ';')]
    pub members: Option<Vec<MemberSpec>>,
    /// Founds a cluster: creates its authorities and certificates, and a quorum of this master alone. Prints the
    /// commands to run on other machines. Ignored once the cluster is founded. [default: false]
    #[arg(long, env = "QUORATE_INIT", num_args = 0..=1, default_missing_value = "true")]
    pub init: Option<bool>,
    /// Joins a running quorum with a token, as `TOKEN@HOST:PORT,HOST:PORT`. A token of `qctl token create --role
    /// master` also provides the certificates; a token of `qctl quorum add` needs certificate files of your own.
    /// Ignored once this member has joined.
    #[arg(long, env = "QUORATE_JOIN")]
    pub join: Option<String>,
    /// Host or address under which other machines reach this one, when Quorate issues its certificates. [default: its
    /// first address]
    #[arg(long, env = "QUORATE_ADVERTISE")]
    pub advertise: Option<String>,
    /// Additional names and addresses in the API's certificate, such as those of a load balancer.
    #[arg(long, env = "QUORATE_TLS_NAMES", value_delimiter = ',')]
    pub tls_names: Option<Vec<String>>,
    /// Validity of the certificates that Quorate issues. They are renewed in the last third of it. [default: 365d]
    #[arg(long, env = "QUORATE_CERTIFICATE_LIFETIME")]
    pub certificate_lifetime: Option<HumanDuration>,
    /// Validity of the authorities that `init` creates. [default: 3650d]
    #[arg(long, env = "QUORATE_AUTHORITY_LIFETIME")]
    pub authority_lifetime: Option<HumanDuration>,
    /// Addresses at which this member reaches others, when they differ from those that the quorum knows:
    /// `name=host:port`, separated by `;`.
    #[arg(long, env = "QUORATE_PEER_VIA", value_delimiter = ';')]
    pub peer_via: Option<Vec<String>>,
    /// Address of the REST API. [default: 0.0.0.0:6443]
    #[arg(long, env = "QUORATE_API_LISTEN")]
    pub api_listen: Option<SocketAddr>,
    /// Address of the etcd v3 API. Clients need an administrator's certificate. [default: 0.0.0.0:2379 when Quorate
    /// issues the certificates, otherwise not served]
    #[arg(long, env = "QUORATE_ETCD_LISTEN")]
    pub etcd_listen: Option<SocketAddr>,
    /// Serves the etcd API without TLS or authentication, on a loopback address. [default: false]
    #[arg(long, env = "QUORATE_ETCD_PLAIN", num_args = 0..=1, default_missing_value = "true")]
    pub etcd_plain: Option<bool>,
    /// Lets the etcd API write the keys of the Kubernetes objects, bypassing all admission. [default: false]
    #[arg(long, env = "QUORATE_ETCD_WRITE_REGISTRY", num_args = 0..=1, default_missing_value = "true")]
    pub etcd_write_registry: Option<bool>,
    /// Address of the peer transport. [default: 0.0.0.0:2380]
    #[arg(long, env = "QUORATE_PEER_LISTEN")]
    pub peer_listen: Option<SocketAddr>,
    /// Address of the metrics and health endpoint, plain HTTP. [default: 127.0.0.1:9090]
    #[arg(long, env = "QUORATE_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Authority that signs the certificates of clients and nodes, PEM.
    #[arg(long, env = "QUORATE_CLIENT_CA_FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Serving certificate of the REST API, PEM.
    #[arg(long, env = "QUORATE_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate, PEM.
    #[arg(long, env = "QUORATE_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Authority that signs the members' peer certificates, PEM. It must sign nothing else.
    #[arg(long, env = "QUORATE_PEER_CA_FILE")]
    pub peer_ca_file: Option<PathBuf>,
    /// Peer certificate of this member, PEM.
    #[arg(long, env = "QUORATE_PEER_CERT_FILE")]
    pub peer_cert_file: Option<PathBuf>,
    /// Key of the peer certificate, PEM.
    #[arg(long, env = "QUORATE_PEER_KEY_FILE")]
    pub peer_key_file: Option<PathBuf>,
    /// Client certificate for requests to the node agents, PEM.
    #[arg(long, env = "QUORATE_NODE_CLIENT_CERT_FILE")]
    pub node_client_cert_file: Option<PathBuf>,
    /// Key of the client certificate for the node agents, PEM.
    #[arg(long, env = "QUORATE_NODE_CLIENT_KEY_FILE")]
    pub node_client_key_file: Option<PathBuf>,
    /// Time that old versions are kept for watches and paged lists. [default: 10m]
    #[arg(long, env = "QUORATE_RETENTION")]
    pub retention: Option<HumanDuration>,
    /// Minimum size of the log to keep for masters that were away, in bytes. A master that missed more gets a snapshot.
    /// [default: 268435456]
    #[arg(long, env = "QUORATE_LOG_KEEP_BYTES")]
    pub log_keep_bytes: Option<u64>,
    /// Time without a heartbeat after which a node is not ready. [default: 10s]
    #[arg(long, env = "QUORATE_NODE_MONITOR_GRACE")]
    pub node_monitor_grace: Option<HumanDuration>,
    /// Time after which pods are evicted from a node that is not ready, unless they tolerate it longer. [default: 10s]
    #[arg(long, env = "QUORATE_EVICTION_AFTER")]
    pub eviction_after: Option<HumanDuration>,
    /// Fence of pods without the `quorate.io/fence-after` annotation. Their node stops them once it has not reached the
    /// masters for this long, and then the masters can remove them. [default: none]
    #[arg(long, env = "QUORATE_FENCE_AFTER")]
    pub fence_after: Option<FenceDefault>,
    /// Number of failed nodes of a zone from which eviction may begin in each second. [default: 0.1]
    #[arg(long, env = "QUORATE_NODE_EVICTION_RATE")]
    pub node_eviction_rate: Option<f64>,
    /// The same rate for a large zone most of whose nodes have failed. [default: 0.01]
    #[arg(long, env = "QUORATE_SECONDARY_NODE_EVICTION_RATE")]
    pub secondary_node_eviction_rate: Option<f64>,
    /// Fraction of a zone's nodes that must have failed (and at least three nodes) for the secondary rate to apply.
    /// [default: 0.55]
    #[arg(long, env = "QUORATE_UNHEALTHY_ZONE_THRESHOLD")]
    pub unhealthy_zone_threshold: Option<f64>,
    /// Number of nodes up to which a zone is small. While most of a small zone has failed, nothing is evicted from it.
    /// [default: 50]
    #[arg(long, env = "QUORATE_LARGE_CLUSTER_SIZE_THRESHOLD")]
    pub large_cluster_size_threshold: Option<usize>,
    /// Number of terminated pods above which the oldest are deleted; 0 keeps all. [default: 12500]
    #[arg(long, env = "QUORATE_TERMINATED_POD_GC_THRESHOLD")]
    pub terminated_pod_gc_threshold: Option<usize>,
    /// Number of failed pods of one ReplicaSet above which the oldest are deleted; 0 keeps all. At least ten are kept,
    /// because the delay of their replacements is computed from them. [default: 20]
    #[arg(long, env = "QUORATE_FAILED_PODS_PER_REPLICA_SET")]
    pub failed_pods_per_replica_set: Option<usize>,
    /// Address blocks of Services, one for each IP family, separated by `,`. The first is the default one. Must be the
    /// same on every master. [default: 10.96.0.0/16]
    #[arg(long, env = "QUORATE_SERVICE_CIDR", value_delimiter = ',')]
    pub service_cidr: Option<Vec<String>>,
    /// Range of node ports of Services. Must be the same on every master. [default: 30000-32767]
    #[arg(long, env = "QUORATE_SERVICE_NODE_PORT_RANGE")]
    pub service_node_port_range: Option<String>,
    /// Log filter, such as `info` or `debug,openraft=warn`. [default: info,openraft=warn]
    #[arg(long, env = "QUORATE_LOG_LEVEL")]
    pub log_level: Option<String>,
}

overlay!(
    ServerOptions,
    name,
    data_dir,
    members,
    init,
    join,
    advertise,
    tls_names,
    certificate_lifetime,
    authority_lifetime,
    peer_via,
    api_listen,
    etcd_listen,
    etcd_plain,
    etcd_write_registry,
    peer_listen,
    metrics_listen,
    client_ca_file,
    tls_cert_file,
    tls_key_file,
    peer_ca_file,
    peer_cert_file,
    peer_key_file,
    node_client_cert_file,
    node_client_key_file,
    retention,
    log_keep_bytes,
    node_monitor_grace,
    eviction_after,
    fence_after,
    node_eviction_rate,
    secondary_node_eviction_rate,
    unhealthy_zone_threshold,
    large_cluster_size_threshold,
    terminated_pod_gc_threshold,
    failed_pods_per_replica_set,
    service_cidr,
    service_node_port_range,
    log_level,
);

/// Default fence of the cluster: `none` or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceDefault(Option<Duration>);

impl std::str::FromStr for FenceDefault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fence::parse(text).map(FenceDefault)
    }
}

impl<'de> Deserialize<'de> for FenceDefault {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text:?} {error}")))
    }
}

impl Serialize for FenceDefault {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(after) => serializer.collect_str(&humantime::format_duration(after)),
            None => serializer.serialize_str(fence::NONE),
        }
    }
}

/// Configuration of a master, complete and validated before any port is bound.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub name: String,
    /// Founding members; empty on a member that joins or has joined.
    pub founders: Vec<MemberSpec>,
    pub join: Option<Join>,
    /// Set when Quorate issues the certificates.
    pub managed: Option<Managed>,
    /// Addresses of other members by name.
    pub peer_via: BTreeMap<String, String>,
    pub data_dir: PathBuf,
    pub api_listen: SocketAddr,
    pub etcd: Option<EtcdConfig>,
    pub peer_listen: SocketAddr,
    pub metrics_listen: SocketAddr,
    /// Serving certificate, and the authority of clients and nodes.
    pub tls: TlsFiles,
    pub peer_tls: TlsFiles,
    /// Client certificate for requests to agents, and its key.
    pub node_client_cert: PathBuf,
    pub node_client_key: PathBuf,
    pub retention: Duration,
    pub log_retention: LogRetention,
    pub node_monitor_grace: Duration,
    pub eviction_after: Duration,
    pub eviction_rate: EvictionRate,
    /// As [`Settings::terminated_pods`] and [`Settings::failed_pods_per_replica_set`].
    pub terminated_pods: usize,
    pub failed_pods_per_replica_set: usize,
    pub fence_after: Option<Duration>,
    /// Pools of the addresses and node ports of Services.
    pub pools: Pools,
    pub log_level: String,
}

/// Token with which this master joins.
#[derive(Clone, Debug)]
pub enum Join {
    /// Token of the quorum, presented over the peer transport.
    Peers(Token),
    /// Token of the cluster, presented to a master's API, which returns the authorities and a token of the quorum.
    Masters { token: JoinToken, hosts: Vec<String> },
}

/// Settings of the certificates that Quorate issues and renews.
#[derive(Clone, Debug)]
pub struct Managed {
    pub init: bool,
    pub advertise: Option<String>,
    pub tls_names: Vec<String>,
    pub lifetimes: Lifetimes,
    /// Options to keep in the data directory, if no file was given.
    pub options: Option<Box<ServerOptions>>,
}

/// Settings of the etcd API.
#[derive(Clone, Copy, Debug)]
pub struct EtcdConfig {
    pub listen: SocketAddr,
    pub plain: bool,
    pub write_registry: bool,
}

impl ServerConfig {
    /// Returns the validity periods of the certificates that Quorate issues.
    pub fn lifetimes(&self) -> Lifetimes {
        self.managed.as_ref().map(|managed| managed.lifetimes).unwrap_or_default()
    }

    /// Returns the directory of the certificates that Quorate issues.
    pub fn pki(&self) -> PathBuf {
        self.data_dir.join(PKI_DIRECTORY)
    }

    /// Returns this member's entry in the list of founders.
    pub fn founder(&self) -> Option<&MemberSpec> {
        self.founders.iter().find(|founder| founder.name == self.name)
    }
}

impl ServerArgs {
    /// Resolves the options. Without a configuration file, the options kept by an earlier start are used.
    pub fn resolve(self) -> anyhow::Result<ServerConfig> {
        let data_dir = self.options.data_dir.clone().unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let kept = data_dir.join(KEPT_FILE);
        let is_kept = self.config.is_none() && kept.exists();
        let path = self.config.clone().or(is_kept.then_some(kept));
        let file = path.as_deref().map(read_file::<ServerOptions>).transpose()?.unwrap_or_default();
        let options = self.options.over(file);
        let kept_options = path.is_none().then(|| {
            let kept = ServerOptions { init: None, join: None, data_dir: Some(data_dir), ..options.clone() };
            Box::new(kept)
        });
        let mut config = options.resolve()?;
        if let Some(managed) = &mut config.managed {
            managed.options = kept_options;
        }
        Ok(config)
    }
}

impl ServerOptions {
    pub fn resolve(self) -> anyhow::Result<ServerConfig> {
        let managed = self.managed()?;
        let data_dir = self.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let pki = data_dir.join(PKI_DIRECTORY);
        let name = self.name.map_or_else(host_name, Ok)?;
        let join = self.join.filter(|token| !token.is_empty()).map(|token| join(&token)).transpose()?;
        // A member that joins does not need the list of founders.
        let founders = self.members.filter(|_| join.is_none()).unwrap_or_default();
        if !founders.is_empty() {
            check_quorum(&founders)?;
        }
        let peer_via = self.peer_via.unwrap_or_default().iter().map(|via| peer_via(via)).collect::<Result<_, _>>()?;
        let any_address = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let etcd_listen = self.etcd_listen.or_else(|| managed.is_some().then(|| any_address(2379)));
        let etcd = etcd_listen.map(|listen| EtcdConfig {
            listen,
            plain: self.etcd_plain.unwrap_or(false),
            write_registry: self.etcd_write_registry.unwrap_or(false),
        });
        if let Some(EtcdConfig { listen, plain: true, .. }) = etcd {
            anyhow::ensure!(
                listen.ip().is_loopback(),
                "`etcd-plain` lets in anyone who reaches {listen}; leave it out, or listen on a loopback address"
            );
        }
        let defaults = Settings::default();
        let default_rate = defaults.eviction_rate;
        let eviction_rate = EvictionRate {
            nodes_per_second: self.node_eviction_rate.unwrap_or(default_rate.nodes_per_second),
            secondary_nodes_per_second: self
                .secondary_node_eviction_rate
                .unwrap_or(default_rate.secondary_nodes_per_second),
            unhealthy_zone_threshold: self.unhealthy_zone_threshold.unwrap_or(default_rate.unhealthy_zone_threshold),
            large_zone_size: self.large_cluster_size_threshold.unwrap_or(default_rate.large_zone_size),
        };
        for (key, rate) in [
            ("node-eviction-rate", eviction_rate.nodes_per_second),
            ("secondary-node-eviction-rate", eviction_rate.secondary_nodes_per_second),
            ("unhealthy-zone-threshold", eviction_rate.unhealthy_zone_threshold),
        ] {
            anyhow::ensure!(rate >= 0.0 && rate.is_finite(), "`{key}` is {rate}; give a number that is not negative");
        }
        let issued = |name: &str, ending: &str| managed.is_some().then(|| pki.join(format!("{name}.{ending}")));
        Ok(ServerConfig {
            name,
            founders,
            join,
            peer_via,
            data_dir,
            api_listen: self.api_listen.unwrap_or_else(|| any_address(6443)),
            etcd,
            peer_listen: self.peer_listen.unwrap_or_else(|| any_address(2380)),
            metrics_listen: self.metrics_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9090))),
            tls: TlsFiles {
                ca: required(self.client_ca_file.or_else(|| issued(Authorities::CLUSTER, "crt")), "client-ca-file")?,
                cert: required(self.tls_cert_file.or_else(|| issued(SERVER, "crt")), "tls-cert-file")?,
                key: required(self.tls_key_file.or_else(|| issued(SERVER, "key")), "tls-key-file")?,
            },
            peer_tls: TlsFiles {
                ca: required(self.peer_ca_file.or_else(|| issued(Authorities::PEERS, "crt")), "peer-ca-file")?,
                cert: required(self.peer_cert_file.or_else(|| issued(PEER, "crt")), "peer-cert-file")?,
                key: required(self.peer_key_file.or_else(|| issued(PEER, "key")), "peer-key-file")?,
            },
            node_client_cert: required(
                self.node_client_cert_file.or_else(|| issued(NODE_CLIENT, "crt")),
                "node-client-cert-file",
            )?,
            node_client_key: required(
                self.node_client_key_file.or_else(|| issued(NODE_CLIENT, "key")),
                "node-client-key-file",
            )?,
            retention: self.retention.map_or(Duration::from_secs(600), |d| d.0),
            log_retention: self.log_keep_bytes.map_or_else(LogRetention::default, LogRetention::keeping),
            node_monitor_grace: self.node_monitor_grace.map_or(Duration::from_secs(10), |d| d.0),
            eviction_after: self.eviction_after.map_or(Duration::from_secs(10), |d| d.0),
            eviction_rate,
            terminated_pods: self.terminated_pod_gc_threshold.unwrap_or(defaults.terminated_pods),
            failed_pods_per_replica_set: self
                .failed_pods_per_replica_set
                .unwrap_or(defaults.failed_pods_per_replica_set),
            fence_after: self.fence_after.and_then(|fence| fence.0),
            pools: pools(self.service_cidr, self.service_node_port_range.as_deref())?,
            log_level: self.log_level.unwrap_or_else(|| "info,openraft=warn".to_owned()),
            managed,
        })
    }

    /// Returns the settings of the certificates that Quorate issues; `None` when they are given as files.
    fn managed(&self) -> anyhow::Result<Option<Managed>> {
        let files = [
            (&self.client_ca_file, "client-ca-file"),
            (&self.tls_cert_file, "tls-cert-file"),
            (&self.tls_key_file, "tls-key-file"),
            (&self.peer_ca_file, "peer-ca-file"),
            (&self.peer_cert_file, "peer-cert-file"),
            (&self.peer_key_file, "peer-key-file"),
            (&self.node_client_cert_file, "node-client-cert-file"),
            (&self.node_client_key_file, "node-client-key-file"),
        ];
        let given = files.iter().find(|(file, _)| file.is_some());
        let init = self.init.unwrap_or(false);
        let is_joining = self.join.as_ref().is_some_and(|token| !token.is_empty());
        anyhow::ensure!(!(init && is_joining), "`init` founds a cluster and `join` enters one; give one of the two");
        if let Some((_, key)) = given {
            anyhow::ensure!(!init, "`init` creates the certificates; leave out `{key}` and the other files");
            return Ok(None);
        }
        let default = Lifetimes::default();
        let host = |key: &str, text: &String| parse_host(text).map_err(|error| anyhow::anyhow!("`{key}`: {error}"));
        let advertise = self.advertise.as_ref().filter(|text| !text.is_empty());
        let advertise = advertise.map(|text| host("advertise", text)).transpose()?;
        let wildcard = advertise.as_ref().filter(|host| host.starts_with('*'));
        anyhow::ensure!(wildcard.is_none(), "`advertise` is not the name of one machine; give this machine's own");
        let tls_names = self.tls_names.iter().flatten().filter(|text| !text.is_empty());
        Ok(Some(Managed {
            init,
            advertise,
            tls_names: tls_names.map(|text| host("tls-names", text)).collect::<Result<_, _>>()?,
            lifetimes: Lifetimes {
                certificate: self.certificate_lifetime.map_or(default.certificate, |lifetime| lifetime.0),
                authority: self.authority_lifetime.map_or(default.authority, |lifetime| lifetime.0),
            },
            options: None,
        }))
    }
}

/// Parses a token. A token of the cluster has three parts before its hosts, a token of the quorum has two.
fn join(text: &str) -> anyhow::Result<Join> {
    let wrong = |error: String| anyhow::anyhow!("`join`: {error}");
    let (token, hosts) = text.trim().split_once('@').unwrap_or((text.trim(), ""));
    if token.split('.').count() != 3 {
        return text.parse::<Token>().map(Join::Peers).map_err(wrong);
    }
    let token = token.parse::<JoinToken>().map_err(wrong)?;
    let hosts: Vec<_> = hosts.split(',').map(|host| host.trim_start_matches("https://").to_owned()).collect();
    anyhow::ensure!(
        hosts.iter().all(|host| host.contains(':')),
        "`join`: the masters' addresses are missing; write it as TOKEN@HOST:PORT,HOST:PORT"
    );
    Ok(Join::Masters { token, hosts })
}

fn pools(blocks: Option<Vec<String>>, node_ports: Option<&str>) -> anyhow::Result<Pools> {
    let blocks = blocks.unwrap_or_else(|| vec!["10.96.0.0/16".to_owned()]);
    let blocks = blocks.iter().map(|block| block.parse::<AddressBlock>()).collect::<Result<_, _>>();
    let blocks = blocks.context("`service-cidr` is not a list of address blocks")?;
    let text = node_ports.unwrap_or("30000-32767");
    let (first, last) = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)))
        .with_context(|| format!("`service-node-port-range` is {text:?}, which is not first-last"))?;
    Pools::new(blocks, first..=last).context("`service-cidr` or `service-node-port-range` is not usable")
}

fn peer_via(text: &str) -> anyhow::Result<(String, String)> {
    let (name, address) = text
        .split_once('=')
        .filter(|(_, address)| address.contains(':'))
        .with_context(|| format!("`peer-via` has {text:?}, which is not name=host:port"))?;
    Ok((name.to_owned(), address.to_owned()))
}

/// Refuses a quorum that would be no better than a smaller one, and a list whose members share an id, name or peer
/// address.
pub fn check_quorum(members: &[MemberSpec]) -> anyhow::Result<()> {
    check_quorum_size(members.len())?;
    for (i, a) in members.iter().enumerate() {
        if let Some(b) = members[..i].iter().find(|b| a.id == b.id || a.name == b.name || a.peer == b.peer) {
            anyhow::bail!("members `{a}` and `{b}` share an id, a name or a peer address");
        }
    }
    Ok(())
}

pub fn check_quorum_size(size: usize) -> anyhow::Result<()> {
    match size {
        1 | 3 | 5 | 7 => Ok(()),
        0 => anyhow::bail!("a quorum has at least one master"),
        n if n % 2 == 0 => anyhow::bail!(
            "{n} masters survive the loss of {}, no more than {} do, and are more likely to lose one; use 1, 3, 5 or 7",
            (n - 1) / 2,
            n - 1
        ),
        n => anyhow::bail!("{n} masters: every write waits for {} of them; use 1, 3, 5 or 7", n / 2 + 1),
    }
}
