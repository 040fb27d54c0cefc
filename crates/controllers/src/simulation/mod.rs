//! In-memory cluster for tests: an API server that executes plans, nodes that run pods, and a work queue that runs
//! controllers until nothing is left to do. Time passes only when a test advances it.

mod api;
mod kinds;
mod nodes;
mod render;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use quorate_api::{ObjectKey, Revision};
use serde_json::{Value, json};

use crate::cache::{Cache, Change};
use crate::controller::{Controller, Input, Settings, WorkKey};
use crate::controllers;
use crate::plan::{Failure, Plan, Target, Verb};
use api::Refused;
pub(crate) use render::render;

/// Number of reconciles above which a run counts as a busy loop.
const MAX_RECONCILES: usize = 20_000;

pub(crate) struct Cluster {
    pub(crate) cache: Cache,
    pub(crate) settings: Settings,
    pub(crate) now: Timestamp,
    /// Offset of the wall clock that controllers see, ahead of simulated time.
    pub(crate) wall_clock_ahead: Duration,
    /// Kinds that are not served, although the API stores objects of them.
    pub(crate) unserved: BTreeSet<String>,
    /// Nodes that reject every pod.
    pub(crate) rejecting: BTreeSet<String>,
    /// Whether the cache no longer receives changes.
    pub(crate) is_cache_cut_off: bool,
    /// All events, as `reason: message`.
    pub(crate) events: Vec<String>,
    /// Number of writes.
    pub(crate) writes: usize,
    /// Reason why the API refuses a controller's write; `None` admits it.
    pub(crate) refuses: Refusals,
    /// Number of refused writes.
    pub(crate) refusals: usize,
    objects: BTreeMap<ObjectKey, Value>,
    /// Revision of each key's last write or removal.
    revisions: BTreeMap<ObjectKey, u64>,
    revision: u64,
    uids: u64,
    queue: BTreeSet<(usize, WorkKey)>,
    timers: BTreeSet<(Timestamp, usize, WorkKey)>,
    /// Plans whose execution is delayed, so that other plans run before them.
    held: Vec<(usize, WorkKey, Plan)>,
    /// Failures of the last plans, for the next plans of the same keys.
    failures: HashMap<(usize, WorkKey), Failure>,
    chance: Chance,
}

/// Returns the reason why a write is refused; `None` admits it.
pub(crate) type Refusals = Box<dyn Fn(Verb, &Target) -> Option<&'static str>>;

/// Start of simulated time.
const START: &str = "2026-01-01T00:00:00Z";

/// Time between a refusal and the next attempt.
const BACKOFF: Duration = Duration::from_millis(100);

/// Source of choices that a seed reproduces.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Chance(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound.max(1)
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with_seed(0)
    }

    pub(crate) fn with_seed(seed: u64) -> Self {
        let mut cluster = Cluster {
            cache: Cache::new(),
            // Nodes stay healthy without heartbeats, unless a test changes the settings.
            settings: Settings { node_monitor_grace: Duration::from_secs(1 << 20), ..Settings::default() },
            now: START.parse().expect("a time"),
            wall_clock_ahead: Duration::ZERO,
            unserved: BTreeSet::new(),
            rejecting: BTreeSet::new(),
            is_cache_cut_off: false,
            events: Vec::new(),
            writes: 0,
            refuses: Box::new(|_, _| None),
            refusals: 0,
            objects: BTreeMap::new(),
            revisions: BTreeMap::new(),
            revision: 1,
            uids: 0,
            queue: BTreeSet::new(),
            timers: BTreeSet::new(),
            held: Vec::new(),
            failures: HashMap::new(),
            chance: Chance::new(seed),
        };
        cluster.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"},
            "spec": {"finalizers": ["kubernetes"]}}));
        cluster
    }

    /// Returns the plan that a controller makes for a key now.
    pub(crate) fn plan(&self, controller: &str, key: &WorkKey) -> Plan {
        let controller = controller_named(controller);
        self.reconcile(controller, key, None)
    }

    fn reconcile(&self, controller: &Controller, key: &WorkKey, failure: Option<&Failure>) -> Plan {
        let kinds = kinds::SimulatedKinds(&self.unserved);
        let (now, uptime, settings) = (self.now + self.wall_clock_ahead, self.uptime(), &self.settings);
        let input = Input { cache: &self.cache, now, uptime, kinds: &kinds, settings, failure };
        let plan = self.declared(controller, |controller| (controller.reconcile)(input, key));
        let check = &mut |resource: &_| {
            assert!(
                controller.writes.contains(resource),
                "{} writes {resource} and does not declare it",
                controller.name
            );
        };
        plan.actions.iter().for_each(|action| action.each_write(check));
        plan
    }

    /// Runs a function of a controller, which may read only what the controller declares.
    fn declared<T>(&self, controller: &Controller, run: impl FnOnce(&Controller) -> T) -> T {
        self.cache.has_read_only(&[]);
        let result = run(controller);
        let is_declared = self.cache.has_read_only(controller.reads);
        assert!(is_declared, "{} reads a kind that it does not declare", controller.name);
        result
    }

    /// Returns the monotonic clock of the simulated process.
    pub(crate) fn uptime(&self) -> Duration {
        let start: Timestamp = START.parse().expect("a time");
        Duration::try_from(self.now.duration_since(start)).expect("time goes forward")
    }

    /// Plans and executes one key, without running the controllers it triggers.
    pub(crate) fn carry_out(&mut self, controller: &str, key: &WorkKey) {
        self.carry_out_plan(&self.plan(controller, key));
    }

    /// Executes a plan that must not be refused.
    pub(crate) fn carry_out_plan(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.act(action).expect("accepted");
        }
    }

    /// Runs the controllers until the queue is empty, and checks `invariant` after every plan.
    pub(crate) fn settle_with(&mut self, mut invariant: impl FnMut(&Cluster)) {
        for _ in 0..MAX_RECONCILES {
            if !self.step() {
                return;
            }
            invariant(self);
        }
        panic!("still busy after {MAX_RECONCILES} reconciles; queued: {:?}", self.queue);
    }

    pub(crate) fn settle(&mut self) {
        self.settle_with(|_| {});
    }

    /// Advances time, and runs the requeues that fall due on the way.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        self.settle();
        while let Some((due, controller, key)) = self.timers.first().cloned() {
            if due > end {
                break;
            }
            self.timers.pop_first();
            self.now = self.now.max(due);
            self.queue.insert((controller, key));
            self.settle();
        }
        self.now = end;
    }

    /// Asserts that no controller plans an action for any key.
    pub(crate) fn assert_at_rest(&self) {
        for controller in controllers() {
            for key in self.declared(controller, |controller| (controller.all_keys)(&self.cache)) {
                let plan = self.reconcile(controller, &key, None);
                assert!(plan.is_empty(), "{} has actions left for {key}:\n{}", controller.name, render(&plan));
            }
        }
    }

    /// Runs one reconcile or executes one delayed plan; `false` when there is nothing to do.
    fn step(&mut self) -> bool {
        if !self.held.is_empty() && (self.queue.is_empty() || self.chance.below(3) == 0) {
            let index = self.chance.below(self.held.len());
            let (controller, key, plan) = self.held.swap_remove(index);
            self.execute(controller, key, &plan);
            return true;
        }
        let free: Vec<(usize, WorkKey)> = self
            .queue
            .iter()
            .filter(|(controller, key)| !self.held.iter().any(|(c, k, _)| c == controller && k == key))
            .cloned()
            .collect();
        if free.is_empty() {
            return !self.held.is_empty();
        }
        let (controller, key) = free[self.chance.below(free.len())].clone();
        self.queue.remove(&(controller, key.clone()));
        let failure = self.failures.remove(&(controller, key.clone()));
        let plan = self.reconcile(&controllers()[controller], &key, failure.as_ref());
        if self.chance.below(3) == 0 {
            self.held.push((controller, key, plan));
        } else {
            self.execute(controller, key, &plan);
        }
        true
    }

    fn execute(&mut self, controller: usize, key: WorkKey, plan: &Plan) {
        if let Some(after) = plan.requeue_after {
            self.timers.insert((self.now + after, controller, key.clone()));
        }
        for action in &plan.actions {
            match self.act(action) {
                Ok(()) => {}
                Err(Refused::Stale(_)) => {
                    self.queue.insert((controller, key));
                    return;
                }
                Err(Refused::Denied(failure)) => {
                    self.refusals += 1;
                    self.failures.insert((controller, key.clone()), *failure);
                    self.timers.insert((self.now + BACKOFF, controller, key));
                    return;
                }
            }
        }
    }

    /// Applies a write to the cache and queues the keys that it triggers.
    fn committed(&mut self, key: &ObjectKey) {
        self.revision += 1;
        self.writes += 1;
        self.revisions.insert(key.clone(), self.revision);
        if self.is_cache_cut_off {
            return;
        }
        let change: Option<Change> = match self.objects.get(key) {
            Some(object) => {
                let bytes = serde_json::to_vec(object).expect("JSON");
                let change = self.cache.upsert(key, &bytes, Revision(self.revision), self.uptime());
                Some(change.unwrap_or_else(|error| panic!("{error}: {}", object)))
            }
            None => self.cache.remove(key),
        };
        let Some(change) = change else { return };
        for (index, controller) in controllers().iter().enumerate() {
            let keys = self.declared(controller, |controller| (controller.triggers)(&self.cache, &change));
            self.queue.extend(keys.into_iter().map(|key| (index, key)));
        }
    }
}

fn controller_named(name: &str) -> &'static Controller {
    controllers().iter().find(|controller| controller.name == name).expect("a known controller")
}

/// Returns the key of an object in the namespace `default`.
pub(crate) fn in_default(name: &str) -> WorkKey {
    WorkKey::namespaced("default", name)
}
