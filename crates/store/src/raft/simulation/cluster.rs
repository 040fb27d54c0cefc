//! The simulated cluster: members of a quorum, each with a process and a disk.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_mvcc::CommandVersion;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, SyncFault};
use super::evidence::Evidence;
use super::invariants::Invariant;
use super::network::{Network, Weather};
use super::process::Process;
use super::random::Random;
use crate::Store;
use crate::changes::{Change, Invite, Token};
use crate::hub::HubConfig;
use crate::membership::{Member, MemberId};
use crate::platform::TaskTracker;
use crate::platform::tokio::sync::oneshot;
use crate::platform::tokio::time::{sleep, timeout};
use crate::raft::config::{LogRetention, PeerTls, Timing};
use crate::raft::engine::RaftEngine;
use crate::raft::lifecycle::start::launch;
use crate::raft::membership::joining::{JoinConfig, join};
use crate::raft::network::client::{PeerSender, Peers};
use crate::raft::network::tls::PeerTlsContext;
use crate::raft::node::{Node, Settings};
use crate::raft::tests::cluster::certificates;

/// Certificates that the transport code needs, although the simulation encrypts nothing.
static CERTIFICATES: LazyLock<PeerTls> = LazyLock::new(certificates);
static TLS: LazyLock<PeerTlsContext> =
    LazyLock::new(|| PeerTlsContext::load(&CERTIFICATES).expect("certificates of our own"));

/// Base of the incarnations of the founders' directories. A wiped directory gets the next number.
const INCARNATION: u64 = 1000;
const CLUSTER: u32 = 1;
/// Maximum time for an attempt of a new member to join.
const JOIN_WITHIN: Duration = Duration::from_millis(1500);
/// Maximum time for a request to invite it.
const INVITE_WITHIN: Duration = Duration::from_secs(1);

/// Parameters of a simulated cluster.
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

/// All members, by the numbers of their machines, which start at 1. Each machine has the founder whose id is that
/// number, or the member that replaced it.
pub struct Cluster {
    pub network: Arc<Network>,
    shape: Shape,
    founders: Vec<Member>,
    slots: Vec<Mutex<Slot>>,
    random: Mutex<Random>,
    /// Locked while the member of a machine starts.
    starting: Vec<tokio::sync::Mutex<()>>,
    /// Locked while a member is replaced.
    pub replacing: tokio::sync::Mutex<()>,
    evidence: Arc<Evidence>,
}

struct Slot {
    disk: Arc<Disk>,
    member: Member,
    standing: Standing,
    /// The process that starts and is not a [`Life`] yet.
    beginning: Option<Arc<Process>>,
    life: Option<Life>,
}

/// Membership state of a machine.
#[derive(Clone)]
enum Standing {
    Member,
    /// The machine's disk is new, and the quorum has to invite a new member in place of the lost one.
    Lost,
    /// The new member is invited and may join with this token.
    Invited(Token),
}

/// A running member, from its start to its end.
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
        let founders: Vec<_> = members.collect();
        let slot = |founder: &Member| {
            let member = Member { incarnation: INCARNATION + founder.id, ..founder.clone() };
            Mutex::new(Slot { disk: Arc::default(), member, standing: Standing::Member, beginning: None, life: None })
        };
        let slots = founders.iter().map(slot).collect();
        let starting = founders.iter().map(|_| tokio::sync::Mutex::default()).collect();
        let (random, replacing) = (Mutex::new(random.fork()), tokio::sync::Mutex::default());
        Arc::new(Cluster { network, shape, founders, slots, random, starting, replacing, evidence })
    }

    pub fn ids(&self) -> impl Iterator<Item = MemberId> + use<> {
        1..=self.shape.members
    }

    pub fn name(&self, id: MemberId) -> &str {
        &self.founders[index(id)].name
    }

    /// The member id of a machine's current member.
    pub fn member_id(&self, id: MemberId) -> MemberId {
        self.slots[index(id)].lock().member.id
    }

    /// Whether the voters are exactly the current members of all machines, so that one of them can be lost for good.
    pub fn is_whole(&self) -> bool {
        let members = self.ids().map(|id| self.member_id(id)).collect();
        let is_whole = |life: Life| {
            let roster = life.node.roster();
            let is_settled = !roster.is_joint && roster.committed_version == roster.version;
            roster.is_formed() && is_settled && roster.voters == members
        };
        !self.ids().any(|id| self.is_joining(id)) && self.ids().filter_map(|id| self.life(id)).any(is_whole)
    }

    pub fn is_joining(&self, id: MemberId) -> bool {
        !matches!(self.slots[index(id)].lock().standing, Standing::Member)
    }

    /// The running member of a machine, if there is one.
    pub fn life(&self, id: MemberId) -> Option<Life> {
        self.slots[index(id)].lock().life.clone().filter(|life| !life.process.is_dead())
    }

    /// Starts a member from its disk. Returns false when it ended during the start, or its disk failed.
    pub async fn start(&self, id: MemberId) -> bool {
        let _starting = self.starting[index(id)].lock().await;
        self.start_alone(id).await
    }

    /// Like [`Cluster::start`], for a caller that holds the machine's `starting` lock.
    async fn start_alone(&self, id: MemberId) -> bool {
        if self.life(id).is_some() {
            return true;
        }
        let standing = self.slots[index(id)].lock().standing.clone();
        let token = match standing {
            Standing::Member => None,
            Standing::Invited(token) => Some(token),
            Standing::Lost => match self.invite(id).await {
                Some(token) => Some(token),
                None => return false,
            },
        };
        let (disk, member) = {
            let slot = self.slots[index(id)].lock();
            (slot.disk.clone(), slot.member.clone())
        };
        let random = self.random.lock().fork();
        let process = Process::new(self.name(id).to_owned(), disk.clone(), random, self.evidence.panics.clone());
        self.network.begin(&process);
        self.slots[index(id)].lock().beginning = Some(process.clone());
        let member = match token {
            None => member,
            Some(token) => match self.join(id, token, &process).await {
                Some(member) => member,
                None => return false,
            },
        };
        let settings = Settings {
            founders: if member.id == id { self.founders.clone() } else { Vec::new() },
            member,
            cluster: CLUSTER,
            data_dir: "/data".into(),
            retention: self.shape.retention,
            timing: Timing::default(),
            log_retention: self.shape.log_retention,
            request_timeout: Duration::from_secs(2),
            reserve_bytes: 0,
            integrity_interval: Duration::from_secs(2),
            commands: CommandVersion::NEWEST,
        };
        let had_sync_fault = disk.has_sync_fault();
        let (launched, launching) = oneshot::channel();
        process.spawn(async move { drop(launched.send(open(settings).await)) });
        let node = match launching.await {
            Ok(Ok(node)) => node,
            Ok(Err(error)) => {
                process.kill();
                if !had_sync_fault {
                    let problem = format!("{} does not start: {error}", process.name);
                    self.evidence.problem(Invariant::Restarts, problem);
                }
                return false;
            }
            Err(_) => return false,
        };
        if process.is_dead() {
            return false;
        }
        let store = Store::new(Arc::new(RaftEngine::new(node.clone())));
        let life = Life { process: process.clone(), node: node.clone(), store };
        self.evidence.record_start(id, &life);
        self.network.listen(&process.name, node);
        let mut slot = self.slots[index(id)].lock();
        (slot.beginning, slot.life) = (None, Some(life));
        true
    }

    /// Asks the other members for a join token.
    async fn invite(&self, id: MemberId) -> Option<Token> {
        let Member { name, peer, .. } = self.founders[index(id)].clone();
        let replaces = Some(self.member_id(id).to_string());
        let invite = Change::Invite(Invite { name, peer, replaces, ..Invite::default() });
        for life in self.ids().filter(|other| *other != id).filter_map(|other| self.life(other)) {
            let invite = invite.clone();
            let asked = timeout(INVITE_WITHIN, life.run(|store| async move { store.change(invite).await })).await;
            if let Ok(Some(Ok(invited))) = asked {
                let token: Token = invited.token?.parse().ok()?;
                self.evidence.note(&("invited", id));
                self.slots[index(id)].lock().standing = Standing::Invited(token.clone());
                return Some(token);
            }
        }
        None
    }

    /// Lets a new process join. Returns `None` when it has not joined in time.
    async fn join(&self, id: MemberId, token: Token, process: &Arc<Process>) -> Option<Member> {
        let config = JoinConfig {
            token,
            name: process.name.clone(),
            api_port: 1,
            etcd: None,
            data_dir: "/data".into(),
            tls: CERTIFICATES.clone(),
            peer_via: BTreeMap::new(),
        };
        let (done, joining) = oneshot::channel();
        process.spawn(async move { drop(done.send(join(config).await)) });
        let problem = match timeout(JOIN_WITHIN, joining).await {
            Ok(Ok(Ok(member))) => {
                self.evidence.note(&("joined", id));
                let mut slot = self.slots[index(id)].lock();
                slot.member = member.clone();
                slot.standing = Standing::Member;
                return Some(member);
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) | Err(_) => String::new(),
        };
        if problem.contains("does not let") {
            // An earlier invitation whose response was lost was committed later, which invalidated this token.
            self.evidence.note(&("refused", id));
            self.slots[index(id)].lock().standing = Standing::Lost;
        }
        process.kill();
        self.network.changed();
        None
    }

    /// Ends a member and wipes its disk. If the old machine `comes_back`, it starts like a new founder, but with
    /// another incarnation, and the others must ignore it.
    pub async fn lose(&self, id: MemberId, comes_back: bool) {
        // A concurrent start would continue to use the lost disk.
        let _starting = self.starting[index(id)].lock().await;
        self.end(id, true);
        let is_founder = {
            let mut slot = self.slots[index(id)].lock();
            slot.disk = Arc::default();
            slot.member.id == id
        };
        self.evidence.record_lost_disk(id);
        if comes_back && is_founder {
            self.slots[index(id)].lock().member.incarnation += 1;
            self.start_alone(id).await;
            let pause = self.random.lock().millis(10..2000);
            sleep(pause).await;
            self.end(id, true);
            self.slots[index(id)].lock().disk = Arc::default();
            self.evidence.record_lost_disk(id);
        }
        self.slots[index(id)].lock().standing = Standing::Lost;
    }

    /// Ends a member's process, even while it starts. A power cut may also lose its unsynced data.
    pub fn end(&self, id: MemberId, is_power_cut: bool) {
        let mut slot = self.slots[index(id)].lock();
        if let Some(process) = slot.beginning.take() {
            process.kill();
        }
        if let Some(life) = slot.life.take() {
            self.evidence.record_end(id, &life);
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

    /// Records that a member's process has ended by itself, possibly in a power cut.
    pub fn mark_ended(&self, id: MemberId, is_power_cut: bool) {
        let mut slot = self.slots[index(id)].lock();
        slot.life = None;
        if is_power_cut {
            slot.disk.cut_power(&mut self.random.lock());
        }
        drop(slot);
        self.network.changed();
    }

    pub fn set_sync_fault(&self, id: MemberId, sync_fault: Option<SyncFault>) {
        self.slots[index(id)].lock().disk.set_sync_fault(sync_fault);
    }

    pub fn stop(&self, id: MemberId) {
        if let Some(life) = self.life(id) {
            life.process.stop();
            self.network.changed();
        }
    }

    pub fn resume(&self, id: MemberId) {
        if let Some(life) = self.life(id) {
            life.process.resume();
            self.network.changed();
        }
    }

    /// Ends all processes and the network.
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
    let sender = PeerSender { cluster: settings.cluster, member: id, incarnation };
    let peers = Peers::new(sender, BTreeMap::new(), TLS.clone(), tasks.clone(), transport.clone());
    // The limits are so small that watchers fall behind.
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
    /// Runs work in the process. Returns `None` when the process ends before the work does.
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
