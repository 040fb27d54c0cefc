//! Many keys: the rate of writes, the memory, and the time until a restarted member serves again.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::load;
use super::quorum::{MEMBERS, Quorum};
use super::stats::{Finding, Sample, Unit};

/// Time between the last write and the measurement of memory.
const SETTLE: Duration = Duration::from_secs(3);

pub async fn run(quorum: &mut Quorum, keys: u64) -> anyhow::Result<Vec<Finding>> {
    let meter = quorum.meter()?;
    let started = Instant::now();
    load::fill(quorum, keys).await?;
    let took = started.elapsed();
    let filling = meter.read(quorum)?;
    sleep(SETTLE).await;
    let settled = meter.read(quorum)?;

    // A follower is restarted, so that no election is measured.
    let follower = (quorum.leader().await? + 1) % MEMBERS;
    quorum.members[follower].process.stop().await?;
    let restarted = Instant::now();
    quorum.members[follower].process.start()?;
    quorum.ready(follower).await?;
    let serving = restarted.elapsed();

    let put = Sample {
        values: vec![keys as f64 / took.as_secs_f64()],
        cpu_s_per_million: Some(filling.cpu_s / keys as f64 * 1e6),
        peak_mib: Some(filling.peak_mib),
        ..Sample::default()
    };
    let memory = Sample { values: vec![settled.resident_mib], peak_mib: Some(settled.peak_mib), ..Sample::default() };
    let restart = Sample { values: vec![serving.as_secs_f64() * 1000.0], ..Sample::default() };
    Ok(vec![
        Finding { row: format!("fill {keys} keys"), unit: Unit::PerSecond, sample: put },
        Finding { row: format!("memory, {keys} keys"), unit: Unit::Mebibytes, sample: memory },
        Finding { row: format!("restart, {keys} keys"), unit: Unit::Milliseconds, sample: restart },
    ])
}
