//! The readiness of a cluster: every master reports ready, and the node of every worker is Ready.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use tokio::time::{sleep, timeout};

use super::cluster::{ClusterFile, Role};
use super::layout::Layout;
use super::quorum;

const POLL: Duration = Duration::from_millis(25);

/// Waits until all members are ready.
pub async fn wait(layout: &Layout, cluster: &ClusterFile, limit: Duration) -> anyhow::Result<()> {
    let mut waiting_for = String::new();
    let all = async {
        let mut any_client = None;
        for member in cluster.with_role(Role::Master) {
            let url = member.api.as_deref().context("cluster.json lacks a master's address")?;
            waiting_for = format!("{} at {url}; see {}", member.name, member.log.display());
            let client = quorum::client(layout, member).await?;
            while client.request_text(http::Request::get("/readyz").body(Vec::new())?).await.is_err() {
                sleep(POLL).await;
            }
            any_client = Some(client);
        }
        let nodes: Api<Node> = Api::all(any_client.context("a cluster without masters")?);
        for member in cluster.with_role(Role::Worker) {
            waiting_for = format!("node {} to be Ready; see {}", member.name, member.log.display());
            while !nodes.list(&ListParams::default()).await.is_ok_and(|list| is_ready(&list.items, &member.name)) {
                sleep(POLL).await;
            }
        }
        anyhow::Ok(())
    };
    match timeout(limit, all).await {
        Ok(result) => result,
        Err(_) => anyhow::bail!("not ready after {limit:?}: still waiting for {waiting_for}"),
    }
}

fn is_ready(nodes: &[Node], name: &str) -> bool {
    let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name));
    node.and_then(|node| node.status.as_ref()?.conditions.as_ref())
        .is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
