//! Closed-loop load: each client sends its next operation after the answer to the previous one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use etcd_client::{GetOptions, KvClient};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::clients::{OPERATION_WITHIN, Pool};
use super::content::{self, KEYS, RANGE_KEYS, Random, Values};
use super::progress;
use super::quorum::{Quorum, Usage};
use super::stats::{Sample, quantile};

/// Pause after an error, so that clients of a dead member do not loop tightly.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
const FILL_CLIENTS: usize = 256;
/// One operation in this many of a mix is a put.
const MIX_PUT_EVERY: u64 = 10;
/// Size of the values in a mix and of values that are read.
pub const READ_VALUE_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Put,
    /// Linearizable get.
    Get,
    SerializableGet,
    /// Nine linearizable gets and a put.
    Mix,
    /// A linearizable range of [`RANGE_KEYS`].
    Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Spread over all members, starting with the leader.
    All,
    /// At the first member after the leader.
    Follower,
}

/// Load of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub operation: Operation,
    pub clients: usize,
    pub value_bytes: usize,
    pub at: At,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::Put => write!(f, "put {} B", self.value_bytes)?,
            Operation::Get => f.write_str("get")?,
            Operation::SerializableGet => f.write_str("get serializable")?,
            Operation::Mix => f.write_str("mix 90/10")?,
            Operation::Range => write!(f, "range {RANGE_KEYS} keys")?,
        }
        write!(f, ", {}", self.clients)?;
        if self.at == At::Follower { f.write_str(" at follower") } else { Ok(()) }
    }
}

/// Durations of the warm-up and the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub warm_up: Duration,
    pub length: Duration,
}

/// Measurement window; only operations answered within it count.
#[derive(Clone, Copy)]
pub struct Window {
    pub start: Instant,
    pub end: Instant,
}

impl Window {
    pub fn from_now(timing: Timing) -> Window {
        let start = Instant::now() + timing.warm_up;
        Window { start, end: start + timing.length }
    }

    pub fn contains(&self, instant: Instant) -> bool {
        self.start <= instant && instant < self.end
    }

    /// Sleeps until the end of the window, and returns the resources that the members used in it.
    pub async fn usage(self, quorum: &Quorum) -> anyhow::Result<Usage> {
        tokio::time::sleep_until(self.start.into()).await;
        let meter = quorum.meter()?;
        tokio::time::sleep_until(self.end.into()).await;
        meter.read(quorum)
    }
}

/// Latencies and errors of the clients.
#[derive(Default)]
pub struct Tally {
    pub latencies_us: Vec<u32>,
    pub errors: u64,
    pub first_error: Option<String>,
}

impl Tally {
    pub fn success(&mut self, latency: Duration) {
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn failure(&mut self, error: impl fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    pub fn merge(&mut self, mut other: Tally) {
        self.latencies_us.append(&mut other.latencies_us);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Converts the tally to a sample of `operations` operations within `length`.
    pub fn sample(mut self, operations: u64, length: Duration, usage: Usage) -> Sample {
        if let Some(error) = &self.first_error {
            progress(format!("  {} errors, the first: {error}", self.errors));
        }
        self.latencies_us.sort_unstable();
        let milliseconds = |q| quantile(&self.latencies_us, q).map(|us| f64::from(us) / 1000.0);
        let per_million = |seconds: f64| (operations > 0).then(|| seconds / operations as f64 * 1e6);
        Sample {
            values: vec![operations as f64 / length.as_secs_f64()],
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
            cpu_s_per_million: per_million(usage.cpu_s),
            client_cpu_s_per_million: per_million(usage.client_cpu_s),
            other_cpus: Some(usage.other_cpu_s / length.as_secs_f64()),
            peak_mib: Some(usage.peak_mib),
            errors: self.errors,
        }
    }
}

/// Applies a load to a quorum. The values are operations per second.
pub async fn run(quorum: &Quorum, load: Load, timing: Timing) -> anyhow::Result<Sample> {
    let mut endpoints = quorum.endpoints().await?;
    if load.at == At::Follower {
        endpoints.remove(0);
    }
    let pool = Pool::open(&endpoints, load.clients).await?;
    let values = Values::new(load.value_bytes);
    let window = Window::from_now(timing);
    let mut clients = JoinSet::new();
    for index in 0..load.clients {
        clients.spawn(client(pool.kv(index), load.operation, values.clone(), Random(index as u64), window));
    }
    let usage = window.usage(quorum).await?;
    let mut tally = Tally::default();
    while let Some(seen) = clients.join_next().await {
        tally.merge(seen?);
    }
    let operations = tally.latencies_us.len() as u64;
    Ok(tally.sample(operations, timing.length, usage))
}

async fn client(mut kv: KvClient, operation: Operation, values: Values, mut random: Random, window: Window) -> Tally {
    let mut tally = Tally::default();
    loop {
        let began = Instant::now();
        if began >= window.end {
            return tally;
        }
        let result = operate(&mut kv, operation, &values, &mut random).await;
        let ended = Instant::now();
        match result {
            Ok(()) if window.contains(ended) => tally.success(ended - began),
            Ok(()) => {}
            Err(error) => {
                tally.failure(format!("{error:#}"));
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn operate(kv: &mut KvClient, operation: Operation, values: &Values, random: &mut Random) -> anyhow::Result<()> {
    let number = random.below(KEYS);
    match operation {
        Operation::Mix if random.below(MIX_PUT_EVERY) == 0 => put(kv, number, values.pick(random)).await,
        Operation::Put => put(kv, number, values.pick(random)).await,
        Operation::Get | Operation::Mix => get(kv, number, None).await,
        Operation::SerializableGet => get(kv, number, Some(GetOptions::new().with_serializable())).await,
        Operation::Range => {
            let first = random.below(KEYS - RANGE_KEYS);
            let options = GetOptions::new().with_range(content::key(first + RANGE_KEYS));
            let found = kv.get(content::key(first), Some(options)).await?.kvs().len() as u64;
            ensure!(found == RANGE_KEYS, "{found} keys in a range of {RANGE_KEYS}");
            Ok(())
        }
    }
}

async fn put(kv: &mut KvClient, number: u64, value: Vec<u8>) -> anyhow::Result<()> {
    kv.put(content::key(number), value, None).await?;
    Ok(())
}

async fn get(kv: &mut KvClient, number: u64, options: Option<GetOptions>) -> anyhow::Result<()> {
    let found = kv.get(content::key(number), options).await?.kvs().len();
    ensure!(found == 1, "key {number} is missing");
    Ok(())
}

/// Writes the first `keys` keys once each, with values of [`READ_VALUE_BYTES`].
pub async fn fill(quorum: &Quorum, keys: u64) -> anyhow::Result<()> {
    let pool = Pool::open(&quorum.endpoints().await?, FILL_CLIENTS).await?;
    let next = Arc::new(AtomicU64::new(0));
    let values = Values::new(READ_VALUE_BYTES);
    let mut clients = JoinSet::new();
    for index in 0..FILL_CLIENTS {
        let (mut kv, next, values) = (pool.kv(index), next.clone(), values.clone());
        clients.spawn(async move {
            let mut random = Random(index as u64);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys {
                    return anyhow::Ok(());
                }
                let gives_up = Instant::now() + OPERATION_WITHIN;
                while let Err(error) = put(&mut kv, number, values.pick(&mut random)).await {
                    ensure!(Instant::now() < gives_up, "cannot write key {number}: {error:#}");
                    sleep(ERROR_PAUSE).await;
                }
            }
        });
    }
    while let Some(result) = clients.join_next().await {
        result??;
    }
    Ok(())
}
