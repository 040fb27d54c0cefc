use std::time::Duration;

use quorate_manager::ManagerConfig;
use serde_json::{Value, json};

use crate::harness::{Cluster, EVENTS, PODS, node_of};

fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.object(&PODS, Some("default"), name).expect("the pod is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unschedulable_pod_reports_the_reason_and_is_bound_once_there_is_room() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node_with("small", json!({"cpu": "500m", "memory": "1Gi", "pods": "10"})).await;
    let spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]});
    cluster.pod("web", spec).await.expect("the pod is created");
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not \
                   helpful for scheduling.";
    cluster
        .wait("the condition", || {
            let pod = pod(&cluster, "web");
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|condition| {
                condition["type"] == "PodScheduled"
                    && condition["status"] == "False"
                    && condition["reason"] == "Unschedulable"
                    && condition["message"] == message
            })
        })
        .await;
    cluster
        .wait("the event", || {
            let events = cluster.list(&EVENTS, Some("default"));
            events.iter().any(|event| {
                event["reason"] == "FailedScheduling" && event["type"] == "Warning" && event["message"] == message
            })
        })
        .await;
    cluster.node_with("large", json!({"cpu": "2", "memory": "1Gi", "pods": "10"})).await;
    cluster.wait("the binding", || node_of(&pod(&cluster, "web")) == Some("large")).await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_required_anti_affinity_stays_pending_and_reports_the_reason() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node_with("large", json!({"cpu": "2", "memory": "1Gi", "pods": "10"})).await;
    let spec = json!({
        "containers": [{"name": "c", "image": "i"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}},
    });
    cluster.pod("web", spec).await.expect("the pod is created");
    let field = "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    cluster
        .wait("the condition", || {
            let pod = pod(&cluster, "web");
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|condition| {
                condition["type"] == "PodScheduled"
                    && condition["status"] == "False"
                    && condition["reason"] == "Unschedulable"
                    && condition["message"].as_str().is_some_and(|message| message.contains(field))
            })
        })
        .await;
    cluster
        .wait("the event", || {
            let events = cluster.list(&EVENTS, Some("default"));
            events.iter().any(|event| {
                event["reason"] == "FailedScheduling"
                    && event["message"].as_str().is_some_and(|message| message.contains(field))
            })
        })
        .await;
    assert_eq!(node_of(&pod(&cluster, "web")), None);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_bindings_never_overcommit_a_node() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    for name in ["a", "b"] {
        cluster.node_with(name, json!({"cpu": "1", "memory": "8Gi", "pods": "110"})).await;
    }
    for i in 0..30 {
        let spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]});
        cluster.pod(&format!("p{i}"), spec).await.expect("the pod is created");
    }
    let bound_to = |node: &str| {
        let pods = cluster.list(&PODS, Some("default"));
        pods.iter().filter(|pod| node_of(pod) == Some(node)).count()
    };
    cluster.wait("both nodes to be full", || bound_to("a") + bound_to("b") >= 20).await;
    cluster
        .wait("the other pods to be reported as unschedulable", || {
            let pods = cluster.list(&PODS, Some("default"));
            pods.iter().filter(|pod| pod.to_string().contains("2 Insufficient cpu")).count() == 10
        })
        .await;
    assert_eq!((bound_to("a"), bound_to("b")), (10, 10));
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_events_are_deleted() {
    let config = ManagerConfig { event_ttl: Duration::from_millis(600), ..ManagerConfig::default() };
    let (cluster, master) = Cluster::led(config).await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "old.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "old"}, "reason": "Tested",
        "message": "m", "type": "Normal"});
    cluster.client.create(&EVENTS, Some("default"), event).await.expect("the event is created");
    cluster.wait("the event to be gone", || cluster.list(&EVENTS, Some("default")).is_empty()).await;
    master.stop().await;
}
