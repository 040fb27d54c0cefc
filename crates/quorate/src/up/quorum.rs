//! Requests to a running cluster about its quorum: its members, and the admission of new masters.

use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::cluster::{ClusterFile, ClusterMember, Role};
use super::layout::Layout;
use super::process;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Quorum {
    leader: Option<String>,
    members: Vec<Named>,
    #[serde(default)]
    invited: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Invited {
    token: String,
}

/// Returns a client of one master.
pub async fn client(layout: &Layout, master: &ClusterMember) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(layout.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.cluster_url = master.api.as_deref().context("cluster.json lacks a master's address")?.parse()?;
    config.connect_timeout = Some(Duration::from_secs(2));
    config.read_timeout = Some(REQUEST_TIMEOUT);
    Ok(Client::try_from(config)?)
}

/// Returns the names of the quorum's members and invited masters; `None` when no running master knows them.
pub async fn members(layout: &Layout, cluster: &ClusterFile) -> Option<Vec<String>> {
    for master in cluster.with_role(Role::Master).filter(|master| process::is_running(master)) {
        let asked = async {
            let client = client(layout, master).await?;
            let request = http::Request::get("/quorum").body(Vec::new())?;
            anyhow::Ok(client.request::<Quorum>(request).await?)
        };
        if let Ok(Ok(quorum)) = timeout(REQUEST_TIMEOUT, asked).await
            && quorum.leader.is_some()
        {
            return Some(quorum.members.into_iter().chain(quorum.invited).map(|member| member.name).collect());
        }
    }
    None
}

/// Invites a new master into the quorum, and returns its token.
pub async fn invite(layout: &Layout, cluster: &ClusterFile, new: &ClusterMember) -> anyhow::Result<String> {
    let peer = new.peer.as_deref().context("a master has a peer address")?.trim_start_matches("https://");
    let body = json!({ "name": new.name, "peer": peer, "api": new.api, "etcd": new.etcd.clone().unwrap_or_default() });
    let mut problem =
        anyhow::anyhow!("no master of the cluster runs; start the cluster with its current number of masters first");
    for master in cluster.with_role(Role::Master).filter(|master| process::is_running(master)) {
        let client = client(layout, master).await?;
        let request = http::Request::post("/quorum/members")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&body)?)?;
        match client.request::<Invited>(request).await {
            Ok(invited) => return Ok(invited.token),
            Err(error) => problem = error.into(),
        }
    }
    Err(problem.context(format!("the quorum does not let {} in", new.name)))
}
