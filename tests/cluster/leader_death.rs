//! Death of the leader during writes.

use harness::{Cluster, Runtime, Spec};

use crate::writers::{Writers, check_all_there};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_create_survives_the_leader() {
    let cluster = Cluster::start(Spec { masters: 3, workers: 0, runtime: Runtime::Hollow, flags: vec![] });
    let leader = cluster.leader_seen_by("master-1");
    let writers = Writers::start(&cluster, 4, 2_000).await;
    writers.reached(700).await;
    cluster.kill(&leader);
    let acknowledged = writers.finish().await;
    assert_eq!(acknowledged.len(), 2_000);

    let survivors = cluster.masters().into_iter().filter(|m| m.name != leader).map(|m| m.name).collect::<Vec<_>>();
    for master in &survivors {
        check_all_there(&cluster, master, &acknowledged).await;
    }
    let successor = cluster.leader_seen_by(&survivors[0]);
    assert_ne!(successor, leader);

    cluster.revive();
    check_all_there(&cluster, &leader, &acknowledged).await;
}
