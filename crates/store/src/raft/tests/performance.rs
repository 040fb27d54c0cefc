//! Measurements without assertions; run them by name, with `--run-ignored all --no-capture`.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, put, put_surely};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn puts() {
    super::cluster::show_logs();
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for (name, id) in [("leader", leader), ("follower", leader % 3 + 1)] {
        for clients in [1, 64, 512] {
            let store = cluster.store(id);
            let until = Instant::now() + Duration::from_secs(4);
            let work = (0..clients).map(|client| async move {
                let mut latencies = Vec::new();
                let value = vec![b'v'; 256];
                while Instant::now() < until {
                    let began = Instant::now();
                    let key = format!("bench/{client}/{}", latencies.len() % 1000);
                    store.propose(put(&key, &value)).await.expect("written");
                    latencies.push(began.elapsed());
                }
                latencies
            });
            let began = Instant::now();
            let mut latencies: Vec<_> = futures::future::join_all(work).await.into_iter().flatten().collect();
            let elapsed = began.elapsed().as_secs_f64();
            latencies.sort_unstable();
            let at = |share: usize| latencies[latencies.len() * share / 100];
            tracing::info!(
                "{clients} clients through the {name}: {:.0} writes/s, median {:?}, 99 % {:?}",
                latencies.len() as f64 / elapsed,
                at(50),
                at(99)
            );
        }
    }
    put_surely(cluster.store(leader), "end", b"").await;
    cluster.assert_equal_states().await;
    cluster.shutdown().await;
}
