//! Three members of one of the systems on this machine: their preparation, start, readiness and end.

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use etcd_client::Client;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::clients;
use super::process::{Process, machine_cpu_s, own_cpu_s};
use super::stats::System;
use crate::cluster::quorate_program;

pub const MEMBERS: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Deadline of one attempt to find out whether a member is ready.
const TRY: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);
/// Ports below the range that Linux uses for outgoing connections, so that a member that is down for a while finds its
/// port free when it returns.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Programs and directory of a quorum.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The etcd program.
    pub etcd: PathBuf,
    /// Parent of the data directories of both systems.
    pub dir: PathBuf,
}

pub struct Member {
    pub endpoint: String,
    pub process: Process,
}

/// Running members. Dropping this kills them and removes their data.
pub struct Quorum {
    pub members: Vec<Member>,
    // Declared after the members, because it can only be removed once they are gone.
    _dir: TempDir,
}

impl Quorum {
    /// Starts a quorum on empty directories, and waits until every member accepts writes.
    pub async fn start(system: System, setup: &Setup) -> anyhow::Result<Quorum> {
        let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir_in(&setup.dir)?;
        let mut members = match system {
            System::Etcd => etcd(&setup.etcd, dir.path())?,
            System::Quorate => quorate(dir.path()).await?,
        };
        for member in &mut members {
            member.process.start()?;
        }
        let mut quorum = Quorum { members, _dir: dir };
        for index in 0..MEMBERS {
            quorum.ready(index).await?;
        }
        Ok(quorum)
    }

    /// Waits until a member answers a linearizable read and accepts a write.
    pub async fn ready(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            member.process.expect_running()?;
            match timeout(TRY, try_member(&member.endpoint)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() > deadline => return Err(error.context("not ready")),
                Err(_) if Instant::now() > deadline => anyhow::bail!("{} does not answer", member.endpoint),
                Ok(Err(_)) | Err(_) => sleep(POLL).await,
            }
        }
    }

    /// Returns the index of the leader.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let search = async {
            loop {
                for (index, member) in self.members.iter().enumerate() {
                    if let Ok(Ok(true)) = timeout(TRY, leads(&member.endpoint)).await {
                        return index;
                    }
                }
                sleep(POLL).await;
            }
        };
        timeout(READY_WITHIN, search).await.context("there is no leader")
    }

    /// Returns the clients' endpoints, the leader's first, so that a single client uses the leader in both systems.
    pub async fn endpoints(&self) -> anyhow::Result<Vec<String>> {
        let leader = self.leader().await?;
        let places = (0..MEMBERS).map(|offset| (leader + offset) % MEMBERS);
        Ok(places.map(|index| self.members[index].endpoint.clone()).collect())
    }

    /// Starts to measure the members' resources.
    pub fn meter(&self) -> anyhow::Result<Meter> {
        for member in &self.members {
            member.process.reset_peak()?;
        }
        Ok(Meter { cpu_s: self.cpu_s(), client_cpu_s: own_cpu_s()?, machine_cpu_s: machine_cpu_s()? })
    }

    fn cpu_s(&self) -> f64 {
        self.members.iter().map(|member| member.process.cpu_s()).sum()
    }
}

/// Resources of the members from some point on.
pub struct Meter {
    cpu_s: f64,
    client_cpu_s: f64,
    machine_cpu_s: f64,
}

/// Resources used since the start of the meter.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU seconds of all members.
    pub cpu_s: f64,
    /// CPU seconds of the load generator.
    pub client_cpu_s: f64,
    /// CPU seconds of everything else on this machine.
    pub other_cpu_s: f64,
    /// Current resident memory of the largest member.
    pub resident_mib: f64,
    /// Largest peak of a member's resident memory.
    pub peak_mib: f64,
}

impl Meter {
    pub fn read(&self, quorum: &Quorum) -> anyhow::Result<Usage> {
        let memory: Vec<_> = quorum.members.iter().filter_map(|member| member.process.memory_mib()).collect();
        let (cpu_s, client_cpu_s) = (quorum.cpu_s() - self.cpu_s, own_cpu_s()? - self.client_cpu_s);
        Ok(Usage {
            cpu_s,
            client_cpu_s,
            other_cpu_s: (machine_cpu_s()? - self.machine_cpu_s - cpu_s - client_cpu_s).max(0.0),
            resident_mib: memory.iter().map(|memory| memory.resident_mib).fold(0.0, f64::max),
            peak_mib: memory.iter().map(|memory| memory.peak_mib).fold(0.0, f64::max),
        })
    }
}

async fn try_member(endpoint: &str) -> anyhow::Result<()> {
    let mut client = clients::connect(endpoint).await?;
    client.get("/bench/ready", None).await?;
    client.put("/bench/ready", "", None).await?;
    Ok(())
}

async fn leads(endpoint: &str) -> anyhow::Result<bool> {
    let mut client: Client = clients::connect(endpoint).await?;
    let status = client.status().await?;
    let own = status.header().context("a status without a header")?.member_id();
    Ok(status.leader() == own)
}

/// Prepares etcd with its default flags, except for addresses, directories and logging.
fn etcd(program: &Path, dir: &Path) -> anyhow::Result<Vec<Member>> {
    let ports = free_ports(2 * MEMBERS)?;
    let (peers, clients) = ports.split_at(MEMBERS);
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let cluster: Vec<_> = peers.iter().enumerate().map(|(i, port)| format!("m{i}={}", url(port))).collect();
    let member = |(i, (peer, client)): (usize, (&u16, &u16))| {
        let flags = [
            ("--name", format!("m{i}")),
            ("--listen-peer-urls", url(peer)),
            ("--initial-advertise-peer-urls", url(peer)),
            ("--listen-client-urls", url(client)),
            ("--advertise-client-urls", url(client)),
            ("--initial-cluster", cluster.join(",")),
            ("--log-level", "error".to_owned()),
        ];
        let mut arguments: Vec<OsString> =
            flags.into_iter().flat_map(|(name, value)| [name.into(), value.into()]).collect();
        arguments.extend(["--data-dir".into(), dir.join(format!("m{i}")).into()]);
        let process = Process::new(program.to_owned(), arguments, dir.join(format!("m{i}.log")));
        Member { endpoint: url(client), process }
    };
    Ok(peers.iter().zip(clients).enumerate().map(member).collect())
}

#[derive(Deserialize)]
struct ClusterFile {
    members: Vec<ClusterMember>,
}

#[derive(Deserialize)]
struct ClusterMember {
    data: PathBuf,
    log: PathBuf,
    etcd: String,
}

/// Prepares Quorate as `quorate up` does, but with the etcd API over plain HTTP, like etcd.
async fn quorate(dir: &Path) -> anyhow::Result<Vec<Member>> {
    let program = quorate_program()?;
    let prepared = tokio::process::Command::new(&program)
        .args(["up", "--prepare", "--etcd-plain", "--workers", "0", "--masters", &MEMBERS.to_string(), "--data-dir"])
        .arg(dir)
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    let cluster: ClusterFile = serde_json::from_slice(&fs::read(dir.join("cluster.json"))?)?;
    let member = |member: ClusterMember| {
        let arguments = vec!["server".into(), "--config".into(), member.data.join("config.toml").into()];
        Member { endpoint: member.etcd, process: Process::new(program.clone(), arguments, member.log) }
    };
    Ok(cluster.members.into_iter().map(member).collect())
}

fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let start = RandomState::new().hash_one(std::process::id());
    let size = u64::from(PORTS.end - PORTS.start);
    let candidates = (0..size).filter_map(|i| Some(PORTS.start + u16::try_from((start % size + i) % size).ok()?));
    let free: Vec<u16> =
        candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect();
    ensure!(free.len() == count, "no free ports between {} and {}", PORTS.start, PORTS.end);
    Ok(free)
}
