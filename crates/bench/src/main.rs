//! Load generators. Each one measures one aspect on a quorum that it starts itself, prints a table, and optionally
//! writes JSON.

mod api;
mod cluster;
mod etcd;
mod failover;
mod kv;
mod pods;
mod report;
mod rest;
mod rolling;
mod start;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", version, about = "Benchmarks of Quorate")]
struct Cli {
    /// Also write the report as JSON to this file.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures puts and linearizable reads on the store alone, with all members in this process.
    Kv(kv::Args),
    /// Measures create, get, list and watch of pods over REST.
    Api(api::Args),
    /// Compares Quorate and etcd under the same load through the same client.
    Etcd(etcd::Args),
    /// Kills the leader repeatedly; measures the time without an acknowledged write, and the time until the next pod is
    /// bound.
    Failover(failover::Args),
    /// Restarts all members one after the other under writes; measures the longest time without an acknowledged write.
    Rolling(rolling::Args),
    /// Measures a Deployment on Docker, from apply to all pods Ready, against plain `docker run`.
    Pods(pods::Args),
    /// Measures `quorate up` on an empty data directory until the API answers.
    Start(start::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        match cli.command {
            Command::Kv(args) => kv::run(args).await,
            Command::Api(args) => api::run(args).await,
            Command::Etcd(args) => etcd::run(args).await,
            Command::Failover(args) => failover::run(args).await,
            Command::Rolling(args) => rolling::run(args).await,
            Command::Pods(args) => pods::run(args).await,
            Command::Start(args) => start::run(args).await,
        }
    })?;
    report.print();
    if let Some(path) = cli.json {
        std::fs::write(path, report.to_json()?)?;
    }
    Ok(())
}
