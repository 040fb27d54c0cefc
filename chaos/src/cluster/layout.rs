//! Directories, addresses, certificates and configuration files of a quorum.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;

use super::pki::{Authority, Pair};
use super::ports::Ports;
use crate::history::node_name;
use crate::world::MemberIndex;

/// Size of the log that a member keeps, small enough that a member that was down for some seconds needs a snapshot.
const LOG_KEEP_BYTES: u64 = 256 << 10;

/// Names, addresses and directories of one member.
#[derive(Clone, Debug)]
pub struct Place {
    /// `m1` and so on.
    pub name: String,
    pub id: u64,
    pub api: SocketAddr,
    pub etcd: SocketAddr,
    pub peer: SocketAddr,
    pub metrics: SocketAddr,
    /// Address at which this member reaches each other member: a proxy per pair. The entry for itself is its own
    /// address.
    pub peers: Vec<SocketAddr>,
    pub data: PathBuf,
    /// Directory of the files below the disk that the harness mounts at `data`.
    pub below: PathBuf,
    pub config: PathBuf,
    pub log: PathBuf,
}

/// Names, addresses and directories of one worker.
#[derive(Clone, Debug)]
pub struct WorkerPlace {
    /// `w1` and so on; also the name of its node.
    pub name: String,
    pub listen: SocketAddr,
    /// Address of the proxy for its connections to each member's API.
    pub via: Vec<SocketAddr>,
    pub data: PathBuf,
    /// Directory of a hollow worker's containers; `None` for a worker on Docker.
    pub machine: Option<PathBuf>,
    pub config: PathBuf,
    pub log: PathBuf,
}

/// Numbers of workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    pub hollow: usize,
    pub docker: usize,
    /// Label that separates the containers of clusters that share an engine.
    pub cluster: String,
}

impl Workers {
    #[must_use]
    pub fn count(&self) -> usize {
        self.hollow + self.docker
    }
}

#[derive(Clone, Debug)]
pub struct Layout {
    pub directory: PathBuf,
    pub places: Vec<Place>,
    pub workers: Vec<WorkerPlace>,
    pub ca: PathBuf,
    pub admin: Pair,
    /// Reserves the ports of all places while the layout exists.
    _ports: Arc<Ports>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Config<'a> {
    name: &'a str,
    data_dir: &'a Path,
    members: &'a [String],
    peer_via: Vec<String>,
    api_listen: SocketAddr,
    etcd_listen: SocketAddr,
    etcd_plain: bool,
    peer_listen: SocketAddr,
    metrics_listen: SocketAddr,
    client_ca_file: &'a Path,
    tls_cert_file: &'a Path,
    tls_key_file: &'a Path,
    peer_ca_file: &'a Path,
    peer_cert_file: &'a Path,
    peer_key_file: &'a Path,
    node_client_cert_file: &'a Path,
    node_client_key_file: &'a Path,
    retention: &'a str,
    log_keep_bytes: u64,
    node_monitor_grace: &'a str,
    eviction_after: &'a str,
    log_level: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct AgentConfig<'a> {
    node_name: &'a str,
    cluster: &'a str,
    masters: Vec<String>,
    data_dir: &'a Path,
    listen: SocketAddr,
    runtime: &'a str,
    hollow_dir: Option<&'a Path>,
    ca_file: &'a Path,
    client_cert_file: &'a Path,
    client_key_file: &'a Path,
    tls_cert_file: &'a Path,
    tls_key_file: &'a Path,
    heartbeat_interval: &'a str,
    log_level: &'a str,
}

/// Some faults outlast this grace period, so that the node's pods are replaced.
const NODE_MONITOR_GRACE: &str = "6s";
const EVICTION_AFTER: &str = "3s";
const HEARTBEAT_INTERVAL: &str = "1s";

impl Layout {
    /// Lays out `members` members and the workers under `directory`, logs under `logs`.
    ///
    /// # Errors
    /// When there are no free ports, or a file cannot be written.
    pub fn create(
        directory: &Path,
        logs: &Path,
        members: usize,
        workers: &Workers,
        log_level: &str,
    ) -> anyhow::Result<Layout> {
        let pki = directory.join("pki");
        fs::create_dir_all(&pki).with_context(|| format!("cannot create {}", pki.display()))?;
        let ca = Authority::create(&pki, "ca")?;
        let peer_ca = Authority::create(&pki, "peer-ca")?;
        let admin = ca.issue("admin", "chaos", Some("system:masters"))?;
        let mut ports = Ports::default();
        let places = places(directory, logs, members, &mut ports)?;
        let members: Vec<_> = places.iter().map(founder).collect();
        for (index, place) in places.iter().enumerate() {
            let name = &place.name;
            let serving = ca.issue(name, name, None)?;
            let peer = peer_ca.issue(&format!("{name}-peer"), name, None)?;
            let node = ca.issue(&format!("{name}-node"), "quorate:apiserver", Some("system:masters"))?;
            let config = Config {
                name,
                data_dir: &place.data,
                members: &members,
                peer_via: peer_via(&places, index),
                api_listen: place.api,
                etcd_listen: place.etcd,
                etcd_plain: true,
                peer_listen: place.peer,
                metrics_listen: place.metrics,
                client_ca_file: &ca.cert,
                tls_cert_file: &serving.cert,
                tls_key_file: &serving.key,
                peer_ca_file: &peer_ca.cert,
                peer_cert_file: &peer.cert,
                peer_key_file: &peer.key,
                node_client_cert_file: &node.cert,
                node_client_key_file: &node.key,
                // Only the harness compacts.
                retention: "24h",
                log_keep_bytes: LOG_KEEP_BYTES,
                node_monitor_grace: NODE_MONITOR_GRACE,
                eviction_after: EVICTION_AFTER,
                log_level,
            };
            fs::create_dir_all(&place.data)?;
            fs::create_dir_all(&place.below)?;
            fs::write(&place.config, toml::to_string(&config)?)?;
        }
        let workers = lay_out_workers(directory, logs, &places, workers, &ca, log_level, &mut ports)?;
        Ok(Layout { directory: directory.to_owned(), places, workers, ca: ca.cert, admin, _ports: Arc::new(ports) })
    }
}

fn lay_out_workers(
    directory: &Path,
    logs: &Path,
    members: &[Place],
    workers: &Workers,
    ca: &Authority,
    log_level: &str,
    ports: &mut Ports,
) -> anyhow::Result<Vec<WorkerPlace>> {
    let mut places = Vec::new();
    for worker in 0..workers.count() {
        let name = node_name(worker);
        let identity = ca.issue(&name, &format!("system:node:{name}"), Some("system:nodes"))?;
        let machine = (worker < workers.hollow).then(|| directory.join(format!("{name}.machine")));
        let place = WorkerPlace {
            listen: ports.next()?,
            via: members.iter().map(|_| ports.next()).collect::<anyhow::Result<_>>()?,
            data: directory.join(&name),
            config: directory.join(format!("{name}.toml")),
            log: logs.join(format!("{name}.log")),
            machine,
            name,
        };
        let config = AgentConfig {
            node_name: &place.name,
            cluster: &workers.cluster,
            masters: members.iter().map(|member| format!("https://{}", member.api)).collect(),
            data_dir: &place.data,
            listen: place.listen,
            runtime: if place.machine.is_some() { "hollow" } else { "docker" },
            hollow_dir: place.machine.as_deref(),
            ca_file: &ca.cert,
            client_cert_file: &identity.cert,
            client_key_file: &identity.key,
            tls_cert_file: &identity.cert,
            tls_key_file: &identity.key,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            log_level,
        };
        fs::write(&place.config, toml::to_string(&config)?)?;
        places.push(place);
    }
    Ok(places)
}

fn places(directory: &Path, logs: &Path, members: usize, ports: &mut Ports) -> anyhow::Result<Vec<Place>> {
    (0..members)
        .map(|index| {
            let name = format!("m{}", index + 1);
            let peer = ports.next()?;
            let mut peers = (0..members).map(|_| ports.next()).collect::<anyhow::Result<Vec<_>>>()?;
            peers[index] = peer;
            Ok(Place {
                id: index as u64 + 1,
                api: ports.next()?,
                etcd: ports.next()?,
                peer,
                metrics: ports.next()?,
                peers,
                data: directory.join(&name),
                below: directory.join(format!("{name}.disk")),
                config: directory.join(format!("{name}.toml")),
                log: logs.join(format!("{name}.log")),
                name,
            })
        })
        .collect()
}

/// A line of the list of founding members.
fn founder(place: &Place) -> String {
    let Place { id, name, api, etcd, peer, .. } = place;
    format!("id={id},name={name},peer={peer},api=https://{api},etcd=http://{etcd}")
}

/// The proxies through which `own` reaches the others.
fn peer_via(places: &[Place], own: MemberIndex) -> Vec<String> {
    let others = places.iter().enumerate().filter(|(index, _)| *index != own);
    others.map(|(index, place)| format!("{}={}", place.name, places[own].peers[index])).collect()
}
