//! Members of a quorum, each a process with a disk, in one simulation.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, Trouble};
use super::evidence::Evidence;
use super::network::{Network, Weather};
use super::process::Process;
use super::random::Random;
use crate::Store;
use crate::hub::HubConfig;
use crate::membership::{Member, MemberId};
use crate::platform::TaskTracker;
use crate::platform::tokio::sync::oneshot;
use crate::raft::config::{LogRetention, Timing};
use crate::raft::engine::RaftEngine;
use crate::raft::launch;
use crate::raft::network::client::{Peers, Sender};
use crate::raft::network::tls::PeerTlsContext;
use crate::raft::node::{Node, Settings};
use crate::raft::tests::cluster::certificates;

/// Nothing is encrypted here, but the code that would do it wants its keys.
static TLS: LazyLock<PeerTlsContext> =
    LazyLock::new(|| PeerTlsContext::load(&certificates()).expect("certificates of our own"));

/// Disks are never lost, so the number of a member's directory is known.
const INCARNATION: u64 = 1000;

/// What differs between simulations beside the seed's course.
#[derive(Clone, Debug)]
pub struct Shape {
    pub members: u64,
    pub retention: Duration,
    pub log_retention: LogRetention,
    pub weather: Weather,
}

impl Shape {
    pub fn random(random: &mut Random) -> Self {
        let forgets = random.percent(40);
        Shape {
            members: if random.percent(15) { 5 } else { 3 },
            retention: Duration::from_secs(if forgets { 3 } else { 600 }),
            log_retention: LogRetention {
                keep_bytes: 1 << random.within(9..15),
                slack_bytes: 1 << random.within(9..13),
            },
            weather: Shape::weather(random),
        }
    }

    pub fn weather(random: &mut Random) -> Weather {
        match random.within(0..6) {
            0 => Weather { delay_micros: 25_000..125_000, loss_percent: 0 },
            1 => Weather { delay_micros: 200..20_000, loss_percent: 20 },
            _ => Weather { delay_micros: 100..3000, loss_percent: random.within(0..3) },
        }
    }
}

/// All members.
pub struct Cluster {
    pub network: Arc<Network>,
    shape: Shape,
    members: Vec<Member>,
    slots: Vec<Mutex<Slot>>,
    random: Mutex<Random>,
    /// Held while a member starts.
    starting: tokio::sync::Mutex<()>,
    evidence: Arc<Evidence>,
}

struct Slot {
    disk: Arc<Disk>,
    life: Option<Life>,
}

/// A member from a start to its end.
#[derive(Clone)]
pub struct Life {
    pub process: Arc<Process>,
    pub node: Arc<Node>,
    pub store: Store,
}

impl Cluster {
    pub fn new(shape: Shape, random: &mut Random, evidence: Arc<Evidence>) -> Arc<Self> {
        let network = Network::install(random.fork(), shape.weather.clone());
        let members = (1..=shape.members).map(|id| Member {
            id,
            name: format!("m{id}"),
            peer: format!("m{id}:1"),
            ..Member::default()
        });
        let members: Vec<_> = members.collect();
        let slots = members.iter().map(|_| Mutex::new(Slot { disk: Arc::default(), life: None })).collect();
        let (random, starting) = (Mutex::new(random.fork()), tokio::sync::Mutex::default());
        Arc::new(Cluster { network, shape, members, slots, random, starting, evidence })
    }

    pub fn ids(&self) -> impl Iterator<Item = MemberId> + use<> {
        1..=self.shape.members
    }

    pub fn name(&self, id: MemberId) -> &str {
        &self.members[index(id)].name
    }

    /// The member's process, if it runs.
    pub fn life(&self, id: MemberId) -> Option<Life> {
        self.slots[index(id)].lock().life.clone().filter(|life| !life.process.is_dead())
    }

    /// Starts a member from what is on its disk. False when it ended before it was up, or its disk failed it.
    pub async fn start(&self, id: MemberId) -> bool {
        let _starting = self.starting.lock().await;
        if self.life(id).is_some() {
            return true;
        }
        let disk = self.slots[index(id)].lock().disk.clone();
        let member = Member { incarnation: INCARNATION + id, ..self.members[index(id)].clone() };
        let random = self.random.lock().fork();
        let process = Process::new(member.name.clone(), disk.clone(), random, self.evidence.panics.clone());
        self.network.begin(&process);
        let settings = Settings {
            member,
            founders: self.members.clone(),
            cluster: 1,
            data_dir: "/data".into(),
            retention: self.shape.retention,
            timing: Timing::default(),
            log_retention: self.shape.log_retention,
            request_timeout: Duration::from_secs(2),
            reserve_bytes: 0,
            integrity_interval: Duration::from_secs(2),
        };
        let had_trouble = disk.has_trouble();
        let (launched, launching) = oneshot::channel();
        process.spawn(async move { drop(launched.send(open(settings).await)) });
        let node = match launching.await {
            Ok(Ok(node)) => node,
            Ok(Err(error)) => {
                process.kill();
                if !had_trouble {
                    self.evidence.problem(format!("{} does not start: {error}", process.name));
                }
                return false;
            }
            Err(_) => return false,
        };
        let store = Store::new(Arc::new(RaftEngine::new(node.clone())));
        let life = Life { process: process.clone(), node: node.clone(), store };
        self.evidence.begins(id, &life);
        self.network.listen(&process.name, node);
        self.slots[index(id)].lock().life = Some(life);
        true
    }

    /// Ends a member's process; if its machine ends too, what it has not synced may be gone.
    pub fn end(&self, id: MemberId, is_power_cut: bool) {
        let mut slot = self.slots[index(id)].lock();
        if let Some(life) = slot.life.take() {
            self.evidence.ends(id, &life);
            life.process.kill();
        }
        if is_power_cut {
            slot.disk.cut_power(&mut self.random.lock());
        }
        drop(slot);
        self.network.changed();
    }

    /// Whether a member's process has ended by itself.
    pub fn has_ended(&self, id: MemberId) -> bool {
        self.slots[index(id)].lock().life.as_ref().is_some_and(|life| life.process.is_dead())
    }

    /// Takes note that it has; its machine may have ended with it.
    pub fn bury(&self, id: MemberId, is_power_cut: bool) {
        let mut slot = self.slots[index(id)].lock();
        slot.life = None;
        if is_power_cut {
            slot.disk.cut_power(&mut self.random.lock());
        }
        drop(slot);
        self.network.changed();
    }

    pub fn set_trouble(&self, id: MemberId, trouble: Option<Trouble>) {
        self.slots[index(id)].lock().disk.set_trouble(trouble);
    }

    pub fn stop(&self, id: MemberId) {
        if let Some(life) = self.life(id) {
            life.process.stop();
            self.network.changed();
        }
    }

    pub fn go_on(&self, id: MemberId) {
        if let Some(life) = self.life(id) {
            life.process.go_on();
            self.network.changed();
        }
    }

    /// Ends everything, and lets go of it.
    pub fn close(&self) {
        for id in self.ids() {
            let life = self.slots[index(id)].lock().life.take();
            if let Some(life) = life {
                life.process.kill();
            }
        }
        self.network.close();
    }
}

async fn open(settings: Settings) -> Result<Arc<Node>, crate::StoreError> {
    let (tasks, shutdown, transport) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    let Member { id, incarnation, .. } = settings.member;
    let sender = Sender { cluster: settings.cluster, member: id, incarnation };
    let peers = Peers::new(sender, BTreeMap::new(), TLS.clone(), tasks.clone(), transport.clone());
    // So small that watchers fall behind.
    let hub = HubConfig {
        ring_bytes: 1 << 10,
        channel_batches: 4,
        channel_bytes: 1 << 10,
        page_bytes: 512,
        catch_up_bytes: 4 << 10,
        progress_interval: Duration::from_secs(1),
    };
    launch(settings, hub, peers, tasks, shutdown, transport).await
}

fn index(id: MemberId) -> usize {
    usize::try_from(id - 1).expect("few members")
}

impl Life {
    /// Has the process do something; `None` when it ends before that is done.
    pub async fn run<T, F>(&self, work: impl FnOnce(Store) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let working = work(self.store.clone());
        self.process.spawn(async move { drop(done.send(working.await)) });
        result.await.ok()
    }
}
