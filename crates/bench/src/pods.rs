//! `bench pods`: pods on Docker, one by one and as a Deployment, against plain `docker run`: with one container per
//! pod, and with a sandbox and a container per pod.

use std::collections::BTreeMap;
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
    /// Number of replicas of the Deployment, and of plain containers started at once.
    #[arg(long, default_value_t = 20)]
    pods: usize,
    /// Number of pods, and of containers, that are started one after the other.
    #[arg(long, default_value_t = 10)]
    single: usize,
    /// A local image with `sleep`.
    #[arg(long, default_value = "quorate/demo:v1")]
    image: String,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let columns =
        ["what", "Quorate s", "docker run s", "beyond s", "docker run of sandbox and container s", "beyond both s"];
    let mut report = Report::new("pods", &columns);
    report.set("masters", args.masters);
    report.set("workers", args.workers);
    report.set("pods", args.pods);

    let cluster = Cluster::start(args.masters, args.workers, "docker").await?;
    let credentials = Credentials::of(&cluster)?;
    let url = cluster.with_role("master")?.first().and_then(|m| m.api.clone()).context("no master")?;
    let mut connection = Connection::open(&url, &credentials).await?;

    // The variants alternate, so that load of the machine affects all of them.
    let (mut plain, mut both, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..args.single {
        plain.push(plain_runs(&args.image, 1, false).await?.remove(0));
        both.push(plain_runs(&args.image, 1, true).await?.remove(0));
        let mut watch = watch(&url, &credentials).await?;
        let started = Instant::now();
        let name = format!("single-{i}");
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
        pod["spec"] = pod_spec(&args.image);
        connection.expect(Method::POST, PODS, pod.to_string().into()).await?;
        single.extend(wait_ready(&mut watch, 1, started).await?);
        connection.expect(Method::DELETE, &format!("{PODS}/{name}"), Bytes::new()).await?;
        wait_gone(&mut connection).await?;
    }
    row(&mut report, "one, median".to_owned(), median(&single), median(&plain), median(&both));

    let plain = plain_runs(&args.image, args.pods, false).await?;
    let both = plain_runs(&args.image, args.pods, true).await?;
    let mut watch = watch(&url, &credentials).await?;
    // The earlier connection was idle while the plain containers ran, so the server may have closed it.
    let mut connection = Connection::open(&url, &credentials).await?;
    let started = Instant::now();
    connection.expect(Method::POST, DEPLOYMENTS, deployment(&args).to_string().into()).await?;
    let ready = wait_ready(&mut watch, args.pods, started).await?;
    let last = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
    row(&mut report, format!("{} at once, median", args.pods), median(&ready), median(&plain), median(&both));
    row(&mut report, format!("{} at once, all", args.pods), last(&ready), last(&plain), last(&both));

    for member in cluster.members()? {
        report.set(&format!("{}-rss-mib", member.name), resident_mib(member.pid)?);
    }
    cluster.stop().await?;
    Ok(report)
}

fn row(report: &mut Report, what: String, pod: Duration, plain: Duration, both: Duration) {
    let beyond = |container: Duration| seconds(pod.saturating_sub(container));
    report.row([what, seconds(pod), seconds(plain), beyond(plain), seconds(both), beyond(both)]);
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

/// Reads a watch until `count` pods are Ready, and returns the time from `started` to each.
async fn wait_ready(watch: &mut Lines, count: usize, started: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut ready = BTreeMap::new();
    let all = async {
        while ready.len() < count {
            let event: Value = serde_json::from_slice(&watch.next_line().await?)?;
            let pod = &event["object"];
            let conditions = pod["status"]["conditions"].as_array();
            if conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")) {
                let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                ready.entry(uid).or_insert_with(|| started.elapsed());
            }
        }
        anyhow::Ok(ready.into_values().collect())
    };
    timeout(LIMIT, all).await.context("the pods did not become ready")?
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

/// Starts `count` containers at once, and removes them again. If `sandboxed`, each container joins the network of a
/// sandbox of its own. Returns the time from the beginning until each container ran.
async fn plain_runs(image: &str, count: usize, sandboxed: bool) -> anyhow::Result<Vec<Duration>> {
    let started = Instant::now();
    let one = || async {
        let mut ids = Vec::new();
        let mut network = "bridge".to_owned();
        if sandboxed {
            ids.push(docker_run(image, &network).await?);
            network = format!("container:{}", ids[0]);
        }
        ids.push(docker_run(image, &network).await?);
        anyhow::Ok((started.elapsed(), ids))
    };
    let runs = futures::future::try_join_all((0..count).map(|_| one())).await?;
    let (times, mut ids): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    // Containers are removed before the sandboxes that they joined.
    ids.iter_mut().for_each(|ids| ids.reverse());
    docker_remove(&ids.concat()).await?;
    Ok(times)
}

async fn docker_run(image: &str, network: &str) -> anyhow::Result<String> {
    let run = ["run", "-d", "--network", network, image, "sleep", "3600"];
    let output = Command::new("docker").args(run).output().await?;
    ensure!(output.status.success(), "docker run: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn docker_remove(ids: &[String]) -> anyhow::Result<()> {
    let output = Command::new("docker").args(["rm", "-f"]).args(ids).output().await?;
    ensure!(output.status.success(), "docker rm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
