//! A run: starts a quorum, lets clients and faults work on it for a while, heals everything, and collects what was
//! recorded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::checker::hashes::Round;
use crate::clients::rest::Credentials;
use crate::clients::watcher::{Progress, Style};
use crate::clients::{self, Clock, Connection, Context, Objects, workload};
use crate::cluster::{Agents, Engine, Failpoints, Layout, LossyDisk, Processes, Shim, SmallDisk, Workers, proxy};
use crate::ending::{Closing, Ending};
use crate::fault::Kind;
use crate::history::{
    Api, History, Increment, InformerLog, LeaseLog, Micros, Operation, Outcome, Request, Sample, Settled, Transaction,
    WatchLog,
};
use crate::leader::{self, Led};
use crate::nemesis::{Account, Means, Nemesis};
use crate::replacement::Operator;
use crate::schedule::{Plan, Planned};
use crate::settle;
use crate::world::World;

/// Time within which all members must serve, at the start and after everything is healed.
const SERVE_WITHIN: Duration = Duration::from_secs(60);
const WATCHERS: usize = 3;
const INFORMERS: usize = 2;
/// Clients that create Deployments; each has two at a time.
const DEPLOYERS: usize = 2;

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub members: usize,
    pub workers: Workers,
    /// The engine for Docker workers.
    pub engine: Option<Engine>,
    pub duration: Duration,
    /// Time within which the workload must reach its desired state after the last fault.
    pub settle_within: Duration,
    pub kinds: Vec<Kind>,
    /// Number of clients of each type.
    pub clients: usize,
    /// The mean pause of a client between two operations.
    pub pause: Duration,
    /// The `quorate` binary.
    pub binary: PathBuf,
    /// Directory for data, certificates and configuration.
    pub directory: PathBuf,
    pub logs: PathBuf,
    pub log_level: String,
}

/// Everything that a run recorded.
#[derive(Debug)]
pub struct Recorded {
    pub history: History,
    pub account: Account,
    pub leaders: Vec<Led>,
    pub schedule: Vec<Planned>,
    /// Faults that this machine does not support, and why.
    pub left_out: Vec<String>,
    /// When the schedule was over and everything healed.
    pub healed: Micros,
    /// Comparisons of hashes during the schedule.
    pub hashes: Vec<Round>,
    /// The newest revision that may have been compacted.
    pub compacted: u64,
    pub ending: Ending,
    pub workers: usize,
    /// The workload at the end; `None` when the quorum did not serve.
    pub settled: Option<Settled>,
}

/// Runs the whole schedule, or until `abort` is cancelled; no process is left in either case.
///
/// # Errors
/// When the quorum cannot be set up, or a fault cannot be injected.
pub async fn run(options: &Options, abort: CancellationToken) -> anyhow::Result<Recorded> {
    let Options { members, workers, directory, logs, log_level, .. } = options;
    let layout = Layout::create(directory, logs, *members, workers, log_level)?;
    let mut left_out = Vec::new();
    let failpoints = Arc::new(Failpoints::new(options.members));
    let tools = Tools::prepare(options, &layout, &failpoints, &mut left_out);
    let layout = Arc::new(layout);
    let plan = Plan {
        seed: options.seed,
        members: options.members,
        duration_ms: u64::try_from(options.duration.as_millis())?,
        kinds: tools.kinds,
        small_disk: tools.small_disk.as_ref().map(|(member, _)| *member),
        lossy_disks: !tools.lossy_disks.is_empty(),
        workers: options.workers.count(),
    };
    let schedule = plan.draw();
    let (world, world_seen) = watch::channel(World::healthy(options.members, options.workers.count()));
    let (leader, leader_seen) = watch::channel(None);
    let processes = Processes::new(options.binary.clone(), layout.clone(), tools.shim.clone())?;
    let agents = Agents::new(options.binary.clone(), layout.clone(), tools.shim, options.engine.clone())?;
    let context = Context {
        layout: layout.clone(),
        clock: Clock::start(),
        stop: CancellationToken::new(),
        keys: Arc::new(Objects::new(3)),
        pairs: Arc::new(Objects::new(1)),
        configmaps: Arc::new(Objects::new(2)),
        pause: options.pause,
    };

    let mut network = JoinSet::new();
    network.spawn(proxy::run(layout, world_seen, failpoints.clone(), options.seed));
    let (small_disk, lossy_disks) = (tools.small_disk, tools.lossy_disks);
    let operator = Operator::new(context.layout.clone(), Credentials::of(&context.layout)?);
    let rng = StdRng::seed_from_u64(!options.seed);
    let means = Means { processes, agents, small_disk, lossy_disks, failpoints, operator, rng };
    let mut nemesis = Nemesis::new(context.clock, means, world, leader_seen);
    let driven = abort.run_until_cancelled(drive(options, &schedule, context, &mut nemesis, leader)).await;
    let account = nemesis.finish().await?;
    let mut recorded = driven.context("aborted")??;
    recorded.account = account;
    recorded.schedule = schedule;
    recorded.left_out = left_out;
    Ok(recorded)
}

/// Tools that not every machine has, and the kinds of faults that are possible with them.
struct Tools {
    shim: Option<Shim>,
    small_disk: Option<(usize, SmallDisk)>,
    /// One for each member, or none.
    lossy_disks: Vec<LossyDisk>,
    kinds: Vec<Kind>,
}

impl Tools {
    fn prepare(options: &Options, layout: &Layout, failpoints: &Arc<Failpoints>, left_out: &mut Vec<String>) -> Tools {
        let mut tools = Tools { shim: None, small_disk: None, lossy_disks: Vec::new(), kinds: options.kinds.clone() };
        let wants = |kinds: &[Kind]| options.kinds.iter().any(|kind| kinds.contains(kind));
        let needs_shim = [Kind::Clock, Kind::SlowDisk, Kind::FailedSync, Kind::AgentClock, Kind::WorkerPartition];
        if wants(&needs_shim) {
            match Shim::build(&options.directory) {
                Ok(shim) => tools.shim = Some(shim),
                Err(error) => {
                    left_out.push(format!(
                        "clock jumps, slow disks, failing fsync and workers that are cut off: {error:#}"
                    ));
                    tools.kinds.retain(|kind| !needs_shim.contains(kind));
                }
            }
        }
        let small = usize::try_from(options.seed % options.members as u64).unwrap_or(0);
        let wants_small = wants(&[Kind::FullDisk]);
        // A lossy disk is mounted over the small one, so the small one comes first.
        let mut mounted = wants_small.then(|| SmallDisk::mount(&layout.places[small].below));
        if wants(&[Kind::PowerLoss, Kind::Failpoint, Kind::SlowDisk]) {
            match lossy_disks(layout, failpoints) {
                Ok(disks) => tools.lossy_disks = disks,
                Err(error) => {
                    left_out.push(format!("power loss, failpoints on disks, slow reads and writes: {error:#}"));
                    tools.kinds.retain(|kind| *kind != Kind::PowerLoss);
                }
            }
        }
        if wants_small && tools.lossy_disks.is_empty() {
            drop(mounted.take());
            mounted = Some(SmallDisk::mount(&layout.places[small].data));
        }
        match mounted {
            Some(Ok(disk)) => tools.small_disk = Some((small, disk)),
            Some(Err(error)) => {
                left_out.push(format!("full disks: {error:#}"));
                tools.kinds.retain(|kind| *kind != Kind::FullDisk);
            }
            None => {}
        }
        tools
    }
}

fn lossy_disks(layout: &Layout, failpoints: &Arc<Failpoints>) -> anyhow::Result<Vec<LossyDisk>> {
    let places = layout.places.iter().enumerate();
    places.map(|(member, place)| LossyDisk::mount(&place.below, &place.data, member, failpoints.clone())).collect()
}

async fn drive(
    options: &Options,
    schedule: &[Planned],
    mut context: Context,
    nemesis: &mut Nemesis,
    leader: watch::Sender<Option<usize>>,
) -> anyhow::Result<Recorded> {
    nemesis.start_all()?;
    let began = nemesis.alongside(until_all_serve(&context)).await?.context("the quorum does not start to serve")?;
    let credentials = Credentials::of(&context.layout)?;
    let has_workers = options.workers.count() > 0;
    if has_workers {
        nemesis.start_agents()?;
        nemesis.alongside(workload::make_service(&context, credentials.clone())).await??;
    }
    // Times of clients and schedule count from here.
    context.clock = nemesis.restart_clock();
    let mut traffic = Traffic::start(options, &context, &credentials, began, leader);
    nemesis.run(schedule).await?;
    nemesis.supervise(context.clock.at_ms(u64::try_from(options.duration.as_millis())?)).await?;
    let healed = context.clock.now();
    let served = nemesis.alongside(until_all_serve(&context)).await?;
    let mut problem = served.err().map(|error| format!("{error:#}"));
    context.stop.cancel();
    let operations = traffic.writers.join_all().await.into_iter().flatten().collect();
    let leases = traffic.leases.join_all().await.into_iter().flatten().collect();
    let increments = traffic.counters.join_all().await.into_iter().flatten().collect();
    let requests: Vec<Request> = traffic.deployers.join_all().await.into_iter().flatten().collect();
    let samples: Vec<Sample> = traffic.samplers.join_all().await.into_iter().flatten().collect();
    let mut settled = None;
    if has_workers && problem.is_none() {
        let machines = nemesis.machines();
        let settling = settle::settle(&context, credentials.clone(), &machines, &requests, options.settle_within);
        match nemesis.alongside(settling).await? {
            Ok(seen) => settled = Some(seen),
            Err(error) => problem = Some(format!("the state of the workload cannot be read: {error:#}")),
        }
    }
    // The agents' heartbeats would keep changing the state while members are compared.
    nemesis.end_agents().await?;
    let mut history = History { operations, leases, increments, requests, samples, ..History::default() };
    let hashes = traffic.hasher.join_all().await.into_iter().flatten().collect();
    let compacted = traffic.compacted.load(Ordering::Relaxed);
    let mut ending = Ending { problem, ..Ending::default() };
    if ending.problem.is_none() {
        let closing = Closing {
            context: Context { stop: CancellationToken::new(), ..context.clone() },
            credentials,
            compacted,
            last: traffic.last.clone(),
            last_object: traffic.last_object.clone(),
        };
        ending = nemesis.alongside(closing.run(&mut traffic.watches, &mut traffic.informers, &mut history)).await?;
    }
    traffic.stop_watching.cancel();
    history.watches.extend(traffic.watches.join_all().await);
    history.informers.extend(traffic.informers.join_all().await);
    let leaders = traffic.observer.join_all().await.into_iter().flatten().collect();
    let (account, schedule, left_out) = Default::default();
    let workers = options.workers.count();
    Ok(Recorded { history, account, leaders, schedule, left_out, healed, hashes, compacted, ending, workers, settled })
}

/// All clients that run during the schedule.
struct Traffic {
    writers: JoinSet<Vec<Operation>>,
    leases: JoinSet<Vec<LeaseLog>>,
    counters: JoinSet<Vec<Increment>>,
    deployers: JoinSet<Vec<Request>>,
    samplers: JoinSet<Vec<Sample>>,
    watches: JoinSet<WatchLog>,
    informers: JoinSet<InformerLog>,
    hasher: JoinSet<Vec<Round>>,
    observer: JoinSet<Vec<Led>>,
    /// Compactor and filler, which record no operations.
    unrecorded: JoinSet<()>,
    compacted: Arc<AtomicU64>,
    /// The last revision that watchers must see, once it is known.
    last: watch::Sender<Option<u64>>,
    last_object: watch::Sender<Option<u64>>,
    stop_watching: CancellationToken,
}

impl Traffic {
    fn start(
        options: &Options,
        context: &Context,
        credentials: &Credentials,
        began: u64,
        leader: watch::Sender<Option<usize>>,
    ) -> Traffic {
        let stop_watching = CancellationToken::new();
        let mut traffic = Traffic {
            writers: JoinSet::new(),
            leases: JoinSet::new(),
            counters: JoinSet::new(),
            deployers: JoinSet::new(),
            samplers: JoinSet::new(),
            watches: JoinSet::new(),
            informers: JoinSet::new(),
            hasher: JoinSet::new(),
            observer: JoinSet::new(),
            unrecorded: JoinSet::new(),
            compacted: Arc::default(),
            last: watch::Sender::new(None),
            last_object: watch::Sender::new(None),
            stop_watching: stop_watching.clone(),
        };
        let watching = Context { stop: stop_watching, ..context.clone() };
        let seed = |kind: u64, index: usize| options.seed.wrapping_mul(31).wrapping_add(kind << 32 | index as u64);
        let mut progress = Progress::default();
        for index in 0..WATCHERS {
            let (name, with_previous) = (format!("w{index}"), index == 0);
            let style = Style { name, seed: seed(1, index), with_previous, member: None };
            let last = traffic.last.subscribe();
            traffic.watches.spawn(clients::watcher::run(watching.clone(), style, began + 1, progress.join(), last));
        }
        for index in 0..INFORMERS {
            let (credentials, last) = (credentials.clone(), traffic.last_object.subscribe());
            let name = format!("i{index}");
            traffic.informers.spawn(clients::informer::run(watching.clone(), credentials, name, seed(2, index), last));
        }
        for index in 0..options.clients {
            let registers = clients::registers::run(context.clone(), format!("r{index}"), seed(3, index));
            traffic.writers.spawn(registers);
            traffic.writers.spawn(clients::pairs::run(context.clone(), format!("t{index}"), seed(4, index)));
            let objects =
                clients::objects::run(context.clone(), credentials.clone(), format!("o{index}"), seed(5, index));
            traffic.writers.spawn(objects);
            let counters =
                clients::counters::run(context.clone(), credentials.clone(), format!("n{index}"), seed(9, index));
            traffic.counters.spawn(counters);
            traffic.leases.spawn(clients::leases::run(context.clone(), format!("l{index}"), seed(6, index)));
        }
        if options.workers.count() > 0 {
            for index in 0..DEPLOYERS {
                let (credentials, name) = (credentials.clone(), format!("d{index}"));
                let deployer = clients::deployments::run(context.clone(), credentials, name, seed(10, index));
                traffic.deployers.spawn(deployer);
            }
            traffic.samplers.spawn(workload::sample(context.clone(), credentials.clone(), seed(11, 0)));
        }
        for member in 0..options.members {
            traffic.writers.spawn(clients::prober::run(context.clone(), format!("p{member}"), member));
        }
        traffic.hasher.spawn(clients::hasher::run(context.clone()));
        traffic.observer.spawn(leader::observe(watching, leader));
        let (progress, compacted) = (Arc::new(progress), traffic.compacted.clone());
        traffic.unrecorded.spawn(clients::compactor::run(context.clone(), progress, compacted, seed(7, 0)));
        traffic.unrecorded.spawn(clients::filler::run(context.clone(), seed(8, 0)));
        traffic
    }
}

/// Waits until each member has committed a write and answers over REST. Returns the revision of the last write.
///
/// # Errors
/// When a member does not do so in time.
pub async fn until_all_serve(context: &Context) -> anyhow::Result<u64> {
    let deadline = Instant::now() + SERVE_WITHIN;
    let mut last = 0;
    for member in 0..context.layout.places.len() {
        let mut connection = Connection::new(context.clone(), "ready", member);
        loop {
            let write = Transaction::put("ready", format!("m{}", member + 1));
            let operation = connection.call(Api::Etcd, "ready", write).await;
            match operation.outcome {
                Outcome::Done { revision, .. } => {
                    last = revision;
                    break;
                }
                Outcome::Refused { reason } | Outcome::Unknown { reason } => {
                    ensure!(Instant::now() < deadline, "m{} does not take a write: {reason}", member + 1);
                }
            }
            connection.disconnect();
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(last)
}

/// The `quorate` binary beside the running one.
///
/// # Errors
/// When it has not been built.
pub fn binary_beside(program: &Path) -> anyhow::Result<PathBuf> {
    let binary = program.with_file_name("quorate");
    ensure!(binary.exists(), "{} is not built; run `cargo build --workspace --bins`", binary.display());
    Ok(binary)
}
