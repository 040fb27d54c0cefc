//! One simulation, from its seed to its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures::future::join_all;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use quorate_mvcc::KeyRange;
use tokio_util::sync::CancellationToken;

use super::clients::Client;
use super::cluster::{Cluster, Shape};
use super::evidence::{Answer, Evidence};
use super::faults::Faults;
use super::invariants::{Invariant, Violation, progress, violations};
use super::planted::{self, Bug};
use super::process;
use super::random::Random;
use super::watchers::Watcher;
use crate::platform::tokio::time::sleep;

/// Parameters of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub seed: u64,
    pub bug: Option<Bug>,
    /// Whether its events are logged.
    pub is_shown: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    /// Hash of all events and their times.
    pub course: u64,
    /// Number of calls that were answered.
    pub answered: usize,
    /// Duration in simulated time.
    pub took: Duration,
}

impl Trial {
    pub fn new(seed: u64) -> Self {
        Trial { seed, bug: None, is_shown: false }
    }

    pub fn run(self) -> Outcome {
        planted::plant(self.bug);
        let outcome = process::simulate(|| {
            let mut runtime = SimRuntime::with_seed(self.seed);
            // The runtime panics on a deadlock and on a livelock.
            let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.simulate())));
            ran.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                let what = format!("the simulation ended: {text}");
                Outcome { violations: vec![Violation { invariant: Invariant::Soundness, what }], ..Outcome::default() }
            })
        });
        planted::plant(None);
        outcome
    }

    async fn simulate(self) -> Outcome {
        let mut random = Random::new(self.seed);
        let evidence = Evidence::new(self.is_shown);
        let shape = Shape::random(&mut random);
        evidence.note(&shape);
        let cluster = Cluster::new(shape, &mut random, evidence.clone());
        for id in cluster.ids() {
            cluster.start(id).await;
        }
        let (stop_clients, stop_watchers) = (CancellationToken::new(), CancellationToken::new());
        let mut watchers = Vec::new();
        for id in cluster.ids() {
            let everything = KeyRange::from("");
            watchers.push(Watcher::new(&cluster, &evidence, random.fork(), id, everything, random.percent(40)));
        }
        for range in [KeyRange::key("k0"), KeyRange::prefix("k")] {
            let ids: Vec<_> = cluster.ids().collect();
            let id = ids[random.index(ids.len())];
            watchers.push(Watcher::new(&cluster, &evidence, random.fork(), id, range, random.percent(60)));
        }
        let watched: Vec<_> = watchers.iter().map(|watcher| watcher.watched.clone()).collect();
        let watching: Vec<_> =
            watchers.into_iter().map(|watcher| SimRuntime::spawn(watcher.run(stop_watchers.clone()))).collect();
        let clients = (1..=random.within(3..6)).map(|number| {
            let client = Client::new(cluster.clone(), evidence.clone(), random.fork(), number);
            SimRuntime::spawn(client.run(stop_clients.clone()))
        });
        let clients: Vec<_> = clients.collect();
        let until = random.millis(2500..7000);
        let injectors = (0..random.within(1..3)).map(|_| {
            let mut faults = Faults { cluster: cluster.clone(), evidence: evidence.clone(), random: random.fork() };
            let evidence = evidence.clone();
            SimRuntime::spawn(async move {
                while evidence.elapsed() < until {
                    sleep(faults.random.millis(10..900)).await;
                    faults.inject().await;
                }
            })
        });
        let injectors: Vec<_> = injectors.collect();
        all(&evidence, injectors).await;
        let mut faults = Faults { cluster: cluster.clone(), evidence: evidence.clone(), random: random.fork() };
        faults.heal().await;
        stop_clients.cancel();
        all(&evidence, clients).await;
        let mut last = Client::new(cluster.clone(), evidence.clone(), random.fork(), 0);
        progress::settle(&cluster, &evidence, &mut last, &watched).await;
        drop(last);
        stop_watchers.cancel();
        all(&evidence, watching).await;
        drop(faults);
        cluster.close();
        let answered =
            |call: &super::evidence::Call| matches!(call.ended, Some((_, Answer::Done(_) | Answer::Read(_))));
        let answered = evidence.calls.lock().iter().filter(|call| answered(call)).count();
        Outcome { violations: violations(&evidence), course: evidence.course(), answered, took: evidence.elapsed() }
    }
}

/// Waits for tasks of the simulation itself.
async fn all(evidence: &Evidence, tasks: Vec<<SimRuntime as AsyncRuntime>::JoinHandle<()>>) {
    for failed in join_all(tasks).await.into_iter().filter_map(Result::err) {
        evidence.problem(Invariant::Soundness, format!("the simulation itself failed: {failed}"));
    }
}
