//! Configuration of an agent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_pki::LiveIdentity;

/// The runtime that pods run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// A Docker engine, reached through its socket (`unix:///var/run/docker.sock` when `None`).
    Docker { endpoint: Option<String> },
    /// No engine: no container is started, and every one is reported healthy.
    Hollow,
}

/// The socket of the node API.
#[derive(Debug)]
pub enum Listen {
    Address(SocketAddr),
    /// A socket that is bound already, so that no other process can take the port.
    Bound(TcpListener),
}

impl Listen {
    pub(crate) fn bind(&self) -> Result<TcpListener, (String, std::io::Error)> {
        let (address, bound) = match self {
            Listen::Address(address) => (address.to_string(), TcpListener::bind(address)),
            Listen::Bound(listener) => ("the given socket".to_owned(), listener.try_clone()),
        };
        let listener = bound.map_err(|error| (address.clone(), error))?;
        listener.set_nonblocking(true).map_err(|error| (address, error))?;
        Ok(listener)
    }
}

/// Everything an agent needs. [`AgentConfig::new`] fills in the defaults.
#[derive(Debug)]
pub struct AgentConfig {
    pub node_name: String,
    /// The `https://host:port` URLs of masters. The agent learns about other masters from these.
    pub masters: Vec<String>,
    /// The authority that the masters' certificates chain to.
    pub ca_pem: String,
    /// The client certificate of the agent: CN `system:node:<name>`, O `system:nodes`.
    pub client: Arc<LiveIdentity>,
    /// The serving certificate of the node API.
    pub serving: Arc<LiveIdentity>,
    /// The authority that the certificates of the node API's clients chain to.
    pub client_ca_pem: String,
    pub listen: Listen,
    /// The address at which masters and pods reach this node.
    pub node_ip: String,
    pub data_dir: PathBuf,
    pub runtime: RuntimeChoice,
    /// The directory in which a hollow node keeps its containers, so that they outlive the agent. `None` keeps them in
    /// memory, and they end with the agent.
    pub hollow_dir: Option<PathBuf>,
    /// Docker network of the pods.
    pub pod_network: String,
    /// Labels for the Node object.
    pub labels: BTreeMap<String, String>,
    /// Quantities of `cpu`, `memory` and `ephemeral-storage` that replace the measured ones.
    pub capacity: BTreeMap<String, String>,
    pub heartbeat_interval: Duration,
    pub max_pods: u32,
    /// The label that tells apart the containers of clusters that share one Docker engine.
    pub cluster_id: String,
    /// Time that a starting agent waits for the masters before it adopts the running pods without them.
    pub offline_after: Duration,
    /// Program and first arguments of the watchdog, which enforces the fences of pods on Docker when the agent cannot.
    /// The program calls [`crate::watch_containers`]. Without a watchdog, this node enforces no fences.
    pub watchdog: Option<Vec<OsString>>,
}

impl AgentConfig {
    /// Creates a configuration with the defaults of a node on Docker that listens on port 10250.
    #[must_use]
    pub fn new(
        node_name: impl Into<String>,
        client: Arc<LiveIdentity>,
        serving: Arc<LiveIdentity>,
        ca_pem: String,
    ) -> Self {
        let node_name = node_name.into();
        AgentConfig {
            data_dir: PathBuf::from("/var/lib/quorate/agent"),
            node_name,
            masters: Vec::new(),
            client_ca_pem: ca_pem.clone(),
            ca_pem,
            client,
            serving,
            listen: Listen::Address(SocketAddr::from(([0, 0, 0, 0], 10250))),
            node_ip: "127.0.0.1".to_owned(),
            runtime: RuntimeChoice::Docker { endpoint: None },
            hollow_dir: None,
            pod_network: "bridge".to_owned(),
            labels: BTreeMap::new(),
            capacity: BTreeMap::new(),
            heartbeat_interval: Duration::from_secs(3),
            max_pods: 110,
            cluster_id: "quorate".to_owned(),
            offline_after: Duration::from_secs(15),
            watchdog: None,
        }
    }
}
