//! `bench api`: create, get, list and watch of pods over REST.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, resident_mib};
use crate::report::{Latencies, Report, per_second};
use crate::rest::{Connection, Credentials};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 3)]
    masters: usize,
    /// Number of pods to create. No scheduler binds them.
    #[arg(long, default_value_t = 2000)]
    pods: usize,
    /// Number of clients, each with its own connection, spread over the masters.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Number of watchers of all pods while they are created.
    #[arg(long, default_value_t = 4)]
    watchers: usize,
    /// Number of lists of all pods after the creation.
    #[arg(long, default_value_t = 50)]
    lists: usize,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let cluster = Cluster::start(args.masters, 0, "hollow").await?;
    let credentials = Credentials::of(&cluster)?;
    let urls = cluster.with_role("master")?.into_iter().filter_map(|m| m.api).collect::<Vec<_>>();

    let mut report = Report::new("api", &["operation", "count", "per second", "p50 ms", "p90 ms", "p99 ms", "max ms"]);
    report.set("masters", args.masters);
    report.set("clients", args.clients);
    report.set("watchers", args.watchers);

    let mut watchers = JoinSet::new();
    for i in 0..args.watchers {
        let connection = Connection::open(&urls[i % urls.len()], &credentials).await?;
        let mut lines = connection.watch(&format!("{PODS}?watch=1&resourceVersion=0")).await?;
        watchers.spawn(async move {
            let mut seen = 0;
            while seen < args.pods {
                seen += lines.next_count().await?;
            }
            anyhow::Ok(Instant::now())
        });
    }

    let started = Instant::now();
    let creates =
        load(&urls, &credentials, args.clients, args.pods, |i| (Method::POST, PODS.to_owned(), pod(i))).await?;
    row(&mut report, "create", &creates, started.elapsed());

    let mut last = started;
    while let Some(seen_all) = watchers.join_next().await {
        last = last.max(seen_all??);
    }
    let events = u64::try_from(args.pods * args.watchers)?;
    let rate = per_second(events, last - started);
    report.row(["watch".to_owned(), events.to_string(), rate].into_iter().chain(std::iter::repeat_n(String::new(), 4)));

    let gets = args.pods * 5;
    let pods = args.pods;
    let get = move |i: usize| (Method::GET, format!("{PODS}/pod-{:05}", i % pods), Bytes::new());
    let started = Instant::now();
    let latencies = load(&urls, &credentials, args.clients, gets, get).await?;
    row(&mut report, "get (linearizable)", &latencies, started.elapsed());

    let started = Instant::now();
    let list = |_| (Method::GET, PODS.to_owned(), Bytes::new());
    let latencies = load(&urls, &credentials, args.clients.min(4), args.lists, list).await?;
    row(&mut report, &format!("list of {}", args.pods), &latencies, started.elapsed());

    for master in cluster.with_role("master")? {
        report.set(&format!("{}-rss-mib", master.name), resident_mib(master.pid)?);
    }
    cluster.stop().await?;
    Ok(report)
}

/// Sends `total` requests, divided among `clients`.
async fn load(
    urls: &[String],
    credentials: &Credentials,
    clients: usize,
    total: usize,
    request: impl Fn(usize) -> (Method, String, Bytes) + Clone + Send + 'static,
) -> anyhow::Result<Latencies> {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let mut connection = Connection::open(&urls[client % urls.len()], credentials).await?;
        let request = request.clone();
        tasks.spawn(async move {
            let mut latencies = Latencies::new();
            for i in (client..total).step_by(clients) {
                let (method, path, body) = request(i);
                let started = Instant::now();
                connection.expect(method, &path, body).await?;
                latencies.record(started.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Latencies::new();
    while let Some(latencies) = tasks.join_next().await {
        all.merge(&latencies??);
    }
    Ok(all)
}

fn row(report: &mut Report, operation: &str, latencies: &Latencies, elapsed: Duration) {
    let quantiles = [0.5, 0.9, 0.99, 1.0].map(|quantile| latencies.quantile_ms(quantile));
    let count = latencies.count();
    let head = [operation.to_owned(), count.to_string(), per_second(count, elapsed)];
    report.row(head.into_iter().chain(quantiles));
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
