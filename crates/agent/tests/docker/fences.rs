//! Fenced pods on a node that does not reach its masters.

use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::PodStatus;
use quorate_agent::{Containers, watch_containers};
use serde_json::json;

use crate::harness::{IMAGE, NODE, Node1, PATIENCE, container, eventually, is_ready, terminated};

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
    let watchdog = tokio::spawn(watch(&node));
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
    watchdog.abort();
    node.stop_agent().await;
}

/// Runs the watchdog of a node.
fn watch(node: &Node1) -> impl Future<Output = ()> + use<> {
    let containers = Containers { cluster: node.cluster_id.clone(), node: NODE.to_owned() };
    let watchdog = watch_containers(node.data_dir().join("fences.json"), containers);
    async move { watchdog.await.expect("the watchdog runs") }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_the_watchdog_stops_the_containers_first_and_the_sandbox_last() {
    let Some(mut node) = Node1::start().await else { return };
    // The container takes its time to stop, and exits with 0.
    let main = json!({ "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "trap 'sleep 2; exit 0' TERM; touch /ready; while :; do sleep 1; done"],
        "readinessProbe": { "exec": { "command": ["test", "-e", "/ready"] }, "periodSeconds": 1 } });
    let spec = json!({ "terminationGracePeriodSeconds": 20, "restartPolicy": "Never", "containers": [main] });
    let pod = node.cluster.create_annotated("job", &json!({ "quorate.io/fence-after": "10s" }), spec);
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.stop_agent().await;
    let watchdog = tokio::spawn(watch(&node));
    eventually("nothing to run", async || {
        let all = node.containers().await;
        let runs = |kind: &str| all.iter().any(|(_, name, running)| *running && name.contains(kind));
        assert!(!runs("k8s_main_") || runs("k8s_POD_"), "the container has lost its sandbox: {all:?}");
        if runs("k8s_") { Err(all) } else { Ok(()) }
    })
    .await;
    tokio::time::timeout(PATIENCE, watchdog).await.expect("it ends when nothing is left").expect("it ends in order");

    node.start_agent(quorate_agent::RuntimeChoice::Docker { endpoint: None });
    let is_over = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let status = node.cluster.wait(&pod, "over", is_over).await;
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Fenced")), "{status:?}");
    assert_eq!(terminated(&status, "main").map(|end| end.exit_code), Some(0), "it was not killed");
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_its_fence_has_stopped_has_failed_although_it_exited_with_zero() {
    let Some(mut node) = Node1::start().await else { return };
    let main = json!({ "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["sh", "-c", "trap 'exit 0' TERM; touch /ready; while :; do sleep 1; done"],
        "readinessProbe": { "exec": { "command": ["test", "-e", "/ready"] }, "periodSeconds": 1 } });
    let spec = json!({ "terminationGracePeriodSeconds": 5, "restartPolicy": "Never", "containers": [main] });
    let pod = node.cluster.create_annotated("job", &json!({ "quorate.io/fence-after": "10s" }), spec);
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.cluster.reachable.store(false, Ordering::SeqCst);
    eventually("the container to stop", async || {
        let left = node.containers().await;
        if left.iter().any(|(_, name, running)| *running && name.contains("k8s_main_")) { Err(left) } else { Ok(()) }
    })
    .await;
    // Another agent, which has not stopped the container itself, reports the end as well.
    node.stop_agent().await;
    node.start_agent(quorate_agent::RuntimeChoice::Docker { endpoint: None });
    node.cluster.reachable.store(true, Ordering::SeqCst);
    let is_over = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let status = node.cluster.wait(&pod, "over", is_over).await;
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Fenced")), "{status:?}");
    let end = terminated(&status, "main").expect("it has ended");
    assert_eq!((end.exit_code, end.reason.as_deref()), (0, Some("Fenced")));
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_pod_stops_although_the_marks_of_its_containers_cannot_be_read() {
    let Some(mut node) = Node1::start().await else { return };
    let of = |name: &str, command: serde_json::Value| json!({ "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": command });
    let spec = json!({ "terminationGracePeriodSeconds": 1, "initContainers": [of("init", json!(["true"]))],
        "containers": [of("main", json!(["sleep", "3600"]))] });
    let pod = node.cluster.create_annotated("unreadable", &json!({ "quorate.io/fence-after": "10s" }), spec);
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.stop_agent().await;
    // The next agent looks up the mark of the init container.
    let marks = node.data_dir().join("pods").join(&pod.uid).join("fenced");
    std::fs::remove_dir(&marks).expect("nothing is marked");
    std::fs::write(&marks, b"").expect("written");
    node.cluster.reachable.store(false, Ordering::SeqCst);
    node.start_agent(quorate_agent::RuntimeChoice::Docker { endpoint: None });
    eventually("the container to stop", async || {
        let left = node.containers().await;
        if left.iter().any(|(_, name, running)| *running && name.contains("k8s_main_")) { Err(left) } else { Ok(()) }
    })
    .await;
    // They do not prevent the removal of the pod either.
    node.cluster.reachable.store(true, Ordering::SeqCst);
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_pod_leaves_the_ledger() {
    let Some(mut node) = Node1::start().await else { return };
    node.stop_agent().await;
    let ledger = node.data_dir().join("fences.json");
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the id of this boot");
    let seconds = |secs: u64| json!({ "secs": secs, "nanos": 0 });
    // An earlier agent has left the pod behind, and nothing of it is left on this node.
    let vanished = json!({ "boot_id": boot_id.trim(), "renewed": null,
        "pods": { "vanished": { "after": seconds(10), "grace": seconds(1) } } });
    std::fs::write(&ledger, vanished.to_string()).expect("written");
    node.start_agent(quorate_agent::RuntimeChoice::Docker { endpoint: None });
    eventually("the pod to leave the ledger", async || {
        let text = std::fs::read_to_string(&ledger).expect("a ledger");
        if text.contains("vanished") { Err(text) } else { Ok(()) }
    })
    .await;
    node.stop().await;
}
