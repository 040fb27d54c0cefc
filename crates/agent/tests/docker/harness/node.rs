//! A running agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use quorate_agent::cluster::Cluster;
use quorate_agent::plan::PodRef;
use quorate_agent::{Agent, AgentConfig, Listen, RuntimeChoice};
use tokio_util::sync::CancellationToken;

use super::{FakeCluster, Pki, docker, eventually};

pub const NODE: &str = "node-a";

/// A running agent and its environment. Dropping it removes its containers.
pub struct Node1 {
    pub cluster: Arc<FakeCluster>,
    pub docker: Docker,
    pub pki: Pki,
    pub data: tempfile::TempDir,
    pub cluster_id: String,
    pub port: u16,
    is_on_docker: bool,
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl Node1 {
    /// Starts an agent on Docker, or returns `None` if there is no Docker.
    pub async fn start() -> Option<Self> {
        let mut node = Node1::prepare().await?;
        node.start_agent(RuntimeChoice::Docker { endpoint: None });
        Some(node)
    }

    /// Returns a node on Docker without a running agent, or `None` if there is no Docker.
    pub async fn prepare() -> Option<Self> {
        Some(Node1 {
            cluster: FakeCluster::new(),
            docker: docker().await?,
            pki: Pki::new(),
            data: tempfile::tempdir().expect("a temporary directory"),
            cluster_id: format!("test-{:016x}", rand::random::<u64>()),
            port: 0,
            is_on_docker: true,
            running: None,
        })
    }

    pub fn start_hollow() -> Self {
        let mut node = Node1 {
            cluster: FakeCluster::new(),
            docker: Docker::connect_with_http(
                "tcp://127.0.0.1:1",
                1,
                &bollard::ClientVersion { major_version: 1, minor_version: 41 },
            )
            .expect("never used"),
            pki: Pki::new(),
            data: tempfile::tempdir().expect("a temporary directory"),
            cluster_id: "hollow".to_owned(),
            port: 0,
            is_on_docker: false,
            running: None,
        };
        node.start_agent(RuntimeChoice::Hollow);
        node
    }

    /// Returns an agent of this node that does not run yet.
    pub fn agent(&self, runtime: RuntimeChoice) -> Agent {
        let mut config = AgentConfig::new(
            NODE,
            self.pki.identity("system:node:node-a", "system:nodes").live(),
            self.pki.identity("node-a", "quorate").live(),
            self.pki.ca_pem.clone(),
        );
        config.listen = Listen::Address(([127, 0, 0, 1], 0).into());
        config.data_dir = self.data.path().to_owned();
        config.runtime = runtime;
        config.cluster_id.clone_from(&self.cluster_id);
        config.offline_after = Duration::from_millis(500);
        config.labels = BTreeMap::from([("tier".to_owned(), "given".to_owned())]);
        config.heartbeat_interval = Duration::from_millis(100);
        Agent::with_cluster(config, Arc::clone(&self.cluster) as Arc<dyn Cluster>).expect("an agent")
    }

    pub fn start_agent(&mut self, runtime: RuntimeChoice) {
        let agent = self.agent(runtime);
        self.port = agent.port().expect("a port");
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { agent.run(token).await.expect("the agent runs") });
        self.running = Some((shutdown, task));
    }

    /// Ends the agent. The pods keep running.
    pub async fn stop_agent(&mut self) {
        let (shutdown, task) = self.running.take().expect("the agent runs");
        shutdown.cancel();
        task.await.expect("the agent ends in order");
    }

    /// Returns the ids, the names and the states of this test's containers. The state is true for a running one.
    pub async fn containers(&self) -> Vec<(String, String, bool)> {
        let filters = BTreeMap::from([("label", vec![format!("io.quorate.cluster={}", self.cluster_id)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters.into_iter().collect()).build();
        let list = self.docker.list_containers(Some(options)).await.expect("a list");
        list.into_iter()
            .map(|summary| {
                let running = summary.state == Some(bollard::models::ContainerSummaryStateEnum::RUNNING);
                let name = summary.names.unwrap_or_default().join(",");
                (summary.id.unwrap_or_default(), name, running)
            })
            .collect()
    }

    /// Kills all containers, as a power cut does. The agent must have been stopped before.
    pub async fn power_cut(&self) {
        for (id, _, running) in self.containers().await {
            if running {
                self.docker
                    .kill_container(&id, None::<bollard::query_parameters::KillContainerOptions>)
                    .await
                    .expect("killed");
            }
        }
    }

    pub async fn wait_no_containers(&self) {
        eventually("no containers", async || {
            let left = self.containers().await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// Sends a `GET` request to the node API with a certificate of `group`, and returns the code and the body.
    pub async fn get(&self, group: &str, path: &str) -> (u16, String) {
        let identity = self.pki.identity("quorate:apiserver", group);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).expect("written");
            path
        };
        let (ca, cert, key) =
            (file("ca", &self.pki.ca_pem), file("cert", &identity.cert_pem), file("key", &identity.key_pem));
        let output = tokio::process::Command::new("curl")
            .args(["-s", "--max-time", "20", "-w", "\n%{http_code}"])
            .arg("--cacert")
            .arg(ca)
            .arg("--cert")
            .arg(cert)
            .arg("--key")
            .arg(key)
            .arg(format!("https://127.0.0.1:{}{path}", self.port))
            .output()
            .await
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("a status");
        (code.parse().expect("a number"), body.to_owned())
    }

    /// Returns the log of a container.
    pub async fn log(&self, pod: &str, container: &str, query: &str) -> String {
        let path = format!("/containerLogs/default/{pod}/{container}?{query}");
        let (code, log) = self.get("system:masters", &path).await;
        assert_eq!(code, 200, "{log}");
        log
    }

    /// Waits until the log of a container is exactly this.
    pub async fn wait_log(&self, pod: &str, container: &str, text: &str) {
        let path = format!("/containerLogs/default/{pod}/{container}");
        eventually("the log", async || {
            let answer = self.get("system:masters", &path).await;
            if answer == (200, text.to_owned()) { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Ends the agent in order. [`Drop`] removes its containers.
    pub async fn stop(mut self) {
        self.stop_agent().await;
    }

    /// Deletes these pods without a grace period and checks that nothing is left of them.
    pub async fn finish(self, pods: &[&PodRef]) {
        for pod in pods {
            self.cluster.delete(pod, 0);
        }
        for pod in pods {
            self.cluster.wait_gone(pod).await;
        }
        self.wait_no_containers().await;
        self.stop().await;
    }
}

impl Drop for Node1 {
    fn drop(&mut self) {
        // The agent still runs after a failed test.
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            task.abort();
        }
        if !self.is_on_docker {
            return;
        }
        let filter = format!("label=io.quorate.cluster={}", self.cluster_id);
        let list =
            Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().expect("docker runs").stdout;
        let list = String::from_utf8(list).expect("ids");
        let ids = list.split_whitespace().collect::<Vec<_>>();
        if !ids.is_empty() {
            // Errors are ignored, because a container may be gone already.
            drop(Command::new("docker").args(["rm", "-fv"]).args(ids).output());
        }
    }
}
