use std::time::{Duration, Instant};

use quorate_manager::ManagerConfig;
use serde_json::json;

use crate::harness::{Cluster, NAMESPACES, PODS, REPLICA_SETS, node_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_writes_nothing_and_its_successor_binds() {
    let (mut cluster, mut first) = Cluster::led(ManagerConfig::default()).await;
    let mut second = cluster.master(ManagerConfig { page_size: 2, ..ManagerConfig::default() });
    cluster.node("worker-1").await;
    cluster.deploy("default", "web", 2).await;
    cluster.wait("two ready pods", || cluster.ready_pods().len() == 2).await;

    first.depose().await;
    cluster.deploy("default", "orphan", 1).await;
    cluster.pod("bare", json!({})).await.expect("the pod is created");
    // The absence of writes can only be observed for a limited time.
    let observe_until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < observe_until {
        assert_eq!(cluster.list(&REPLICA_SETS, Some("default")).len(), 1, "nobody leads");
        assert!(cluster.object(&PODS, Some("default"), "bare").is_some_and(|pod| node_of(&pod).is_none()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    second.elect(2);
    cluster
        .wait("the successor to bind", || {
            cluster.object(&PODS, Some("default"), "bare").is_some_and(|pod| node_of(&pod).is_some())
        })
        .await;
    cluster.wait("the deployment's pod", || cluster.ready_pods().len() == 4).await;

    // The first master leads again; its caches were kept up to date.
    second.depose().await;
    first.elect(3);
    cluster.pod("late", json!({})).await.expect("the pod is created");
    cluster
        .wait("the first to bind again", || {
            cluster.object(&PODS, Some("default"), "late").is_some_and(|pod| node_of(&pod).is_some())
        })
        .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_never_leads_writes_nothing() {
    let cluster = Cluster::new();
    let master = cluster.master(ManagerConfig::default());
    let before = cluster.store.revision();
    let observe_until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < observe_until {
        assert_eq!(cluster.store.revision(), before);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(cluster.list(&NAMESPACES, None).is_empty());
    master.stop().await;
}
