//! Stops the containers of fenced pods, for the watchdog.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, StopContainerOptionsBuilder,
};

use super::connection::Connection;
use super::labels::{self, Owner, POD_UID};
use super::{ignore_gone, whole_seconds, within, within_limit};
use crate::runtime::RuntimeError;

/// Time beyond the grace period in which the engine ends a container, before the watchdog kills it.
pub(crate) const STOP_TAKES: Duration = Duration::from_secs(3);

/// The ids of the running containers of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running {
    pub containers: Vec<String>,
    pub sandboxes: Vec<String>,
}

/// The watchdog's client of the engine. Cheap to clone.
#[derive(Clone)]
pub struct DockerFence {
    docker: Docker,
    owner: Owner,
}

impl DockerFence {
    pub(crate) fn new(cluster: &str, node: &str) -> Result<Self, RuntimeError> {
        // Requests name no API version, so that the first stop does not depend on a negotiation.
        DockerFence::at(None, cluster, node)
    }

    /// Creates a client of the engine at this endpoint.
    pub(crate) fn at(endpoint: Option<&str>, cluster: &str, node: &str) -> Result<Self, RuntimeError> {
        let docker = Connection::new(endpoint)?.docker;
        Ok(DockerFence { docker, owner: Owner { cluster: cluster.to_owned(), node: node.to_owned() } })
    }

    /// Returns what runs on this node, by the uid of the pod.
    pub(crate) async fn running(&self) -> Result<BTreeMap<String, Running>, RuntimeError> {
        let options = ListContainersOptionsBuilder::default().filters(&self.owner.filters()).build();
        let list = within("list the running containers", self.docker.list_containers(Some(options))).await?;
        let mut pods: BTreeMap<String, Running> = BTreeMap::new();
        for summary in list {
            let labels = summary.labels.unwrap_or_default();
            let (Some(id), Some(uid)) = (summary.id, labels.get(POD_UID)) else { continue };
            let running = pods.entry(uid.clone()).or_default();
            let is_sandbox = labels::identify(&labels).is_some_and(|identity| identity.container.is_none());
            if is_sandbox { running.sandboxes.push(id) } else { running.containers.push(id) }
        }
        Ok(pods)
    }

    /// Stops containers concurrently, and kills those that cannot be stopped. A grace period of zero kills all of them.
    pub(crate) async fn stop(&self, ids: &[String], grace: Duration) {
        let stops = ids.iter().map(|id| async move {
            if !grace.is_zero() {
                let options = StopContainerOptionsBuilder::default().t(whole_seconds(grace)).build();
                let stop = self.docker.stop_container(id, Some(options));
                let stopped = within_limit("stop the container", grace + STOP_TAKES, stop).await;
                let Err(error) = ignore_gone(stopped) else { return };
                tracing::warn!(%id, error = %error, "cannot stop a fenced container; killing it");
            }
            let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            let killed = within("kill the container", self.docker.kill_container(id, Some(options))).await;
            if let Err(error) = ignore_gone(killed) {
                tracing::error!(%id, error = %error, "cannot kill a fenced container");
            }
        });
        futures::future::join_all(stops).await;
    }
}
