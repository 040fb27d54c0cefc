//! Simultaneous death of all masters.

use harness::{Cluster, Runtime, Spec};

use crate::writers::{Writers, check_all_there};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_the_death_of_all_masters() {
    let cluster = Cluster::start(Spec { masters: 3, workers: 0, runtime: Runtime::Hollow, flags: vec![] });
    let writers = Writers::start(&cluster, 4, 1_000).await;
    writers.reached(500).await;
    cluster.kill_at_once(&cluster.masters());
    cluster.revive();
    // The writers kept retrying, and now continue.
    let acknowledged = writers.finish().await;
    assert_eq!(acknowledged.len(), 1_000);
    for master in cluster.masters() {
        check_all_there(&cluster, &master.name, &acknowledged).await;
    }

    // Restarted members are stopped with the others.
    let members = cluster.masters();
    drop(cluster);
    for member in members {
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", member.pid)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&cmdline).contains("quorate-test-"), "{} still runs", member.name);
    }
}
