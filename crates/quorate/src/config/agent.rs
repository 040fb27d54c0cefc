//! Options of `quorate agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use quorate_pki::JoinToken;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, PKI_DIRECTORY, TlsFiles, host_name, overlay, read_file, required};
use crate::machine::address;

pub const DEFAULT_DATA_DIR: &str = "/var/lib/quorate/agent";
/// Default name that marks the containers of a cluster.
pub const DEFAULT_CLUSTER: &str = "quorate";
/// File in the data directory that keeps the options of the first start.
pub const KEPT_FILE: &str = "agent.toml";

#[derive(clap::Args, Clone, Debug)]
pub struct AgentArgs {
    /// TOML file with any of the options below; see `config/agent.toml` for an example.
    #[arg(long, env = "QUORATE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: AgentOptions,
}

/// Runtime that runs the pods.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Containers of the local Docker engine.
    Docker,
    /// No containers are started. The agent reports the status of healthy ones.
    Hollow,
}

#[derive(clap::Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AgentOptions {
    /// Name of this node. [default: the host name]
    #[arg(long, env = "QUORATE_NODE_NAME")]
    pub node_name: Option<String>,
    /// Name of the cluster. Containers of other clusters on the same engine are left alone. [default: quorate]
    #[arg(long, env = "QUORATE_CLUSTER")]
    pub cluster: Option<String>,
    /// URLs of the masters' REST APIs, at least one. The agent learns the others from it.
    #[arg(long, visible_alias = "server", env = "QUORATE_MASTERS", value_delimiter = ',')]
    pub masters: Option<Vec<String>>,
    /// Joins a cluster with a token of `qctl token create --role worker`, and gets the certificates with it. A node that
    /// has joined ignores that token, and joins again with another one.
    #[arg(long, env = "QUORATE_TOKEN")]
    pub token: Option<String>,
    /// Directory for volumes, checkpoints and certificates. [default: /var/lib/quorate/agent]
    #[arg(long, env = "QUORATE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the node API. [default: 0.0.0.0:10250]
    #[arg(long, env = "QUORATE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Address under which masters and pods reach this node. [default: the listening address, or the address from which
    /// this machine reaches the masters]
    #[arg(long, env = "QUORATE_NODE_IP")]
    pub node_ip: Option<IpAddr>,
    /// Runtime that runs the pods. [default: docker]
    #[arg(long, env = "QUORATE_RUNTIME")]
    pub runtime: Option<Runtime>,
    /// For tests: directory in which the hollow runtime keeps its containers, so that they outlive the agent. [default:
    /// they end with the agent]
    #[arg(long, env = "QUORATE_HOLLOW_DIR")]
    pub hollow_dir: Option<PathBuf>,
    /// Authority that signs the certificates of the masters and of this node's clients, PEM.
    #[arg(long, env = "QUORATE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate for requests to the masters, PEM.
    #[arg(long, env = "QUORATE_CLIENT_CERT_FILE")]
    pub client_cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[arg(long, env = "QUORATE_CLIENT_KEY_FILE")]
    pub client_key_file: Option<PathBuf>,
    /// Serving certificate of the node API, PEM.
    #[arg(long, env = "QUORATE_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate, PEM.
    #[arg(long, env = "QUORATE_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Time between heartbeats. [default: 3s]
    #[arg(long, env = "QUORATE_HEARTBEAT_INTERVAL")]
    pub heartbeat_interval: Option<HumanDuration>,
    /// Maximum number of pods on this node. [default: 110]
    #[arg(long, env = "QUORATE_MAX_PODS")]
    pub max_pods: Option<u32>,
    /// Labels that the node gets at its registration, as `key=value`.
    #[arg(long, env = "QUORATE_NODE_LABELS", value_delimiter = ',')]
    pub node_labels: Option<Vec<String>>,
    /// Log filter. [default: info]
    #[arg(long, env = "QUORATE_LOG_LEVEL")]
    pub log_level: Option<String>,
}

overlay!(
    AgentOptions,
    node_name,
    cluster,
    masters,
    token,
    data_dir,
    listen,
    node_ip,
    runtime,
    hollow_dir,
    ca_file,
    client_cert_file,
    client_key_file,
    tls_cert_file,
    tls_key_file,
    heartbeat_interval,
    max_pods,
    node_labels,
    log_level,
);

/// Configuration of a worker, complete and validated before any port is bound.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub node_name: String,
    pub cluster: String,
    pub masters: Vec<String>,
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub node_ip: IpAddr,
    pub runtime: Runtime,
    pub hollow_dir: Option<PathBuf>,
    /// Client certificate, and the authority of the masters' certificates.
    pub client_tls: TlsFiles,
    /// Set when the masters issue the certificates.
    pub managed: Option<Managed>,
    /// Serving certificate, and the authority of the clients' certificates.
    pub serving_tls: TlsFiles,
    pub heartbeat_interval: Duration,
    pub max_pods: u32,
    pub node_labels: Vec<(String, String)>,
    pub log_level: String,
}

/// Certificates that the masters issue and renew.
#[derive(Clone, Debug)]
pub struct Managed {
    pub token: Option<JoinToken>,
    /// Options to keep in the data directory, if no file was given.
    pub options: Option<Box<AgentOptions>>,
}

impl AgentConfig {
    /// Returns the directory of the certificates that the masters issue.
    pub fn pki(&self) -> PathBuf {
        self.data_dir.join(PKI_DIRECTORY)
    }
}

impl AgentArgs {
    /// Resolves the options. Without a configuration file, the options kept by an earlier start are used.
    pub fn resolve(self) -> anyhow::Result<AgentConfig> {
        let data_dir = self.options.data_dir.clone().unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let kept = data_dir.join(KEPT_FILE);
        let is_kept = self.config.is_none() && kept.exists();
        let path = self.config.clone().or(is_kept.then_some(kept));
        let file = path.as_deref().map(read_file::<AgentOptions>).transpose()?.unwrap_or_default();
        let options = self.options.over(file);
        let kept_options = path.is_none().then(|| {
            let kept = AgentOptions { token: None, data_dir: Some(data_dir), ..options.clone() };
            Box::new(kept)
        });
        let mut config = options.resolve()?;
        if let Some(managed) = &mut config.managed {
            managed.options = kept_options;
        }
        Ok(config)
    }
}

impl AgentOptions {
    pub fn resolve(self) -> anyhow::Result<AgentConfig> {
        let managed = self.managed()?;
        let data_dir = self.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let pki = data_dir.join(PKI_DIRECTORY);
        let node_name = self.node_name.map_or_else(host_name, Ok)?;
        let masters = required(self.masters, "masters")?;
        anyhow::ensure!(!masters.is_empty(), "`masters` is empty; name at least one master's URL");
        for url in &masters {
            anyhow::ensure!(url.starts_with("https://"), "master {url:?} is not an https:// URL");
        }
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 10250)));
        let node_ip = match self.node_ip {
            Some(address) => address,
            None if listen.ip().is_unspecified() => address::towards(&masters).context(
                "`node-ip` is not set, the node API listens on every address, and no route leads to a master; give --node-ip",
            )?,
            None => listen.ip(),
        };
        let issued = |name: &str| managed.is_some().then(|| pki.join(name));
        let ca = required(self.ca_file.or_else(|| issued("ca.crt")), "ca-file")?;
        let node_labels = self.node_labels.unwrap_or_default().iter().map(|l| label(l)).collect::<Result<_, _>>()?;
        Ok(AgentConfig {
            node_name,
            cluster: self.cluster.unwrap_or_else(|| DEFAULT_CLUSTER.to_owned()),
            masters,
            data_dir,
            listen,
            node_ip,
            runtime: self.runtime.unwrap_or(Runtime::Docker),
            hollow_dir: self.hollow_dir,
            client_tls: TlsFiles {
                ca: ca.clone(),
                cert: required(self.client_cert_file.or_else(|| issued("client.crt")), "client-cert-file")?,
                key: required(self.client_key_file.or_else(|| issued("node.key")), "client-key-file")?,
            },
            serving_tls: TlsFiles {
                ca,
                cert: required(self.tls_cert_file.or_else(|| issued("serving.crt")), "tls-cert-file")?,
                key: required(self.tls_key_file.or_else(|| issued("node.key")), "tls-key-file")?,
            },
            heartbeat_interval: self.heartbeat_interval.map_or(Duration::from_secs(3), |d| d.0),
            max_pods: self.max_pods.unwrap_or(110),
            node_labels,
            log_level: self.log_level.unwrap_or_else(|| "info".to_owned()),
            managed,
        })
    }

    /// Returns the token, unless the certificates are given as files.
    fn managed(&self) -> anyhow::Result<Option<Managed>> {
        let files =
            [&self.ca_file, &self.client_cert_file, &self.client_key_file, &self.tls_cert_file, &self.tls_key_file];
        if files.iter().any(|file| file.is_some()) {
            return Ok(None);
        }
        let token = self.token.as_deref().filter(|token| !token.is_empty()).map(str::parse::<JoinToken>);
        let token = token.transpose().map_err(|error| anyhow::anyhow!("`token`: {error}"))?;
        Ok(Some(Managed { token, options: None }))
    }
}

fn label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| anyhow::anyhow!("label {text:?} is not key=value"))?;
    anyhow::ensure!(
        quorate_registry::node_labels::agent_may_set(key),
        "`node-labels` has {key}, which an agent may not set; set it with `qctl label node`"
    );
    Ok((key.to_owned(), value.to_owned()))
}
