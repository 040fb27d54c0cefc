//! The node agent: it watches the masters for the pods bound to its node and runs them.
//!
//! [`plan`] decides and is pure. The other modules act: [`runtime`] drives Docker (or simulates it), `volumes` makes
//! the volumes of pods, `client` finds the leader, and `worker` executes a pod's plan.

mod admission;
mod allocations;
mod api_cluster;
mod blocking;
mod checkpoint;
pub mod client;
pub mod cluster;
mod config;
mod context;
mod env;
mod events;
mod execute;
mod fence;
mod gate;
mod grpc;
mod heartbeat;
mod hosts;
mod machine;
mod node;
pub mod plan;
mod pods;
mod probes;
pub mod runtime;
mod seccomp;
mod server;
mod services;
mod specs;
mod status;
mod streams;
mod tls;
mod volumes;
mod worker;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::runtime::remove_containers;
pub use api_cluster::{ApiCluster, status_patch};
pub use config::{AgentConfig, Listen, RuntimeChoice};
pub use fence::{AGENT_LOCK_FILE, Containers, WatchdogError, watch_containers};
pub use volumes::remove_data;

use crate::cluster::Cluster;
use crate::fence::Fence;
use crate::runtime::Runtime;

/// Why an agent cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the TLS material of the agent cannot be used")]
    Tls(#[source] tls::TlsError),
    #[error("{url} is not the https URL of a master")]
    MasterUrl { url: String },
    #[error("the data directory {path} cannot be used")]
    DataDirectory { path: String, source: std::io::Error },
    #[error("the node API cannot listen on {address}")]
    Listen { address: String, source: std::io::Error },
    #[error("the container runtime cannot be used")]
    Runtime(#[source] runtime::RuntimeError),
    #[error(
        "the container engine does not see what this agent mounts in {path}, so pods would find their volumes empty: run \
         the agent in the engine's mount namespace, or share the mount of {path} with it (a container: --volume \
         {path}:{path}:rshared)"
    )]
    Invisible { path: String },
}

/// One worker node. [`Agent::new`] checks everything that can be checked before anything runs.
pub struct Agent {
    config: AgentConfig,
    listener: std::net::TcpListener,
    masters: Option<client::Masters>,
    cluster: Arc<dyn Cluster>,
    runtime: Arc<dyn Runtime>,
    fence: Arc<Fence>,
}

impl Agent {
    /// Creates an agent that talks to the masters of its configuration.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn new(config: AgentConfig) -> Result<Self, AgentError> {
        let tls = tls::client(&config.ca_pem, Arc::clone(&config.client)).map_err(AgentError::Tls)?;
        let masters = client::Masters::new(&config.masters, tls)?;
        let cluster = Arc::new(ApiCluster::new(masters.kube_client(), &config.node_name));
        let mut agent = Agent::with_cluster(config, cluster)?;
        agent.masters = Some(masters);
        Ok(agent)
    }

    /// Creates an agent that gets its pods from `cluster`, for tests.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn with_cluster(config: AgentConfig, cluster: Arc<dyn Cluster>) -> Result<Self, AgentError> {
        let data_dir = config.data_dir.display().to_string();
        let unusable = |source| AgentError::DataDirectory { path: data_dir.clone(), source };
        checkpoint::prepare(&config.data_dir).map_err(unusable)?;
        let listener = config.listen.bind().map_err(|(address, source)| AgentError::Listen { address, source })?;
        let runtime = runtime::choose(&config).map_err(AgentError::Runtime)?;
        let fence = Arc::new(Fence::open(&config, runtime.is_hollow()).map_err(unusable)?);
        Ok(Agent { config, listener, masters: None, cluster, runtime, fence })
    }

    /// The port that the node API listens on.
    ///
    /// # Errors
    /// When the operating system cannot tell the port.
    pub fn port(&self) -> std::io::Result<u16> {
        self.listener.local_addr().map(|address| address.port())
    }

    /// Refuses a mount namespace in which the engine sees no volume that the agent mounts.
    async fn check_mounts(&self) -> Result<(), AgentError> {
        let RuntimeChoice::Docker { endpoint } = &self.config.runtime else { return Ok(()) };
        let path = self.config.data_dir.display().to_string();
        let engine = runtime::engine_process(endpoint.as_deref()).await;
        match volumes::are_visible(&self.config.data_dir, engine).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AgentError::Invisible { path }),
            Err(source) => Err(AgentError::DataDirectory { path, source }),
        }
    }

    /// Runs until `shutdown`. The pods' containers keep running afterwards; the next agent adopts them.
    ///
    /// # Errors
    /// When the node API cannot be served, or the container engine does not see the agent's mounts. All other failures
    /// are retried.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        self.check_mounts().await?;
        let port = self.port().unwrap_or(10250);
        let server = server::NodeApi::new(&self.config, self.listener, Arc::clone(&self.runtime))?;
        let (recorder, event_sender) = events::channel(Arc::clone(&self.cluster), &self.config.node_name);
        let (reporter, status_sender) = status::channel(Arc::clone(&self.cluster));
        let (cluster, runtime) = (Arc::clone(&self.cluster), Arc::clone(&self.runtime));
        let node = node::NodeReporter::new(&self.config, port, cluster, runtime, self.fence.is_kept());
        let heartbeat = heartbeat::Heartbeat::new(&self.config, Arc::clone(&self.cluster), Arc::clone(&self.fence));
        let context = context::Context::new(&self.config, self.cluster, self.runtime, recorder, reporter, self.fence);
        let pods = pods::Pods::new(&self.config, Arc::clone(&context), server.pods());

        let tracker = TaskTracker::new();
        if let Some(masters) = self.masters {
            tracker.spawn(masters.follow_leader(shutdown.clone()));
        }
        tracker.spawn(Arc::clone(&context.runtime).observe(shutdown.clone()));
        let (fence, stop) = (Arc::clone(&context.fence), shutdown.clone());
        tracker.spawn(async move { fence.keep(stop).await });
        let (follower, stop) = (Arc::clone(&context), shutdown.clone());
        tracker.spawn(async move { follower.services.follow(Arc::clone(&follower.cluster), stop).await });
        tracker.spawn(event_sender.run(shutdown.clone()));
        tracker.spawn(status_sender.run(shutdown.clone()));
        tracker.spawn(node.run(shutdown.clone()));
        tracker.spawn(heartbeat.run(shutdown.clone()));
        tracker.spawn(pods.run(shutdown.clone()));
        let served = server.run(shutdown.clone()).await;
        shutdown.cancel();
        tracker.close();
        tracker.wait().await;
        served
    }
}
