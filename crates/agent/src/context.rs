//! The services that all pod workers share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::allocations::Allocations;
use crate::blocking::HostCalls;
use crate::cluster::Cluster;
use crate::config::AgentConfig;
use crate::events::Recorder;
use crate::fence::Fence;
use crate::gate::Gate;
use crate::machine::{self, Machine};
use crate::node;
use crate::plan::NodeFacts;
use crate::probes::Prober;
use crate::runtime::Runtime;
use crate::services::Services;
use crate::status::Reporter;
use crate::volumes::Volumes;
use crate::volumes::objects::Objects;

/// Number of steps that the container engine does at the same time, in addition to one for each processor. The extra
/// ones use the processors while others wait for the disk; more would only slow all of them down.
const STARTS_BEYOND_CPUS: usize = 2;

/// Maximum number of concurrent writes of checkpoints.
const CHECKPOINT_WRITES: usize = 4;
/// Maximum time of the write of a checkpoint. The pod may have to be stopped meanwhile.
const CHECKPOINT_LIMIT: Duration = Duration::from_millis(500);

pub(crate) struct Context {
    pub node_name: String,
    pub data_dir: PathBuf,
    /// Writes of checkpoints, which may hang with the disk.
    pub disk: HostCalls,
    pub facts: NodeFacts,
    pub machine: Machine,
    pub offline_after: Duration,
    pub cluster: Arc<dyn Cluster>,
    pub runtime: Arc<dyn Runtime>,
    pub objects: Objects,
    pub volumes: Volumes,
    pub services: Services,
    pub prober: Prober,
    pub recorder: Recorder,
    pub reporter: Reporter,
    pub gate: Gate,
    pub fence: Arc<Fence>,
    pub allocations: Allocations,
}

impl Context {
    pub(crate) fn new(
        config: &AgentConfig,
        cluster: Arc<dyn Cluster>,
        runtime: Arc<dyn Runtime>,
        recorder: Recorder,
        reporter: Reporter,
        fence: Arc<Fence>,
    ) -> Arc<Self> {
        let facts = NodeFacts { host_ip: config.node_ip.clone(), runtime_scheme: runtime.scheme().to_owned() };
        if !runtime.is_hollow() && !machine::may_mount() {
            tracing::warn!(
                "the agent may not mount file systems: memory volumes are refused, Secrets are on disk, most subPaths are refused"
            );
        }
        let machine = Machine::measure(&config.data_dir);
        let cpus = usize::try_from(machine.cpus).unwrap_or(1);
        Arc::new(Context {
            node_name: config.node_name.clone(),
            data_dir: config.data_dir.clone(),
            disk: HostCalls::new(CHECKPOINT_WRITES, CHECKPOINT_LIMIT),
            facts,
            gate: Gate::new(cpus + STARTS_BEYOND_CPUS),
            offline_after: config.offline_after,
            allocations: Allocations::new(node::allocatable(config, &machine)),
            volumes: Volumes::new(&config.data_dir),
            objects: Objects::new(Arc::clone(&cluster)),
            services: Services::default(),
            prober: Prober::new(Arc::clone(&runtime)),
            cluster,
            runtime,
            recorder,
            reporter,
            fence,
            machine,
        })
    }
}
