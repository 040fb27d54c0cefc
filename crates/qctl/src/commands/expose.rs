//! `expose`: creates a Service for the pods of an object.

use serde_json::{Map, Value, json};

use crate::changes::{ChangeFlags, SaveConfig};
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, Selected, objects, select};
use crate::session::Session;

use super::generators::{New, number_or_text, pairs};

/// Create a Service for a pod, a workload or another Service
#[derive(Debug, Default, clap::Args)]
pub struct Expose {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]")]
    arguments: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    /// Name of the Service, instead of the object's
    #[arg(long)]
    name: Option<String>,
    /// Port of the Service, instead of the object's
    #[arg(long)]
    port: Option<u16>,
    /// Number or name of the container's port, instead of the same one
    #[arg(long)]
    target_port: Option<String>,
    /// TCP, UDP or SCTP, instead of the object's
    #[arg(long)]
    protocol: Option<String>,
    /// ClusterIP, NodePort or LoadBalancer
    #[arg(long = "type")]
    service_type: Option<String>,
    /// KEY=VALUE,… of the pods, instead of the object's selector
    #[arg(long)]
    selector: Option<String>,
    /// KEY=VALUE,… of the Service, instead of the object's labels
    #[arg(short = 'l', long)]
    labels: Option<String>,
    /// Address of the Service; None for a headless one
    #[arg(long)]
    cluster_ip: Option<String>,
    #[arg(long)]
    external_ip: Option<String>,
    #[arg(long)]
    load_balancer_ip: Option<String>,
    /// None or ClientIP
    #[arg(long)]
    session_affinity: Option<String>,
    /// A JSON document that is merged into the Service
    #[arg(long)]
    overrides: Option<String>,
    #[command(flatten)]
    save: SaveConfig,
    #[command(flatten)]
    change: ChangeFlags,
}

/// The kinds that have pods to expose.
const EXPOSABLE: [(&str, &str); 5] =
    [("", "Pod"), ("", "Service"), ("", "ReplicationController"), ("apps", "Deployment"), ("apps", "ReplicaSet")];
const MAX_NAME: usize = 63;

impl Expose {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let targets = select(session, &self.arguments, &self.files, &SelectFlags::default()).await?;
        if targets.is_empty() || targets.iter().any(|target| target.name.is_none()) {
            return Err(CliError::usage("name the object to expose, as TYPE NAME, TYPE/NAME or with -f"));
        }
        let (found, errors) = objects(session, &targets, &SelectFlags::default()).await?;
        CliError::collect(errors)?;
        for selected in &found {
            let object = self.save.annotate(self.service(selected)?);
            New { object, namespaced: true, done: "exposed" }.create(session, &self.change).await?;
        }
        Ok(())
    }

    fn service(&self, selected: &Selected) -> Result<Value> {
        let (resource, object) = (&selected.resource, &selected.object);
        if !EXPOSABLE.iter().any(|(group, kind)| resource.is(group, kind)) {
            return Err(CliError::usage(format!("cannot expose a {}", resource.kind_name())));
        }
        let name: String = match &self.name {
            Some(name) => name.clone(),
            None => selected.name().chars().take(MAX_NAME).collect(),
        };
        let labels = match &self.labels {
            Some(text) => labels(text)?,
            None => object["metadata"]["labels"].as_object().cloned().unwrap_or_default(),
        };
        let selector = match &self.selector {
            Some(text) => labels_of_selector(text)?,
            None => selector(object).map_err(|reason| {
                CliError::usage(format!("couldn't retrieve selectors via --selector flag or introspection: {reason}"))
            })?,
        };
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}});
        if !labels.is_empty() {
            service["metadata"]["labels"] = labels.into();
        }
        let mut spec = json!({"selector": selector});
        let ports = self.ports(object)?;
        if !ports.is_empty() {
            spec["ports"] = ports.into();
        }
        if let Some(affinity) = &self.session_affinity
            && !["None", "ClientIP"].contains(&affinity.as_str())
        {
            return Err(CliError::usage(format!("unknown session affinity: {affinity}")));
        }
        let is_balanced = self.service_type.as_deref() == Some("LoadBalancer");
        for (field, value) in [
            ("type", &self.service_type),
            ("clusterIP", &self.cluster_ip),
            ("sessionAffinity", &self.session_affinity),
            ("loadBalancerIP", if is_balanced { &self.load_balancer_ip } else { &None }),
        ] {
            if let Some(value) = value {
                spec[field] = value.clone().into();
            }
        }
        if let Some(address) = &self.external_ip {
            spec["externalIPs"] = json!([address]);
        }
        service["spec"] = spec;
        if let Some(overrides) = &self.overrides {
            let overrides: Value = serde_json::from_str(overrides)
                .map_err(|error| CliError::usage(format!("--overrides is not JSON: {error}")))?;
            quorate_api::patch::merge::apply(&mut service, &overrides);
        }
        Ok(service)
    }

    /// Returns the ports of the Service: that of the flags, or those of the object.
    fn ports(&self, object: &Value) -> Result<Vec<Value>> {
        let known = ports(object);
        let mut wanted: Vec<(u16, &str)> = match self.port {
            Some(port) => {
                let protocols = known.iter().filter(|(number, _)| *number == port).copied().collect::<Vec<_>>();
                if protocols.is_empty() { vec![(port, "TCP")] } else { protocols }
            }
            None => known,
        };
        if wanted.is_empty() && self.cluster_ip.as_deref() != Some("None") {
            return Err(CliError::usage("couldn't find port via --port flag or introspection"));
        }
        if let Some(protocol) = &self.protocol {
            wanted.iter_mut().for_each(|(_, known)| *known = protocol);
            wanted.dedup();
        }
        let mut numbers: Vec<u16> = wanted.iter().map(|(number, _)| *number).collect();
        numbers.dedup();
        let named = |(number, protocol): &(u16, &str)| {
            let target = self.target_port.as_deref().map_or_else(|| (*number).into(), number_or_text);
            let mut port = json!({"port": number, "protocol": protocol, "targetPort": target});
            let index = numbers.iter().position(|known| known == number).map_or(0, |index| index + 1);
            let is_double = wanted.iter().filter(|(other, _)| other == number).count() > 1;
            if is_double {
                port["name"] = format!("port-{index}-{}", protocol.to_lowercase()).into();
            } else if numbers.len() > 1 {
                port["name"] = format!("port-{index}").into();
            }
            port
        };
        Ok(wanted.iter().map(named).collect())
    }
}

fn labels(text: &str) -> Result<Map<String, Value>> {
    pairs(text.split(','), "label")
}

fn labels_of_selector(text: &str) -> Result<Map<String, Value>> {
    pairs(text.split(','), "selector")
}

/// Returns the labels that select the object's pods.
fn selector(object: &Value) -> Result<Map<String, Value>, String> {
    let found = match object["kind"].as_str() {
        Some("Pod") => &object["metadata"]["labels"],
        Some("Service" | "ReplicationController") => &object["spec"]["selector"],
        _ => {
            let selector = &object["spec"]["selector"];
            if selector["matchExpressions"].as_array().is_some_and(|expressions| !expressions.is_empty()) {
                return Err("couldn't convert expressions to map-based selector format; use --selector".to_owned());
            }
            &selector["matchLabels"]
        }
    };
    let labels = found.as_object().filter(|labels| !labels.is_empty()).cloned();
    labels.ok_or_else(|| "the object has no labels or selector and cannot be exposed".to_owned())
}

/// Returns the ports of a Service, or of the containers of a pod or template, with their protocols.
fn ports(object: &Value) -> Vec<(u16, &str)> {
    let (containers, field) = match object["kind"].as_str() {
        Some("Service") => (None, "port"),
        Some("Pod") => (Some(&object["spec"]["containers"]), "containerPort"),
        _ => (Some(&object["spec"]["template"]["spec"]["containers"]), "containerPort"),
    };
    let ports: Vec<&Value> = match containers {
        None => object["spec"]["ports"].as_array().into_iter().flatten().collect(),
        Some(containers) => containers
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|container| container["ports"].as_array().into_iter().flatten())
            .collect(),
    };
    let port = |port: &&'_ Value| -> Option<u16> { port[field].as_u64().and_then(|number| u16::try_from(number).ok()) };
    ports.into_iter().filter_map(|value| Some((port(&value)?, value["protocol"].as_str().unwrap_or("TCP")))).collect()
}
