//! Puts under continuous compaction, compared with the same puts before and after.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::clients;
use super::load::{self, At, Load, Operation, READ_VALUE_BYTES, Timing};
use super::quorum::Quorum;
use super::stats::{Finding, Sample, Unit};

const LOAD: Load = Load { operation: Operation::Put, clients: 64, value_bytes: READ_VALUE_BYTES, at: At::All };
/// Interval at which the whole history is compacted.
const EVERY: Duration = Duration::from_millis(200);

pub async fn run(quorum: &Quorum, timing: Timing) -> anyhow::Result<Vec<Finding>> {
    let before = load::run(quorum, LOAD, timing).await?;
    let endpoint = quorum.endpoints().await?.swap_remove(0);
    let (mut during, failed) = tokio::select! {
        during = load::run(quorum, LOAD, timing) => (during?, None),
        error = compact(&endpoint) => (Sample::default(), Some(error)),
    };
    if let Some(error) = failed {
        return Err(error.context("compaction"));
    }
    let after = load::run(quorum, LOAD, timing).await?;
    let rate = |sample: &Sample| sample.values.iter().sum::<f64>();
    let share = 2.0 * rate(&during) / (rate(&before) + rate(&after));
    during.errors += before.errors + after.errors;
    let share = Sample { values: vec![share], ..Sample::default() };
    Ok(vec![
        Finding { row: format!("{LOAD}, compacting"), unit: Unit::PerSecond, sample: during },
        Finding { row: "  of without compaction".to_owned(), unit: Unit::Share, sample: share },
    ])
}

/// Compacts until a call fails, and returns the error.
async fn compact(endpoint: &str) -> anyhow::Error {
    let forever = async {
        let mut client = clients::connect(endpoint).await?;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compacted = 0;
        loop {
            ticks.tick().await;
            let now = client.get("/bench/ready", None).await?.header().map_or(0, |header| header.revision());
            if now > compacted {
                client.compact(now, None).await?;
                compacted = now;
            }
        }
    };
    let Err::<std::convert::Infallible, anyhow::Error>(error) = forever.await;
    error
}
