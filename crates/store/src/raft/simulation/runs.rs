//! Simulations as tests.
//!
//! `QUORATE_SIM_SEEDS` sets the number of seeds, and `QUORATE_SIM_SEED` the first one. A failure names its seed, and
//! running that seed alone fails again. `scripts/simulate` runs many seeds as fast as the machine can.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::invariants::{Invariant, Violation};
use super::planted::{BUGS, Bug};
use super::trial::Trial;
use crate::raft::tests::cluster::show_logs;

const SEEDS: &str = "QUORATE_SIM_SEEDS";
const SEED: &str = "QUORATE_SIM_SEED";
/// Default number of seeds.
const SEEDS_OF_SUITE: u64 = 60;
/// Maximum number of seeds to find a planted bug.
const SEEDS_FOR_BUG: u64 = 400;
/// Number of failures after which the test stops.
const MAX_FAILURES: usize = 5;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is not a number")))
}

/// Runs the seeds on all processors and reports the failing ones.
#[test]
fn no_seed_breaks_an_invariant() {
    show_logs();
    let first = number(SEED);
    let count = number(SEEDS).unwrap_or(if first.is_some() { 1 } else { SEEDS_OF_SUITE });
    let first = first.unwrap_or(1);
    let (next, failures) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let (answered, began) = (AtomicU64::new(0), Instant::now());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().len() < MAX_FAILURES {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    // A single seed logs its course when `RUST_LOG` has `simulation=info`.
                    let outcome = Trial { is_shown: count == 1, ..Trial::new(seed) }.run();
                    answered.fetch_add(outcome.answered as u64, Ordering::Relaxed);
                    if !outcome.violations.is_empty() {
                        tracing::error!(seed, violations = ?outcome.violations, "violated");
                        failures.lock().push((seed, outcome.violations));
                    }
                }
            });
        }
    });
    let (tried, elapsed) = (next.into_inner().min(first + count) - first, began.elapsed());
    tracing::info!(tried, ?elapsed, answered = answered.into_inner(), "simulated");
    let failures = failures.into_inner();
    let reports = failures.iter().map(|(seed, violations)| {
        let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
        format!("{SEED}={seed}:\n  {}", lines.join("\n  "))
    });
    assert!(failures.is_empty(), "{} of {tried} seeds:\n{}", failures.len(), reports.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_seed_determines_the_course() {
    for seed in 1..6 {
        let (one, another) = (Trial::new(seed).run(), Trial::new(seed).run());
        assert_eq!((one.course, one.took, one.answered), (another.course, another.took, another.answered), "{seed}");
        assert_ne!(one.course, Trial::new(seed + 1).run().course);
    }
}

/// Looks for a seed in which the bug violates one of its invariants.
fn find(bug: Bug, about: &[Invariant]) -> Result<(u64, Violation), Vec<Invariant>> {
    let mut others = Vec::new();
    for seed in 1..=SEEDS_FOR_BUG {
        for violation in (Trial { bug: Some(bug), ..Trial::new(seed) }).run().violations {
            if about.contains(&violation.invariant) {
                return Ok((seed, violation));
            }
            if !others.contains(&violation.invariant) {
                tracing::info!(?bug, seed, %violation, "violates another invariant");
                others.push(violation.invariant);
            }
        }
    }
    Err(others)
}

#[test]
fn planted_bugs_violate_their_invariants() {
    show_logs();
    let (bugs, failures) = (Mutex::new(BUGS.iter()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((bug, about)) = bugs.lock().next() else { return };
                    match find(*bug, about) {
                        Ok((seed, violation)) => tracing::info!(?bug, seed, %violation, "planted and found"),
                        Err(others) => {
                            failures.lock().push(format!("{bug:?} breaks none of {about:?}, only {others:?}"));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
