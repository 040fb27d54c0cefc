//! `quorate agent`: composes one worker.

use anyhow::Context;
use quorate_agent::{Agent, Listen, RuntimeChoice, TlsIdentity};

use crate::config::{AgentArgs, AgentConfig, Runtime, TlsFiles, read_pem};
use crate::{logging, process};

/// It reads and writes small files, and is to stay small itself.
const BLOCKING_THREADS: usize = 4;

pub fn main(args: AgentArgs) -> anyhow::Result<()> {
    let config = args.resolve()?;
    logging::start(&config.log_level)?;
    let composed = compose(&config)?;
    process::run(BLOCKING_THREADS, async move |shutdown| {
        tracing::info!(node = config.node_name, listen = %config.listen, "starting");
        let agent = Agent::new(composed).context("the agent cannot start")?;
        agent.run(shutdown).await.context("the agent failed")
    })
}

fn compose(config: &AgentConfig) -> anyhow::Result<quorate_agent::AgentConfig> {
    let ca = text(&config.client_tls.ca)?;
    let (client, serving) = (identity(&config.client_tls)?, identity(&config.serving_tls)?);
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
    Ok(agent)
}

fn identity(files: &TlsFiles) -> anyhow::Result<TlsIdentity> {
    Ok(TlsIdentity { cert_pem: text(&files.cert)?, key_pem: text(&files.key)? })
}

fn text(path: &std::path::Path) -> anyhow::Result<String> {
    String::from_utf8(read_pem(path)?).with_context(|| format!("{} is not PEM", path.display()))
}
