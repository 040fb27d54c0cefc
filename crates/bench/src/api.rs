//! `bench api`: create, get, patch, list and watch of pods over REST.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, resident_mib};
use crate::etcd::process::cpu_of_s;
use crate::report::{Latencies, Report, per_second};
use crate::rest::{Connection, Credentials, Lines};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Where the patches of the watch measurement say when they were sent.
const SENT: &str = "bench-sent";

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 3)]
    masters: usize,
    /// Number of pods to create. No scheduler binds them.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Number of clients, each with its own connection, spread over the masters.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Number of watchers of all pods, while one client changes pods.
    #[arg(long, default_value_t = 50)]
    watchers: usize,
    /// Number of lists of all pods by four clients.
    #[arg(long, default_value_t = 50)]
    lists: usize,
    /// Number of watches of the pods of one node each, while all clients change pods of no node.
    #[arg(long, default_value_t = 2_000)]
    agents: usize,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let cluster = Cluster::start(args.masters, 0, "hollow").await?;
    let credentials = Credentials::of(&cluster)?;
    let masters = cluster.with_role("master")?;
    let urls = masters.iter().filter_map(|m| m.api.clone()).collect::<Vec<_>>();
    let pids = masters.iter().map(|master| master.pid).collect::<Vec<_>>();

    let columns = ["operation", "count", "per second", "p50 ms", "p90 ms", "p99 ms", "max ms", "MB/s", "CPU us each"];
    let mut report = Report::new("api", &columns);
    report.set("masters", args.masters);
    report.set("clients", args.clients);
    let bench = Bench { urls, credentials, pids };
    let Args { pods, clients, .. } = args;

    bench.load(&mut report, "create", clients, pods, |i| (Method::POST, PODS.to_owned(), pod(i))).await?;
    for master in &masters {
        report.set(&format!("{}-rss-mib", master.name), resident_mib(master.pid)?);
    }
    let get = move |i| (Method::GET, path_of(i % pods), Bytes::new());
    bench.load(&mut report, "get (linearizable)", clients, pods * 5, get).await?;
    let patch = move |i: usize| (Method::PATCH, path_of(i % pods), label("bench-step", &i.to_string()));
    bench.load(&mut report, "merge-patch", clients, pods, patch).await?;
    let list = |_| (Method::GET, PODS.to_owned(), Bytes::new());
    bench.load(&mut report, &format!("list of {pods}"), clients.min(4), args.lists, list).await?;
    bench.watch_latency(&mut report, args.watchers, pods).await?;
    for agents in [0, args.agents / 10, args.agents] {
        let watches = bench.agents(agents).await?;
        let operation = format!("merge-patch, {agents} agents watch");
        bench.load(&mut report, &operation, clients, pods.min(5_000), patch).await?;
        drop(watches);
    }
    cluster.stop().await?;
    Ok(report)
}

/// The masters under load.
struct Bench {
    urls: Vec<String>,
    credentials: Credentials,
    pids: Vec<i32>,
}

impl Bench {
    fn url(&self, client: usize) -> &str {
        &self.urls[client % self.urls.len()]
    }

    /// Sends `total` requests, divided among `clients`, and adds a row to the report.
    async fn load(
        &self,
        report: &mut Report,
        operation: &str,
        clients: usize,
        total: usize,
        request: impl Fn(usize) -> (Method, String, Bytes) + Clone + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let (started, used) = (Instant::now(), self.cpu_s()?);
        for client in 0..clients {
            let mut connection = Connection::open(self.url(client), &self.credentials).await?;
            let request = request.clone();
            tasks.spawn(async move {
                let (mut latencies, mut bytes) = (Latencies::new(), 0);
                for i in (client..total).step_by(clients) {
                    let (method, path, body) = request(i);
                    let started = Instant::now();
                    bytes += connection.expect(method, &path, body).await?.len();
                    latencies.record(started.elapsed());
                }
                anyhow::Ok((latencies, bytes))
            });
        }
        let (mut all, mut bytes) = (Latencies::new(), 0);
        while let Some(done) = tasks.join_next().await {
            let (latencies, read) = done??;
            all.merge(&latencies);
            bytes += read;
        }
        let (elapsed, used) = (started.elapsed(), self.cpu_s()? - used);
        row(report, operation, &all, elapsed, bytes, used);
        Ok(())
    }

    /// Measures the time from sending a change to its event at each watcher. One client changes one pod at a time.
    async fn watch_latency(&self, report: &mut Report, watchers: usize, pods: usize) -> anyhow::Result<()> {
        const CHANGES: usize = 1000;
        let origin = Instant::now();
        let mut tasks = JoinSet::new();
        let version = self.version().await?;
        for i in 0..watchers {
            let connection = Connection::open(self.url(i), &self.credentials).await?;
            let mut lines = connection.watch(&format!("{PODS}?watch=1&resourceVersion={version}")).await?;
            tasks.spawn(async move {
                let mut latencies = Latencies::new();
                for _ in 0..CHANGES {
                    let event: Event = serde_json::from_slice(&lines.next_line().await?)?;
                    let sent = Duration::from_nanos(event.object.metadata.labels[SENT].parse()?);
                    latencies.record(origin.elapsed().saturating_sub(sent));
                }
                anyhow::Ok(latencies)
            });
        }
        let mut writer = Connection::open(self.url(0), &self.credentials).await?;
        let (started, used) = (Instant::now(), self.cpu_s()?);
        for i in 0..CHANGES {
            let sent = origin.elapsed().as_nanos().to_string();
            writer.expect(Method::PATCH, &path_of(i % pods), label(SENT, &sent)).await?;
        }
        let mut all = Latencies::new();
        while let Some(latencies) = tasks.join_next().await {
            all.merge(&latencies??);
        }
        let (elapsed, used) = (started.elapsed(), self.cpu_s()? - used);
        row(report, &format!("write to event, {watchers} watchers"), &all, elapsed, 0, used);
        Ok(())
    }

    /// Opens a watch of the pods of one node for each agent.
    async fn agents(&self, agents: usize) -> anyhow::Result<Vec<Lines>> {
        let version = self.version().await?;
        let mut watches = Vec::new();
        for agent in 0..agents {
            let connection = Connection::open(self.url(agent), &self.credentials).await?;
            let path =
                format!("/api/v1/pods?watch=1&resourceVersion={version}&fieldSelector=spec.nodeName%3Dnode-{agent:05}");
            watches.push(connection.watch(&path).await?);
        }
        Ok(watches)
    }

    /// Returns the newest version of the collection.
    async fn version(&self) -> anyhow::Result<String> {
        let mut connection = Connection::open(self.url(0), &self.credentials).await?;
        let list = connection.expect(Method::GET, &format!("{PODS}?limit=1"), Bytes::new()).await?;
        let list: serde_json::Value = serde_json::from_slice(&list)?;
        Ok(list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
    }

    /// Returns the CPU seconds that all masters have used.
    fn cpu_s(&self) -> anyhow::Result<f64> {
        self.pids.iter().map(cpu_of_s).sum()
    }
}

#[derive(Deserialize)]
struct Event {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    labels: HashMap<String, String>,
}

fn path_of(i: usize) -> String {
    format!("{PODS}/pod-{i:05}")
}

fn label(name: &str, value: &str) -> Bytes {
    json!({ "metadata": { "labels": { name: value } } }).to_string().into()
}

fn row(report: &mut Report, operation: &str, latencies: &Latencies, elapsed: Duration, bytes: usize, used_s: f64) {
    let quantiles = [0.5, 0.9, 0.99, 1.0].map(|quantile| latencies.quantile_ms(quantile));
    let count = latencies.count();
    let head = [operation.to_owned(), count.to_string(), per_second(count, elapsed)];
    let megabytes = format!("{:.0}", bytes as f64 / 1e6 / elapsed.as_secs_f64());
    let each = format!("{:.0}", used_s * 1e6 / count.max(1) as f64);
    report.row(head.into_iter().chain(quantiles).chain([megabytes, each]));
}

fn pod(i: usize) -> Bytes {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{i:05}"), "labels": {"app": "bench", "shard": format!("{}", i % 10)}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main",
                "image": "quorate/demo:v1",
                "command": ["sleep", "3600"],
                "env": [{"name": "INDEX", "value": i.to_string()}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            }],
        },
    });
    pod.to_string().into()
}
