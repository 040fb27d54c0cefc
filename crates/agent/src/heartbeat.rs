//! The Lease that says this node is alive.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::AgentConfig;
use crate::fence::Fence;

/// Without a heartbeat for so many seconds the node counts as dead.
const LEASE_SECONDS: i32 = 10;

pub(crate) struct Heartbeat {
    cluster: Arc<dyn Cluster>,
    node: Node,
    interval: Duration,
    fence: Arc<Fence>,
}

impl Heartbeat {
    pub(crate) fn new(config: &AgentConfig, cluster: Arc<dyn Cluster>, fence: Arc<Fence>) -> Self {
        let metadata = ObjectMeta { name: Some(config.node_name.clone()), ..ObjectMeta::default() };
        let node = Node { metadata, ..Node::default() };
        Heartbeat { cluster, node, interval: config.heartbeat_interval, fence }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
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
                Ok(()) if silent => {
                    silent = false;
                    tracing::info!("the masters hear this node's heartbeat again");
                }
                Ok(()) => {}
                Err(error) if !silent => {
                    silent = true;
                    tracing::warn!(error = %error, "the heartbeat does not reach the masters");
                }
                Err(_) => {}
            }
        }
    }

    async fn beat(&mut self) -> Result<(), crate::cluster::ClusterError> {
        // The lease belongs to its node, so that it goes with it.
        if self.node.metadata.uid.is_none() {
            let name = self.node.metadata.name.clone().unwrap_or_default();
            self.node.metadata.uid = self.cluster.node(&name).await?.and_then(|node| node.metadata.uid);
        }
        self.fence.renew(self.cluster.renew_lease(&self.node, Timestamp::now(), LEASE_SECONDS)).await
    }
}
