//! Heartbeats: renews the Lease that shows that this node is alive.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterError};
use crate::config::AgentConfig;
use crate::fence::Fence;

/// Time without a heartbeat after which the node counts as dead, in seconds.
const LEASE_SECONDS: i32 = 10;
/// Delay of the next heartbeat while the Node object does not exist, because the node is still being registered.
const UNREGISTERED_DELAY: Duration = Duration::from_millis(250);

pub(crate) struct Heartbeat {
    cluster: Arc<dyn Cluster>,
    node_name: String,
    interval: Duration,
    fence: Arc<Fence>,
}

#[derive(Debug, PartialEq, Eq)]
enum Beat {
    Renewed,
    /// There is no Node object that could own the lease.
    Unregistered,
}

impl Heartbeat {
    pub(crate) fn new(config: &AgentConfig, cluster: Arc<dyn Cluster>, fence: Arc<Fence>) -> Self {
        Heartbeat { cluster, node_name: config.node_name.clone(), interval: config.heartbeat_interval, fence }
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let beat = tokio::select! {
                () = shutdown.cancelled() => return,
                beat = self.beat() => beat,
            };
            match beat {
                Ok(Beat::Renewed) if silent => {
                    silent = false;
                    tracing::info!("heartbeats reach the masters again");
                }
                Ok(Beat::Renewed) => {}
                Ok(Beat::Unregistered) => ticks.reset_after(UNREGISTERED_DELAY.min(self.interval)),
                Err(error) if !silent => {
                    silent = true;
                    tracing::warn!(error = %error, "the heartbeat did not reach the masters");
                }
                Err(_) => {}
            }
        }
    }

    async fn beat(&self) -> Result<Beat, ClusterError> {
        let spec = LeaseSpec {
            holder_identity: Some(self.node_name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        match self.fence.renew(self.cluster.renew_lease(&self.node_name, &spec)).await {
            Err(error) if error.is_not_found() => {}
            renewed => return renewed.map(|()| Beat::Renewed),
        }
        // Each new lease reads the Node again, which may have been deleted and registered under another uid.
        let node = self.cluster.node(&self.node_name).await?;
        let Some(node) = node.filter(|node| node.metadata.uid.is_some()) else { return Ok(Beat::Unregistered) };
        self.fence.renew(self.cluster.create_lease(&node, &spec)).await?;
        Ok(Beat::Renewed)
    }
}
