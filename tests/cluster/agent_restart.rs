//! Restart of an agent, which must not affect its pods.

use harness::{Cluster, Runtime, Spec, eventually, tag_image};

use crate::demo_path::{DEPLOYMENT_IMAGE, TEST_IMAGE, all_running, web};

#[test]
fn a_restarted_agent_adopts_its_containers() {
    tag_image(TEST_IMAGE, DEPLOYMENT_IMAGE);
    let cluster = Cluster::start(Spec { masters: 1, workers: 1, runtime: Runtime::Docker, flags: vec![] });
    cluster.qctl(&["apply", "-f", "-"], &web(3)).ok();
    let before = eventually("three pods", || all_running(&cluster, "master-1", 3));

    let old = cluster.member("worker-1").pid;
    cluster.kill("worker-1");
    cluster.revive();
    assert_ne!(cluster.member("worker-1").pid, old);

    // A new pod shows that the new agent works; the old containers must be unchanged.
    cluster.qctl(&["scale", "deployment/web", "--replicas=4"], "").ok();
    let after = eventually("four pods", || all_running(&cluster, "master-1", 4));
    for container in &before {
        assert!(after.contains(container), "{container:?} was replaced: {after:?}");
    }
    let restarts = ["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"];
    assert_eq!(cluster.qctl(&restarts, "").ok().trim(), "0 0 0 0");
}
