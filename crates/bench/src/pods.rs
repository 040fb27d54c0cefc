//! `bench pods`: a Deployment on real Docker, against the same number of plain `docker run`s.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::cluster::{Cluster, resident_mib};
use crate::report::{Report, median, seconds};
use crate::rest::{Connection, Credentials, Lines};

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 3)]
    masters: usize,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Replicas of the Deployment, and plain containers.
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// Pods and containers that are started one after the other.
    #[arg(long, default_value_t = 10)]
    single: usize,
    /// A local image with `sleep`.
    #[arg(long, default_value = "quorate/demo:v1")]
    image: String,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let mut report = Report::new("pods", &["what", "Quorate s", "docker run s", "beyond s"]);
    report.set("masters", args.masters);
    report.set("workers", args.workers);
    report.set("pods", args.pods);

    let mut plain = Vec::new();
    for _ in 0..args.single {
        let started = Instant::now();
        let id = docker_run(&args.image).await?;
        plain.push(started.elapsed());
        docker_remove(&[id]).await?;
    }
    let started = Instant::now();
    let ids = futures::future::try_join_all((0..args.pods).map(|_| docker_run(&args.image))).await?;
    let plain_all = started.elapsed();
    docker_remove(&ids).await?;

    let cluster = Cluster::start(args.masters, args.workers, "docker").await?;
    let credentials = Credentials::of(&cluster)?;
    let url = cluster.with_role("master")?.first().and_then(|m| m.api.clone()).context("no master")?;
    let mut connection = Connection::open(&url, &credentials).await?;

    let mut single = Vec::new();
    for i in 0..args.single {
        let mut watch = watch(&url, &credentials).await?;
        let started = Instant::now();
        let name = format!("single-{i}");
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
        pod["spec"] = pod_spec(&args.image);
        connection.expect(Method::POST, PODS, pod.to_string().into()).await?;
        wait_ready(&mut watch, 1).await?;
        single.push(started.elapsed());
        connection.expect(Method::DELETE, &format!("{PODS}/{name}"), Bytes::new()).await?;
        wait_gone(&mut connection).await?;
    }
    let (pod, container) = (median(&single), median(&plain));
    let beyond = pod.saturating_sub(container);
    report.row(["one, median".to_owned(), seconds(pod), seconds(container), seconds(beyond)]);

    let mut watch = watch(&url, &credentials).await?;
    let started = Instant::now();
    connection.expect(Method::POST, DEPLOYMENTS, deployment(&args).to_string().into()).await?;
    wait_ready(&mut watch, args.pods).await?;
    let all = started.elapsed();
    let beyond = all.saturating_sub(plain_all);
    report.row([format!("{} at once, all", args.pods), seconds(all), seconds(plain_all), seconds(beyond)]);

    for member in cluster.members()? {
        report.set(&format!("{}-rss-mib", member.name), resident_mib(member.pid)?);
    }
    cluster.stop().await?;
    Ok(report)
}

fn pod_spec(image: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": image, "imagePullPolicy": "Never", "command": ["sleep", "3600"]}],
    })
}

fn deployment(args: &Args) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bench"},
        "spec": {
            "replicas": args.pods,
            "selector": {"matchLabels": {"app": "bench"}},
            "template": {"metadata": {"labels": {"app": "bench"}}, "spec": pod_spec(&args.image)},
        },
    })
}

async fn watch(url: &str, credentials: &Credentials) -> anyhow::Result<Lines> {
    Connection::open(url, credentials).await?.watch(&format!("{PODS}?watch=1")).await
}

/// Reads a watch of pods until so many are Ready.
async fn wait_ready(watch: &mut Lines, count: usize) -> anyhow::Result<()> {
    let mut ready = std::collections::BTreeSet::new();
    let all = async {
        while ready.len() < count {
            let event: Value = serde_json::from_slice(&watch.next_line().await?)?;
            let pod = &event["object"];
            let conditions = pod["status"]["conditions"].as_array();
            if conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")) {
                ready.insert(pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
            }
        }
        anyhow::Ok(())
    };
    timeout(LIMIT, all).await.context("the pods did not get ready")?
}

async fn wait_gone(connection: &mut Connection) -> anyhow::Result<()> {
    let gone = async {
        loop {
            let list: Value = serde_json::from_slice(&connection.expect(Method::GET, PODS, Bytes::new()).await?)?;
            if list["items"].as_array().is_some_and(Vec::is_empty) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, gone).await.context("a deleted pod stays")?
}

async fn docker_run(image: &str) -> anyhow::Result<String> {
    let output = Command::new("docker").args(["run", "-d", image, "sleep", "3600"]).output().await?;
    ensure!(output.status.success(), "docker run: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn docker_remove(ids: &[String]) -> anyhow::Result<()> {
    let output = Command::new("docker").args(["rm", "-f"]).args(ids).output().await?;
    ensure!(output.status.success(), "docker rm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
