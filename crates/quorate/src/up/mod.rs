//! `quorate up` and `quorate down`: a whole cluster on this machine, each member a process of its own.

mod cluster;
mod layout;
mod process;
mod quorum;
mod ready;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{FenceDefault, HumanDuration, Runtime};
use crate::logging::{self, progress};
use cluster::{ClusterFile, Role};
use layout::Layout;

/// Time for members to end by themselves before they are killed.
const STOP_GRACE: Duration = Duration::from_secs(15);

#[derive(clap::Args, Clone, Debug)]
pub struct UpArgs {
    /// Number of masters: 1, 3, 5 or 7. If a running cluster has fewer, new masters join it.
    #[arg(long, default_value_t = 3, env = "QUORATE_UP_MASTERS")]
    pub masters: usize,
    /// Number of worker agents.
    #[arg(long, default_value_t = 2, env = "QUORATE_UP_WORKERS")]
    pub workers: usize,
    /// Directory of the cluster: data, certificates, logs, `kubeconfig`, `cluster.json`.
    #[arg(long, env = "QUORATE_UP_DATA_DIR")]
    pub data_dir: PathBuf,
    /// First port to use: four ports for each master (API, etcd, peers, metrics), then one for each worker. Applies
    /// when the cluster is created; masters that join later get free ports. [default: free ports]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), env = "QUORATE_UP_BASE_PORT")]
    pub base_port: Option<u16>,
    /// Runtime of the workers.
    #[arg(long, value_enum, default_value_t = Runtime::Docker, env = "QUORATE_UP_RUNTIME")]
    pub runtime: Runtime,
    /// Leave the cluster running and return. `quorate down` stops it.
    #[arg(long)]
    pub detach: bool,
    /// Write certificates, configuration files and cluster.json, and return without starting anything.
    #[arg(long, conflicts_with = "detach")]
    pub prepare: bool,
    /// Serve the etcd API without TLS or authentication to this machine. Applies when the cluster is created.
    #[arg(long, env = "QUORATE_UP_ETCD_PLAIN")]
    pub etcd_plain: bool,
    /// Time to wait until all members are ready.
    #[arg(long, default_value = "2m", env = "QUORATE_UP_TIMEOUT")]
    pub timeout: HumanDuration,
    /// Passed on to the masters; see `quorate server --help`.
    #[arg(long, env = "QUORATE_UP_NODE_MONITOR_GRACE")]
    pub node_monitor_grace: Option<HumanDuration>,
    /// Passed on to the masters; see `quorate server --help`.
    #[arg(long, env = "QUORATE_UP_EVICTION_AFTER")]
    pub eviction_after: Option<HumanDuration>,
    /// Passed on to the masters; see `quorate server --help`.
    #[arg(long, env = "QUORATE_UP_FENCE_AFTER")]
    pub fence_after: Option<FenceDefault>,
    /// Passed on to the workers; see `quorate agent --help`.
    #[arg(long, env = "QUORATE_UP_HEARTBEAT_INTERVAL")]
    pub heartbeat_interval: Option<HumanDuration>,
    /// Passed on to all members.
    #[arg(long, env = "QUORATE_UP_LOG_LEVEL")]
    pub log_level: Option<String>,
}

#[derive(clap::Args, Clone, Debug)]
pub struct DownArgs {
    /// Data directory of the cluster to stop.
    #[arg(long, env = "QUORATE_UP_DATA_DIR")]
    pub data_dir: PathBuf,
}

pub fn main(args: UpArgs) -> anyhow::Result<()> {
    runtime()?.block_on(up(args))
}

pub fn down(args: DownArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let data_dir = std::path::absolute(&args.data_dir)?;
        let cluster = ClusterFile::load(&data_dir)?
            .with_context(|| format!("{} holds no cluster.json; nothing was started there", data_dir.display()))?;
        let ran = cluster.members.iter().any(process::is_running);
        stop(&cluster).await?;
        let what = if ran { "stopped" } else { "nothing was running in" };
        progress(format!("{what} {}", data_dir.display()));
        Ok(())
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the async runtime")
}

async fn up(args: UpArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let layout = Layout::open(&args)?;
    let mut cluster = layout.prepare(&args).await?;
    if args.prepare {
        return cluster.save(&layout.data_dir);
    }
    let spawned = process::start_missing(&mut cluster, !args.detach)?;
    cluster.save(&layout.data_dir)?;
    progress(format!(
        "started {} masters and {} workers; logs in {}",
        cluster.count(Role::Master),
        cluster.count(Role::Worker),
        layout.logs().display()
    ));

    let ready = tokio::select! {
        result = ready::wait(&layout, &cluster, args.timeout.0) => result,
        result = process::first_exit(&spawned, &cluster) => result,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted before all members were ready")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated before all members were ready")),
    };
    if let Err(error) = ready {
        stop(&cluster).await?;
        return Err(error);
    }
    progress(format!(
        "ready after {:.2} s: export KUBECONFIG={}",
        started.elapsed().as_secs_f64(),
        layout.kubeconfig().display()
    ));
    if args.detach {
        return Ok(());
    }

    let watcher = process::report_exits(&spawned, &cluster);
    tokio::select! {
        () = watcher => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    progress("stopping");
    // Another `up --detach` may have restarted members meanwhile.
    let cluster = ClusterFile::load(&layout.data_dir)?.unwrap_or(cluster);
    stop(&cluster).await?;
    drop(spawned);
    Ok(())
}

/// Stops every member that still runs, workers before masters, and removes the containers they leave.
async fn stop(cluster: &ClusterFile) -> anyhow::Result<()> {
    process::stop(cluster, Role::Worker, STOP_GRACE).await;
    process::stop(cluster, Role::Master, STOP_GRACE).await;
    if cluster.runtime == Runtime::Docker && cluster.count(Role::Worker) > 0 {
        match quorate_agent::remove_containers(&cluster.name).await {
            Ok(0) => {}
            Ok(n) => progress(format!("removed {n} containers")),
            Err(error) => logging::fatal(&anyhow::anyhow!("containers of {} may be left: {error}", cluster.name)),
        }
    }
    Ok(())
}
