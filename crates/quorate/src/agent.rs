//! `quorate agent`: composes a worker.

use std::path::PathBuf;

use anyhow::Context;
use quorate_agent::{Agent, Containers, Listen, RuntimeChoice};
use quorate_pki::Pair;

use crate::config::{AgentArgs, AgentConfig, Runtime, TlsFiles, read_pem};
use crate::machine::{self, Credentials};
use crate::{logging, process};

/// Maximum number of blocking threads. The agent only reads and writes small files, and each thread costs memory.
const BLOCKING_THREADS: usize = 4;

/// Indexes of the [`Credentials`] by use.
const CLIENT: usize = 0;
const SERVING: usize = 1;

pub fn main(args: AgentArgs) -> anyhow::Result<()> {
    let mut config = args.resolve()?;
    logging::start(&config.log_level)?;
    machine::prepare_worker(&mut config)?;
    let pair = |files: &TlsFiles| Pair { cert: files.cert.clone(), key: files.key.clone() };
    let credentials = Credentials::load([pair(&config.client_tls), pair(&config.serving_tls)])
        .context("cannot load the certificates")?;
    let composed = compose(&config, &credentials)?;
    process::run(BLOCKING_THREADS, async move |shutdown| {
        tracing::info!(node = config.node_name, listen = %config.listen, "starting");
        let agent = Agent::new(composed).context("the agent cannot start")?;
        let stop = shutdown.child_token();
        let running = async {
            let result = agent.run(shutdown).await.context("the agent failed");
            stop.cancel();
            result
        };
        tokio::join!(running, machine::keep_worker(config, credentials, stop.clone())).0
    })
}

fn compose(config: &AgentConfig, credentials: &Credentials) -> anyhow::Result<quorate_agent::AgentConfig> {
    let ca = text(&config.client_tls.ca)?;
    let (client, serving) = (credentials.live(CLIENT), credentials.live(SERVING));
    let mut agent = quorate_agent::AgentConfig::new(&config.node_name, client, serving, ca);
    agent.masters = config.masters.clone();
    agent.client_ca_pem = text(&config.serving_tls.ca)?;
    agent.listen = Listen::Address(config.listen);
    agent.node_ip = config.node_ip.to_string();
    agent.data_dir = config.data_dir.clone();
    agent.runtime = match config.runtime {
        Runtime::Docker => RuntimeChoice::Docker { endpoint: None },
        Runtime::Hollow => RuntimeChoice::Hollow,
    };
    agent.hollow_dir = config.hollow_dir.clone();
    agent.labels = config.node_labels.iter().cloned().collect();
    agent.heartbeat_interval = config.heartbeat_interval;
    agent.max_pods = config.max_pods;
    agent.cluster_id = config.cluster.clone();
    let program = std::env::current_exe().context("cannot find the quorate binary")?;
    agent.watchdog = Some(vec![program.into(), WATCHDOG.into()]);
    Ok(agent)
}

/// Subcommand with which an agent starts its watchdog.
pub const WATCHDOG: &str = "fence-watchdog";

/// Options of the watchdog, which agents fill in.
#[derive(clap::Args, Clone, Debug)]
pub struct WatchdogArgs {
    /// File in which the agent records its fenced pods.
    #[arg(long)]
    file: PathBuf,
    /// Name of the cluster.
    #[arg(long)]
    cluster: String,
    /// Name of the node.
    #[arg(long)]
    node: String,
}

/// Stops the containers of fenced pods when their agent cannot.
pub fn watchdog(args: WatchdogArgs) -> anyhow::Result<()> {
    logging::start("info")?;
    let containers = Containers { cluster: args.cluster, node: args.node };
    process::run(BLOCKING_THREADS, async move |_| {
        // The watchdog ignores the shutdown and ends by itself, so that a signal meant for the agent does not end it
        // early.
        quorate_agent::watch_containers(args.file, containers).await.context("the fence watchdog failed")
    })
}

fn text(path: &std::path::Path) -> anyhow::Result<String> {
    String::from_utf8(read_pem(path)?).with_context(|| format!("{} is not PEM", path.display()))
}
