//! Longest time without an acknowledged write when the leader is killed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::clients::Pool;
use super::quorum::{MEMBERS, Quorum};
use super::stats::{Finding, Sample, Unit};

/// Interval at which writes are sent to the members in turn, whether or not earlier ones were answered.
const EVERY: Duration = Duration::from_millis(5);
/// Deadline of one write.
const WRITE_WITHIN: Duration = Duration::from_secs(1);
/// Time with writes before a kill.
const LEAD_IN: Duration = Duration::from_secs(1);
/// Number of acknowledged writes within [`LEAD_IN`] after which the quorum counts as recovered.
const STEADY_ACKNOWLEDGED: usize = 50;
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

type Acknowledged = Arc<Mutex<Vec<Instant>>>;

/// Kills the leader `kills` times. The values are the gaps.
pub async fn run(quorum: &mut Quorum, kills: usize) -> anyhow::Result<Finding> {
    let mut gaps = Vec::new();
    for _ in 0..kills {
        gaps.push(gap(quorum).await?.as_secs_f64() * 1000.0);
    }
    let sample = Sample { values: gaps, ..Sample::default() };
    Ok(Finding { row: "gap at kill -9 of leader".to_owned(), unit: Unit::Milliseconds, sample })
}

async fn gap(quorum: &mut Quorum) -> anyhow::Result<Duration> {
    let acknowledged = Acknowledged::default();
    // Dropping the set ends the writer.
    let mut writer = JoinSet::new();
    writer.spawn(write(Pool::open(&quorum.endpoints().await?, MEMBERS).await?, acknowledged.clone()));
    sleep(LEAD_IN).await;
    let leader = quorum.leader().await?;
    let killed = Instant::now();
    quorum.members[leader].process.kill()?;
    loop {
        sleep(POLL).await;
        ensure!(killed.elapsed() < RECOVERED_WITHIN, "no writes after the leader was killed");
        let since = Instant::now() - LEAD_IN;
        if since > killed && times(&acknowledged).iter().filter(|time| **time > since).count() >= STEADY_ACKNOWLEDGED {
            break;
        }
    }
    writer.shutdown().await;
    quorum.members[leader].process.start()?;
    quorum.ready(leader).await?;
    Ok(longest_gap(times(&acknowledged), killed))
}

fn times(acknowledged: &Acknowledged) -> Vec<Instant> {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Longest time between two acknowledged writes that ends after `killed`.
fn longest_gap(mut acknowledged: Vec<Instant>, killed: Instant) -> Duration {
    acknowledged.sort_unstable();
    let gaps = acknowledged.windows(2).filter(|pair| pair[1] > killed).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

async fn write(pool: Pool, acknowledged: Acknowledged) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writes = JoinSet::new();
    for number in 0.. {
        ticks.tick().await;
        while writes.try_join_next().is_some() {}
        let (mut kv, acknowledged) = (pool.kv(number), acknowledged.clone());
        writes.spawn(async move {
            let put = kv.put(format!("/bench/failover/{}", number % 100), "x", None);
            if let Ok(Ok(_)) = timeout(WRITE_WITHIN, put).await {
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_from_the_last_write_before_the_kill() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let acknowledged = [0, 900, 1000, 1010, 1500, 1505].map(at).to_vec();
        assert_eq!(longest_gap(acknowledged.clone(), at(1005)), Duration::from_millis(490));
        assert_eq!(longest_gap(acknowledged, at(1502)), Duration::from_millis(5));
        assert_eq!(longest_gap(Vec::new(), start), Duration::ZERO);
    }
}
