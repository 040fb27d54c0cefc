//! Tests with members as processes, which are killed with `SIGKILL`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::platform::TaskTracker;
use quorate_mvcc::{KeyRange, RangeRequest};
use quorate_pki::LiveIdentity;
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, Pems, eventually, pems, put};
use crate::Consistency;
use crate::membership::{Member, MemberId};
use crate::raft::lifecycle::identity;
use crate::raft::log::tests::FAIL_SYNC;
use crate::raft::network::client::{Lane, PeerSender, Peers};
use crate::raft::network::messages::{self, ProposeRequest, ProposeResponse, Proposed, StatusResponse};
use crate::raft::network::tls::PeerTlsContext;
use crate::raft::{PeerListen, PeerTls, Pem, RaftConfig, codec, start};

const MEMBER: &str = "QUORATE_TEST_MEMBER";
const MEMBERS: &str = "QUORATE_TEST_MEMBERS";
const DIRECTORY: &str = "QUORATE_TEST_DIRECTORY";

/// Runs a member in a process of its own, which the tests below start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of another test"]
async fn member_process() {
    let variable = |name| std::env::var(name).expect("started by the test");
    let id: MemberId = variable(MEMBER).parse().expect("a number");
    let directory = PathBuf::from(variable(DIRECTORY));
    let members: Vec<Member> = variable(MEMBERS)
        .split(',')
        .zip(1..)
        .map(|(peer, id)| Member { id, name: format!("m{id}"), peer: peer.to_owned(), ..Member::default() })
        .collect();
    let member = members.iter().find(|member| member.id == id).expect("one of them").clone();
    let listen = PeerListen::Address(member.peer.parse().expect("an address"));
    let tls = tls_in(&directory);
    let config = RaftConfig::new(member, members, directory.join(format!("m{id}")), listen, tls);
    let _store = start(config).await.expect("the member starts");
    std::future::pending::<()>().await;
}

fn tls_in(directory: &Path) -> PeerTls {
    let [cert, key] = ["cert", "key"].map(|name| std::fs::read(directory.join(name)).expect("written before"));
    let identity = LiveIdentity::from_pem(&cert, &key).expect("the key matches the certificate");
    PeerTls { ca: Pem::File(directory.join("ca")), identity }
}

struct Processes {
    cluster: Cluster,
    directory: PathBuf,
    children: Vec<Child>,
    peers: Peers,
    shutdown: CancellationToken,
}

impl Processes {
    fn start() -> Self {
        let mut cluster = Cluster::prepare(3, |_| {});
        let directory = cluster.data_dir(1).parent().expect("below the cluster's").to_owned();
        let Pems { ca, cert, key } = pems();
        for (name, bytes) in [("ca", ca), ("cert", cert), ("key", key)] {
            std::fs::write(directory.join(name), bytes).expect("written");
        }
        cluster.release_ports();
        let shutdown = CancellationToken::new();
        let tls = PeerTlsContext::load(&tls_in(&directory)).expect("certificates");
        let id = identity::cluster_id(cluster.members());
        let sender = PeerSender { cluster: id, ..PeerSender::default() };
        let peers = Peers::new(sender, BTreeMap::new(), tls, TaskTracker::new(), shutdown.clone());
        peers.follow(cluster.members());
        let mut processes = Processes { cluster, directory, children: Vec::new(), peers, shutdown };
        processes.children = (1..=3).map(|id| processes.spawn(id)).collect();
        processes
    }

    fn spawn(&self, id: MemberId) -> Child {
        let members: Vec<_> = self.cluster.members().iter().map(|member| member.peer.clone()).collect();
        Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "raft::tests::failover::member_process", "--ignored", "--nocapture"])
            .env(MEMBER, id.to_string())
            .env(MEMBERS, members.join(","))
            .env(DIRECTORY, &self.directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process")
    }

    fn kill(&mut self, id: MemberId) {
        let child = &mut self.children[usize::try_from(id - 1).expect("few members")];
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// Stops a process with `SIGSTOP`, and waits until all its threads have stopped.
    async fn freeze(&self, id: MemberId) {
        self.signal(id, "STOP");
        let pid = self.children[usize::try_from(id - 1).expect("few members")].id();
        let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            // A thread that has ended meanwhile counts as stopped. The state follows the name, which is in parentheses
            // and may contain any characters.
            let stat = std::fs::read_to_string(thread.expect("a thread").path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        eventually("all its threads to stop", async || {
            let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
            threads.all(is_stopped).then_some(())
        })
        .await;
    }

    /// Signals a process: `STOP` or `CONT`.
    fn signal(&self, id: MemberId, signal: &str) {
        let pid = self.children[usize::try_from(id - 1).expect("few members")].id();
        let sent = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status();
        assert!(sent.expect("a command").success());
    }

    fn revive(&mut self, id: MemberId) {
        self.children[usize::try_from(id - 1).expect("few members")] = self.spawn(id);
    }

    async fn leader(&self) -> MemberId {
        eventually("a leader", async || {
            for peer in self.peers.iter() {
                let asked = peer.call(Lane::Control, messages::STATUS, &(), Duration::from_secs(1)).await;
                if let Ok(StatusResponse { leader: Some(leader), .. }) = asked
                    && leader == peer.peer.id
                {
                    return Some(leader);
                }
            }
            None
        })
        .await
    }

    /// Writes a key through the current leader.
    async fn write(&self, key: &str) {
        let command = codec::encode(&put(key, key.as_bytes())).expect("encodable");
        eventually("a write", async || {
            for peer in self.peers.iter() {
                let timeout = Duration::from_secs(1);
                let status = peer.call(Lane::Control, messages::STATUS, &(), timeout).await;
                let Ok(StatusResponse { status, .. }) = status else { continue };
                let request = ProposeRequest { term: status.term, commands: vec![command.clone()] };
                let answer = peer.call(Lane::Bulk, messages::PROPOSE, &request, timeout).await;
                if let Ok(ProposeResponse { outcomes }) = answer
                    && matches!(outcomes.first(), Some(Proposed::Applied { .. }))
                {
                    return Some(());
                }
            }
            None
        })
        .await;
    }
}

impl Processes {
    /// Checks that the leader refuses commands for other terms, which a member sends that has missed an election or is
    /// ahead of the leader.
    async fn assert_other_terms_are_refused(&self, key: &str) {
        let leader = self.leader().await;
        let peer = self.peers.get(leader).expect("a member");
        let timeout = Duration::from_secs(5);
        let asked: Result<StatusResponse, _> = peer.call(Lane::Control, messages::STATUS, &(), timeout).await;
        let current = asked.expect("it answers").status.term;
        for term in [0, current - 1, current + 1] {
            let commands = vec![codec::encode(&put(key, b"of another term")).expect("encodable")];
            let request = ProposeRequest { term, commands };
            let answer: Result<ProposeResponse, _> = peer.call(Lane::Bulk, messages::PROPOSE, &request, timeout).await;
            let outcomes = answer.expect("it answers").outcomes;
            assert!(matches!(outcomes[..], [Proposed::NotLeader { .. }]), "{term} of {current}: {outcomes:?}");
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for child in &mut self.children {
            // This fails if the test has killed the process already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_are_replaced_and_no_acknowledged_write_is_lost() {
    super::cluster::show_logs();
    let rounds = std::env::var("QUORATE_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3);
    let mut processes = Processes::start();
    let mut written = 0;
    let mut gaps = Vec::new();
    for _ in 0..rounds {
        for _ in 0..20 {
            processes.write(&format!("k{written}")).await;
            written += 1;
        }
        let leader = processes.leader().await;
        processes.kill(leader);
        let killed = Instant::now();
        processes.write(&format!("k{written}")).await;
        written += 1;
        gaps.push(killed.elapsed());
        processes.revive(leader);
        // The killed member catches up before the next one is killed.
        eventually("the return of the killed", async || {
            let peer = processes.peers.get(leader)?;
            let asked = peer.call(Lane::Control, messages::STATUS, &(), Duration::from_secs(1)).await;
            let StatusResponse { status, leader } = asked.ok()?;
            (leader.is_some() && status.applied_index >= status.last_log_index && status.last_log_index > 0)
                .then_some(())
        })
        .await;
    }
    processes.assert_other_terms_are_refused(&format!("k{written}")).await;
    gaps.sort_unstable();
    tracing::info!(median = ?gaps[gaps.len() / 2], worst = ?gaps[gaps.len() - 1], "time without an acknowledged write");
    assert!(gaps[gaps.len() - 1] < Duration::from_secs(10), "{gaps:?}");

    for id in 1..=3 {
        processes.kill(id);
    }
    let mut stores = Vec::new();
    for id in 1..=3 {
        stores.push(start(processes.cluster.config(id)).await.expect("the member starts from its directory"));
    }
    let all = eventually("a read", async || {
        let request = RangeRequest::new(KeyRange::prefix("k"));
        stores[0].range(&request, Consistency::Linearizable).await.ok()
    })
    .await;
    assert_eq!(all.count, written);
    for store in stores {
        store.shutdown().await.expect("it stops");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_is_replaced_and_follows_when_it_resumes() {
    super::cluster::show_logs();
    let mut processes = Processes::start();
    for i in 0..10 {
        processes.write(&format!("k{i}")).await;
    }
    let frozen = processes.leader().await;
    processes.freeze(frozen).await;
    let began = Instant::now();
    processes.write("k10").await;
    tracing::info!(gap = ?began.elapsed(), "time without an acknowledged write");
    let successor = processes.leader().await;
    assert_ne!(successor, frozen);
    processes.signal(frozen, "CONT");
    eventually("the resumed member to follow", async || {
        let peer = processes.peers.get(frozen)?;
        let asked = peer.call(Lane::Control, messages::STATUS, &(), Duration::from_secs(1)).await;
        let StatusResponse { status, leader } = asked.ok()?;
        (leader == Some(successor) && status.applied_index >= status.last_log_index).then_some(())
    })
    .await;
    processes.write("k11").await;

    for id in 1..=3 {
        processes.kill(id);
    }
    let mut stores = Vec::new();
    for id in 1..=3 {
        stores.push(start(processes.cluster.config(id)).await.expect("the member starts from its directory"));
    }
    let all = eventually("a read", async || {
        let request = RangeRequest::new(KeyRange::prefix("k"));
        stores[0].range(&request, Consistency::Linearizable).await.ok()
    })
    .await;
    assert_eq!(all.count, 12);
    for store in stores {
        store.shutdown().await.expect("it stops");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_ends_at_once_when_a_sync_fails() {
    let mut processes = Processes::start();
    for i in 0..10 {
        processes.write(&format!("k{i}")).await;
    }
    let failing = processes.leader().await;
    let order = processes.cluster.data_dir(failing).join(FAIL_SYNC);
    std::fs::write(&order, b"").expect("written");
    // A majority of the other members acknowledges the write, under whichever leader.
    processes.write("k10").await;
    let child = &mut processes.children[usize::try_from(failing - 1).expect("few members")];
    let status = eventually("the end of the process", async || child.try_wait().expect("a child")).await;
    assert_eq!(status.code(), Some(74));
    std::fs::remove_file(order).expect("removed");
    processes.revive(failing);
    eventually("its return", async || {
        let peer = processes.peers.get(failing)?;
        let asked = peer.call(Lane::Control, messages::STATUS, &(), Duration::from_secs(1)).await;
        let StatusResponse { status, leader } = asked.ok()?;
        (leader.is_some() && status.applied_index >= status.last_log_index && status.last_log_index > 10).then_some(())
    })
    .await;
    processes.write("k11").await;
}
