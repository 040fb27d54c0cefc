//! Stops the containers of fenced pods, for the watchdog.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, StopContainerOptionsBuilder,
};

use super::connection::Connection;
use super::labels::{Owner, POD_UID};
use super::{DEADLINE, ignore_gone, whole_seconds, within, within_limit};
use crate::runtime::RuntimeError;

/// The watchdog's client of the engine. Cheap to clone.
#[derive(Clone)]
pub struct DockerFence {
    docker: Docker,
    owner: Owner,
}

impl DockerFence {
    pub(crate) fn new(cluster: &str, node: &str) -> Result<Self, RuntimeError> {
        // Requests name no API version, so that the first stop does not depend on a negotiation.
        let docker = Connection::new(None)?.docker;
        Ok(DockerFence { docker, owner: Owner { cluster: cluster.to_owned(), node: node.to_owned() } })
    }

    /// Returns the ids of the running containers of a pod, its sandbox included.
    pub(crate) async fn running(&self, uid: &str) -> Result<Vec<String>, RuntimeError> {
        let mut filters: HashMap<String, Vec<String>> = self.owner.filters();
        filters.entry("label".to_owned()).or_default().push(format!("{POD_UID}={uid}"));
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        let list = within("list the pod's containers", self.docker.list_containers(Some(options))).await?;
        Ok(list.into_iter().filter_map(|container| container.id).collect())
    }

    /// Stops containers concurrently, and kills those that cannot be stopped.
    pub(crate) async fn stop(&self, ids: &[String], grace: Duration) {
        let stops = ids.iter().map(|id| async move {
            let options = StopContainerOptionsBuilder::default().t(whole_seconds(grace)).build();
            let stop = self.docker.stop_container(id, Some(options));
            let stopped = within_limit("stop the container", grace + DEADLINE, stop).await;
            if let Err(error) = ignore_gone(stopped) {
                tracing::warn!(%id, error = %error, "cannot stop a fenced container; killing it");
                let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
                let killed = within("kill the container", self.docker.kill_container(id, Some(options))).await;
                if let Err(error) = ignore_gone(killed) {
                    tracing::error!(%id, error = %error, "cannot kill a fenced container");
                }
            }
        });
        futures::future::join_all(stops).await;
    }
}
