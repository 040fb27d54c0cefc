//! Clients, which send requests and record the answers without checking them.

pub mod compactor;
mod connection;
pub mod counters;
pub mod deployments;
pub mod filler;
pub mod hasher;
pub mod informer;
pub mod leases;
pub mod objects;
pub mod pairs;
pub mod prober;
pub mod registers;
pub mod rest;
pub mod watcher;
pub mod workload;

pub use connection::{CALL_DEADLINE, Connection};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cluster::Layout;
use crate::history::{Micros, Operation};

/// Prefix of all keys that clients write over the etcd API.
pub const PREFIX: &str = "chaos/";

/// Clock that counts from the start of the run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Clock(Instant::now())
    }

    #[must_use]
    pub fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    #[must_use]
    pub fn at_ms(self, millis: u64) -> Instant {
        self.0 + Duration::from_millis(millis)
    }
}

/// Shared context of a client.
#[derive(Clone)]
pub struct Context {
    pub layout: Arc<Layout>,
    pub clock: Clock,
    /// Cancelled when clients must stop.
    pub stop: CancellationToken,
    pub keys: Arc<Objects>,
    pub pairs: Arc<Objects>,
    pub configmaps: Arc<Objects>,
    /// Mean pause of a client between two operations.
    pub pause: Duration,
}

impl Context {
    /// Pauses between two operations. Returns `false` when the clients must stop.
    pub async fn pause(&self, rng: &mut StdRng) -> bool {
        let pause = self.pause.mul_f64(rng.random_range(0.0..2.0));
        self.stop.run_until_cancelled(sleep(pause)).await.is_some()
    }
}

/// Number of operations on one object before its clients continue with the next. Short histories keep the search fast.
const OPERATIONS_PER_OBJECT: u64 = 200;

/// Objects that clients share at the moment.
#[derive(Debug)]
pub struct Objects {
    slots: Vec<AtomicU64>,
}

impl Objects {
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Objects { slots: (0..slots).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Picks an object for one operation. Returns its slot and the number of earlier objects in that slot.
    fn pick(&self, rng: &mut StdRng) -> (usize, u64) {
        let slot = rng.random_range(0..self.slots.len());
        let operation = self.slots[slot].fetch_add(1, Ordering::Relaxed);
        (slot, operation / OPERATIONS_PER_OBJECT)
    }
}

/// Operations that a client has recorded.
pub type Recorded = Vec<Operation>;
