//! `bench failover`: time without an acknowledged write and without a bound pod after the leader is killed.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, Member};
use crate::report::{Report, median, seconds};
use crate::rest::{Connection, Credentials};

const RETRY: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 3)]
    masters: usize,
    /// Number of times the leader is killed.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

pub async fn run(args: Args) -> anyhow::Result<Report> {
    let cluster = Cluster::start(args.masters, 1, "hollow").await?;
    let credentials = Credentials::of(&cluster)?;
    let mut report = Report::new("failover", &["kill -9 of the leader to", "median s", "worst s", "all s"]);
    report.set("masters", args.masters);
    report.set("rounds", args.rounds);

    let (mut writes, mut binds) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let masters = cluster.with_role("master")?;
        let leader = leader(&masters, &credentials).await?;
        let (dead, alive): (Vec<_>, Vec<_>) = masters.into_iter().partition(|member| member.name == leader);
        let dead = dead.first().context("the leader is not in cluster.json")?;
        cluster.kill(dead)?;
        let killed = Instant::now();
        let write = first_success(
            &alive,
            &credentials,
            "/api/v1/namespaces/default/configmaps",
            || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "failover-"}}),
        );
        let bind = next_bind(&alive, &credentials, round);
        let ((), ()) = tokio::try_join!(async { write.await.map(|()| writes.push(killed.elapsed())) }, async {
            bind.await.map(|()| binds.push(killed.elapsed()))
        },)?;
        cluster.revive().await?;
    }
    for (what, times) in [("the next acknowledged write", &writes), ("the next pod bound", &binds)] {
        let all = times.iter().map(|t| format!("{:.2}", t.as_secs_f64())).collect::<Vec<_>>().join(" ");
        let worst = times.iter().max().copied().unwrap_or_default();
        report.row([what.to_owned(), seconds(median(times)), seconds(worst), all]);
    }
    cluster.stop().await?;
    Ok(report)
}

async fn leader(masters: &[Member], credentials: &Credentials) -> anyhow::Result<String> {
    let ask = async {
        loop {
            for master in masters {
                if let Ok(quorum) = get(master, credentials, "/quorum").await
                    && let Some(leader) = quorum["leader"].as_str()
                {
                    return leader.to_owned();
                }
            }
            sleep(RETRY).await;
        }
    };
    timeout(LIMIT, ask).await.context("no leader")
}

async fn get(master: &Member, credentials: &Credentials, path: &str) -> anyhow::Result<Value> {
    let url = master.api.as_deref().context("a master without an API")?;
    let mut connection = Connection::open(url, credentials).await?;
    Ok(serde_json::from_slice(&connection.expect(Method::GET, path, Bytes::new()).await?)?)
}

/// Tries to create an object at all live masters in parallel until one acknowledges it.
async fn first_success(
    masters: &[Member],
    credentials: &Credentials,
    path: &str,
    object: impl Fn() -> Value,
) -> anyhow::Result<()> {
    let tries = masters.iter().map(|master| {
        let body: Bytes = object().to_string().into();
        Box::pin(async move {
            loop {
                if post(master, credentials, path, body.clone()).await.is_ok() {
                    return;
                }
                sleep(RETRY).await;
            }
        })
    });
    timeout(LIMIT, futures::future::select_all(tries)).await.context("no write was acknowledged")?;
    Ok(())
}

async fn post(master: &Member, credentials: &Credentials, path: &str, body: Bytes) -> anyhow::Result<()> {
    let url = master.api.as_deref().context("a master without an API")?;
    let mut connection = Connection::open(url, credentials).await?;
    let (status, _) = connection.request(Method::POST, path, body, Duration::from_secs(10)).await?;
    anyhow::ensure!(status.is_success(), "{status}");
    Ok(())
}

/// Creates a pod and waits until it is bound to a node.
async fn next_bind(masters: &[Member], credentials: &Credentials, round: usize) -> anyhow::Result<()> {
    let (prefix, label) = (format!("failover-{round}-"), format!("failover-{round}"));
    let pod = || {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": prefix.as_str(), "labels": {"round": label.as_str()}},
            "spec": {"containers": [{"name": "main", "image": "none"}], "terminationGracePeriodSeconds": 0},
        })
    };
    first_success(masters, credentials, "/api/v1/namespaces/default/pods", pod).await?;
    let path = format!("/api/v1/namespaces/default/pods?labelSelector=round%3D{label}");
    let bound = async {
        loop {
            if let Ok(list) = get(&masters[0], credentials, &path).await
                && list["items"]
                    .as_array()
                    .is_some_and(|pods| pods.iter().any(|pod| pod["spec"]["nodeName"].is_string()))
            {
                return;
            }
            sleep(RETRY).await;
        }
    };
    timeout(LIMIT, bound).await.context("no pod was bound")
}
