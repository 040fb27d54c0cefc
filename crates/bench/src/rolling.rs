//! `bench rolling`: the longest time without an acknowledged write while the members are restarted one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, Member};
use crate::report::{Report, median, seconds};
use crate::rest::{Connection, Credentials};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const RETRY: Duration = Duration::from_millis(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(60);
/// Time with writes before the first restart and after each one.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 3)]
    masters: usize,
    /// Number of times all members are restarted.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Number of writing clients. Each starts at a different master and moves to the next when one fails.
    #[arg(long, default_value_t = 6)]
    clients: usize,
}

/// Times at which one member was stopped and all members were back.
struct Restart {
    began: Instant,
    ended: Instant,
    led: bool,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let cluster = Cluster::start(args.masters, 0, "hollow").await?;
    let credentials = Credentials::of(&cluster)?;
    let mut report = Report::new("rolling", &["restart of", "restarts", "median gap s", "worst gap s"]);
    report.set("masters", args.masters);
    report.set("rounds", args.rounds);
    report.set("clients", args.clients);

    let masters = cluster.with_role("master")?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for client in 0..args.clients {
        writers.spawn(write(client, masters.clone(), credentials.clone(), stop.clone()));
    }
    sleep(SETTLE).await;
    let mut restarts = Vec::new();
    for _ in 0..args.rounds {
        for master in &masters {
            restarts.push(restart(&cluster, &master.name, &credentials).await?);
            sleep(SETTLE).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let by_client = writers.join_all().await;
    let mut all: Vec<Instant> = by_client.iter().flatten().copied().collect();
    all.sort_unstable();
    report.set("writes", all.len());

    for (what, led) in [("the leader", true), ("a follower", false)] {
        let of_kind = || restarts.iter().filter(move |restart| restart.led == led);
        let gaps: Vec<_> = of_kind().map(|restart| longest_gap(&all, restart)).collect();
        let worst = gaps.iter().max().copied().unwrap_or_default();
        report.row([format!("{what}: any client"), gaps.len().to_string(), seconds(median(&gaps)), seconds(worst)]);
        let gaps: Vec<_> = of_kind()
            .map(|restart| by_client.iter().map(|acks| longest_gap(acks, restart)).max().unwrap_or_default())
            .collect();
        let worst = gaps.iter().max().copied().unwrap_or_default();
        report.row([format!("{what}: each client"), gaps.len().to_string(), seconds(median(&gaps)), seconds(worst)]);
    }
    cluster.stop().await?;
    Ok(report)
}

/// Longest time without an acknowledged write that overlaps a restart.
fn longest_gap(acknowledged: &[Instant], restart: &Restart) -> Duration {
    let pairs = acknowledged.windows(2).filter(|pair| pair[1] > restart.began && pair[0] < restart.ended);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Creates objects until `stop` is set. Returns the time of each acknowledgement.
async fn write(first: usize, masters: Vec<Member>, credentials: Credentials, stop: Arc<AtomicBool>) -> Vec<Instant> {
    let body = || -> Bytes {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "rolling-"}}).to_string().into()
    };
    let mut acknowledged = Vec::new();
    let mut next = first;
    let mut connection: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut connection else {
            let url = masters[next % masters.len()].api.as_deref().unwrap_or_default();
            connection = Connection::open(url, &credentials).await.ok();
            if connection.is_none() {
                next += 1;
                sleep(RETRY).await;
            }
            continue;
        };
        match open.request(Method::POST, PATH, body(), ANSWER_WITHIN).await {
            Ok((status, _)) if status.is_success() => acknowledged.push(Instant::now()),
            _ => {
                connection = None;
                next += 1;
            }
        }
    }
    acknowledged
}

async fn restart(cluster: &Cluster, name: &str, credentials: &Credentials) -> anyhow::Result<Restart> {
    let masters = cluster.with_role("master")?;
    let led = quorum(&masters, credentials).await?["leader"] == name;
    let master = masters.iter().find(|master| master.name == name).context("the master is not in cluster.json")?;
    let began = Instant::now();
    cluster.terminate(master)?;
    let gone = async {
        while std::path::Path::new(&format!("/proc/{}/exe", master.pid)).exists() {
            sleep(RETRY).await;
        }
    };
    timeout(LIMIT, gone).await.context("the member does not end")?;
    cluster.revive().await?;
    let caught_up = async {
        loop {
            let quorum = quorum(&masters, credentials).await?;
            let members = quorum["members"].as_array().cloned().unwrap_or_default();
            let lags =
                |member: &Value| member["lag"].as_u64().is_none_or(|lag| lag > 100) || member["role"] == "unreachable";
            if !members.iter().any(lags) {
                return anyhow::Ok(());
            }
            sleep(RETRY).await;
        }
    };
    timeout(LIMIT, caught_up).await.context("the member does not catch up")??;
    Ok(Restart { began, ended: Instant::now(), led })
}

/// Returns the quorum as reported by the first master that knows a leader.
async fn quorum(masters: &[Member], credentials: &Credentials) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        for master in masters {
            let asked = async {
                let url = master.api.as_deref().context("a master without an API")?;
                let mut connection = Connection::open(url, credentials).await?;
                let answer = connection.expect(Method::GET, "/quorum", Bytes::new()).await?;
                anyhow::Ok(serde_json::from_slice::<Value>(&answer)?)
            };
            if let Ok(quorum) = asked.await
                && quorum["leader"].is_string()
            {
                return Ok(quorum);
            }
        }
        ensure!(started.elapsed() < LIMIT, "no leader");
        sleep(RETRY).await;
    }
}
