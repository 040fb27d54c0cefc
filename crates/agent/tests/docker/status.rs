//! Pod statuses with several writers.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{Node1, condition, eventually, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_others_survive_delayed_reports() {
    let node = Node1::start_hollow();
    let cluster = &node.cluster;
    let spec = json!({
        "readinessGates": [{ "conditionType": "example.com/gate" }],
        "containers": [{ "name": "main", "image": "app:1" }],
    });
    cluster.holds_reports.store(true, Ordering::SeqCst);
    let pod = cluster.create("gated", spec);
    let set = |status: &str| {
        cluster.patch_status(
            &pod,
            &json!({
                "nominatedNodeName": "node-b",
                "conditions": [
                    { "type": "example.com/gate", "status": status },
                    { "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" },
                ],
            }),
        );
    };
    set("False");
    cluster.holds_reports.store(false, Ordering::SeqCst);
    let status = cluster
        .wait(&pod, "everything but the gate", |status| condition(status, "ContainersReady") == Some("True"))
        .await;
    assert_eq!(condition(&status, "Ready"), Some("False"));
    assert_eq!(condition(&status, "example.com/gate"), Some("False"));
    assert_eq!(status.nominated_node_name.as_deref(), Some("node-b"));

    // The gate opens while an earlier report is in flight.
    cluster.holds_reports.store(true, Ordering::SeqCst);
    cluster.change(&pod, |pod| pod.metadata.generation = Some(2));
    eventually("a report in flight", async || {
        if cluster.held_reports.load(Ordering::SeqCst) == 1 { Ok(()) } else { Err("none") }
    })
    .await;
    set("True");
    cluster.holds_reports.store(false, Ordering::SeqCst);
    let status = cluster.wait(&pod, "ready", is_ready).await;
    assert_eq!(status.observed_generation, Some(2));
    for type_ in ["example.com/gate", "DisruptionTarget", "PodScheduled", "Initialized", "PodReadyToStartContainers"] {
        assert_eq!(condition(&status, type_), Some("True"), "{type_}");
    }
    set("False");
    let status = cluster.wait(&pod, "not ready", |status| !is_ready(status)).await;
    assert_eq!(condition(&status, "example.com/gate"), Some("False"));
    cluster.delete(&pod, 0);
    let last = cluster.wait_gone(&pod).await;
    assert_eq!(condition(&last, "DisruptionTarget"), Some("True"));
    assert_eq!(*cluster.overwritten.lock(), []);
    node.stop().await;
}
