//! Removes all containers of a cluster, for `quorate down`.

use std::collections::HashMap;

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use futures::{StreamExt, TryStreamExt};

use super::connection::Connection;
use super::labels::of_cluster;
use super::within;
use crate::runtime::RuntimeError;

/// Maximum number of containers that are removed concurrently.
const CONCURRENT: usize = 8;

/// Removes every container of `cluster` on the local Docker engine, running or not, and returns their number.
///
/// # Errors
/// When the engine does not answer, or refuses to remove a container.
pub async fn remove_containers(cluster: &str) -> Result<usize, RuntimeError> {
    let connection = Connection::new(None)?;
    connection.negotiate().await?;
    let docker = connection.docker;
    let filters = HashMap::from([("label".to_owned(), vec![of_cluster(cluster)])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = within("list the containers", docker.list_containers(Some(options))).await?;
    let ids = found.into_iter().filter_map(|container| container.id).collect::<Vec<_>>();
    let remove = |id: String| {
        let docker = docker.clone();
        async move {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match within("remove a container", docker.remove_container(&id, Some(options))).await {
                // The container is gone, or is being removed by another process.
                Err(RuntimeError::Docker { code: Some(404 | 409), .. }) => Ok(()),
                other => other,
            }
        }
    };
    let count = ids.len();
    futures::stream::iter(ids).map(remove).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
    Ok(count)
}
