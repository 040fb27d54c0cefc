//! Fenced pods on a node that does not reach its masters.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{IMAGE, Node1, container, eventually, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn fenced_pods_stop_without_masters_and_only_those_still_assigned_start_again() {
    let Some(mut node) = Node1::start().await else { return };
    let spec = || {
        json!({ "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] }] })
    };
    let fence = json!({ "quorate.io/fence-after": "10s" });
    let ours = node.cluster.create_annotated("ours", &fence, spec());
    let moved = node.cluster.create_annotated("moved", &fence, spec());
    let free = node.cluster.create("free", spec());
    for pod in [&ours, &moved, &free] {
        node.cluster.wait(pod, "ready", is_ready).await;
    }
    let running = async |node: &Node1| {
        let all =
            node.containers().await.into_iter().filter(|(_, name, running)| *running && name.contains("k8s_main_"));
        let mut names: Vec<String> = all.filter_map(|(_, name, _)| name.split('_').nth(2).map(str::to_owned)).collect();
        names.sort();
        names
    };

    node.cluster.reachable.store(false, Ordering::SeqCst);
    eventually("the fenced pods to stop", async || match running(&node).await {
        names if names == ["free"] => Ok(()),
        names => Err(names),
    })
    .await;

    // One of them is given to another node, without a watch event.
    node.cluster.vanish(&moved, false);
    node.cluster.reachable.store(true, Ordering::SeqCst);
    let restarted = |status: &_| is_ready(status) && container(status, "main").is_some_and(|c| c.restart_count == 1);
    node.cluster.wait(&ours, "runs again", restarted).await;
    assert_eq!(running(&node).await, ["free", "ours"]);
    let untouched = container(&node.cluster.status(&free), "main").map(|main| main.restart_count);
    assert_eq!(untouched, Some(0));
    node.stop_agent().await;
}
