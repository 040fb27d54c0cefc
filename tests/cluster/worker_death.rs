//! Death of a worker by a power cut, and its return.

use harness::{Cluster, Runtime, Spec, containers, eventually, kill_containers, tag_image};

use crate::demo_path::{DEPLOYMENT_IMAGE, TEST_IMAGE, all_running, web};

#[test]
fn pods_of_a_dead_worker_are_replaced_and_nothing_runs_twice_when_it_returns() {
    tag_image(TEST_IMAGE, DEPLOYMENT_IMAGE);
    let cluster = Cluster::start(Spec {
        masters: 1,
        workers: 2,
        runtime: Runtime::Docker,
        flags: vec!["--node-monitor-grace", "6s", "--eviction-after", "2s", "--heartbeat-interval", "1s"],
    });
    cluster.qctl(&["apply", "-f", "-"], &web(4)).ok();
    let before = eventually("four pods", || all_running(&cluster, "master-1", 4));
    assert!(before.iter().any(|c| c.node == "worker-1"), "the pods are not spread: {before:?}");

    cluster.kill("worker-1");
    kill_containers(&cluster.name(), "worker-1");
    eventually("the node to be seen dead", || {
        let nodes = cluster.qctl(&["get", "nodes"], "").ok();
        if nodes.lines().any(|l| l.starts_with("worker-1") && l.contains("NotReady")) { Ok(()) } else { Err(nodes) }
    });
    let moved = eventually("four pods on the other worker", || all_running(&cluster, "master-1", 4));
    assert!(moved.iter().all(|c| c.node == "worker-2"), "{moved:?}");

    cluster.revive();
    eventually("the node to be back", || {
        let nodes = cluster.qctl(&["get", "nodes"], "").ok();
        if nodes.contains("NotReady") { Err(nodes) } else { Ok(()) }
    });
    // The worker gets new pods, so it already knows that the old ones moved. Each moved pod must stay and run once.
    cluster.qctl(&["scale", "deployment/web", "--replicas=6"], "").ok();
    let after = eventually("six pods", || all_running(&cluster, "master-1", 6));
    for container in &moved {
        assert!(after.contains(container), "{container:?} was replaced: {after:?}");
    }
    assert!(after.iter().any(|c| c.node == "worker-1"), "{after:?}");
    assert_eq!(containers(&cluster.name()), after);
}
