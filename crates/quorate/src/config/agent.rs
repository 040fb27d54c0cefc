//! Options of `quorate agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HumanDuration, TlsFiles, overlay, read_file, required};

#[derive(clap::Args, Clone, Debug)]
pub struct AgentArgs {
    /// A TOML file with any of the options below, as `config/agent.toml` shows.
    #[arg(long, env = "QUORATE_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: AgentOptions,
}

/// What pods run on.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Containers of the local Docker engine.
    Docker,
    /// Nothing is started; what a healthy container would report is reported.
    Hollow,
}

#[derive(clap::Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AgentOptions {
    /// This node's name. [default: the host name]
    #[arg(long, env = "QUORATE_NODE_NAME")]
    pub node_name: Option<String>,
    /// The cluster's name: containers of other clusters on the same engine are left alone. [default: quorate]
    #[arg(long, env = "QUORATE_CLUSTER")]
    pub cluster: Option<String>,
    /// URLs of the masters' REST APIs.
    #[arg(long, env = "QUORATE_MASTERS", value_delimiter = ',')]
    pub masters: Option<Vec<String>>,
    /// Where volumes and checkpoints are kept.
    #[arg(long, env = "QUORATE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the node API. [default: 0.0.0.0:10250]
    #[arg(long, env = "QUORATE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// The address under which masters and pods reach this node. [default: the listening address]
    #[arg(long, env = "QUORATE_NODE_IP")]
    pub node_ip: Option<IpAddr>,
    /// What pods run on. [default: docker]
    #[arg(long, env = "QUORATE_RUNTIME")]
    pub runtime: Option<Runtime>,
    /// For tests: where the hollow runtime keeps its containers, so that they outlive the agent. [default: they end with it]
    #[arg(long, env = "QUORATE_HOLLOW_DIR")]
    pub hollow_dir: Option<PathBuf>,
    /// The authority that signs the masters' certificates and those of this node's clients, PEM.
    #[arg(long, env = "QUORATE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate towards the masters, PEM.
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
    /// The most pods that this node takes. [default: 110]
    #[arg(long, env = "QUORATE_MAX_PODS")]
    pub max_pods: Option<u32>,
    /// Labels of the node at its registration, `key=value`.
    #[arg(long, env = "QUORATE_NODE_LABELS", value_delimiter = ',')]
    pub node_labels: Option<Vec<String>>,
    /// Filter of the log. [default: info]
    #[arg(long, env = "QUORATE_LOG_LEVEL")]
    pub log_level: Option<String>,
}

overlay!(
    AgentOptions,
    node_name,
    cluster,
    masters,
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

/// Everything a worker needs to know, complete and checked before any port is bound.
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
    /// Client certificate, and the authority of the masters'.
    pub client_tls: TlsFiles,
    /// Serving certificate, and the authority of the clients'.
    pub serving_tls: TlsFiles,
    pub heartbeat_interval: Duration,
    pub max_pods: u32,
    pub node_labels: Vec<(String, String)>,
    pub log_level: String,
}

impl AgentArgs {
    pub fn resolve(self) -> anyhow::Result<AgentConfig> {
        let file = self.config.as_deref().map(read_file::<AgentOptions>).transpose()?.unwrap_or_default();
        self.options.over(file).resolve()
    }
}

impl AgentOptions {
    pub fn resolve(self) -> anyhow::Result<AgentConfig> {
        let node_name = match self.node_name {
            Some(name) => name,
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        let masters = required(self.masters, "masters")?;
        anyhow::ensure!(!masters.is_empty(), "`masters` is empty; name at least one master's URL");
        for url in &masters {
            anyhow::ensure!(url.starts_with("https://"), "master {url:?} is not an https:// URL");
        }
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 10250)));
        let node_ip = self.node_ip.unwrap_or_else(|| listen.ip());
        anyhow::ensure!(
            !node_ip.is_unspecified(),
            "`node-ip` is not set and the node API listens on every address; give --node-ip"
        );
        let ca = required(self.ca_file, "ca-file")?;
        let node_labels = self.node_labels.unwrap_or_default().iter().map(|l| label(l)).collect::<Result<_, _>>()?;
        Ok(AgentConfig {
            node_name,
            cluster: self.cluster.unwrap_or_else(|| "quorate".to_owned()),
            masters,
            data_dir: required(self.data_dir, "data-dir")?,
            listen,
            node_ip,
            runtime: self.runtime.unwrap_or(Runtime::Docker),
            hollow_dir: self.hollow_dir,
            client_tls: TlsFiles {
                ca: ca.clone(),
                cert: required(self.client_cert_file, "client-cert-file")?,
                key: required(self.client_key_file, "client-key-file")?,
            },
            serving_tls: TlsFiles {
                ca,
                cert: required(self.tls_cert_file, "tls-cert-file")?,
                key: required(self.tls_key_file, "tls-key-file")?,
            },
            heartbeat_interval: self.heartbeat_interval.map_or(Duration::from_secs(3), |d| d.0),
            max_pods: self.max_pods.unwrap_or(110),
            node_labels,
            log_level: self.log_level.unwrap_or_else(|| "info".to_owned()),
        })
    }
}

fn label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| anyhow::anyhow!("label {text:?} is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}
