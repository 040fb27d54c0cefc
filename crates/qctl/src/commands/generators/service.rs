//! Services.

use serde_json::{Value, json};

use super::{Generate, new, number_or_text};
use crate::error::{CliError, Result};
use crate::session::Session;

/// The ports of a Service.
#[derive(Debug, Default, clap::Args)]
struct Ports {
    /// PORT or PORT:TARGET_PORT
    #[arg(long, value_delimiter = ',', value_name = "PORT[:TARGET]")]
    tcp: Vec<String>,
}

impl Ports {
    fn list(&self, node_port: Option<u16>) -> Result<Vec<Value>> {
        self.tcp.iter().map(|text| port(text, node_port)).collect()
    }

    fn require(&self) -> Result<()> {
        if self.tcp.is_empty() {
            return Err(CliError::usage("at least one tcp port specifier must be provided"));
        }
        Ok(())
    }
}

fn port(text: &str, node_port: Option<u16>) -> Result<Value> {
    let (port, target) = text.split_once(':').unwrap_or((text, text));
    let number: u16 =
        port.parse().map_err(|error| CliError::usage(format!("invalid port \"{port}\" in --tcp={text}: {error}")))?;
    let mut object = json!({
        "name": text.replace(':', "-"), "port": number, "protocol": "TCP", "targetPort": number_or_text(target),
    });
    if let Some(node_port) = node_port {
        object["nodePort"] = node_port.into();
    }
    Ok(object)
}

fn service(name: &str, service_type: &str, ports: Vec<Value>) -> Value {
    let mut object = new("v1", "Service", name);
    object["metadata"]["labels"] = json!({"app": name});
    object["spec"] = json!({"type": service_type, "selector": {"app": name}});
    if !ports.is_empty() {
        object["spec"]["ports"] = ports.into();
    }
    object
}

/// The flags of a Service with an address inside the cluster.
#[derive(Debug, clap::Args)]
pub struct ClusterIp {
    #[command(flatten)]
    ports: Ports,
    /// The address of the Service; None for a headless one
    #[arg(long)]
    clusterip: Option<String>,
}

impl Generate for ClusterIp {
    const FAILURE: &'static str = "failed to create ClusterIP service: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        if self.clusterip.as_deref() != Some("None") {
            self.ports.require()?;
        }
        let mut object = service(name, "ClusterIP", self.ports.list(None)?);
        if let Some(address) = &self.clusterip {
            object["spec"]["clusterIP"] = address.clone().into();
        }
        Ok(object)
    }
}

/// The flags of a Service with a port on each node.
#[derive(Debug, clap::Args)]
pub struct NodePort {
    #[command(flatten)]
    ports: Ports,
    /// The port on each node
    #[arg(long)]
    node_port: Option<u16>,
}

impl Generate for NodePort {
    const FAILURE: &'static str = "failed to create NodePort service: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        self.ports.require()?;
        Ok(service(name, "NodePort", self.ports.list(self.node_port.filter(|port| *port > 0))?))
    }
}

/// The flags of a Service with a load balancer outside the cluster.
#[derive(Debug, clap::Args)]
pub struct LoadBalancer {
    #[command(flatten)]
    ports: Ports,
}

impl Generate for LoadBalancer {
    const FAILURE: &'static str = "failed to create LoadBalancer service: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        self.ports.require()?;
        Ok(service(name, "LoadBalancer", self.ports.list(None)?))
    }
}

/// The flags of a Service that is another name of a host.
#[derive(Debug, clap::Args)]
pub struct ExternalName {
    #[command(flatten)]
    ports: Ports,
    /// The host's name
    #[arg(long)]
    external_name: String,
}

impl Generate for ExternalName {
    const FAILURE: &'static str = "failed to create ExternalName service: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let is_host = quorate_api::name::dns1123_subdomain(&self.external_name).is_empty();
        if !is_host {
            return Err(CliError::usage(format!("invalid service external name {}", self.external_name)));
        }
        let mut object = service(name, "ExternalName", self.ports.list(None)?);
        object["spec"]["externalName"] = self.external_name.clone().into();
        Ok(object)
    }
}
