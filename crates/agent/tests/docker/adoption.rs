//! Restarts of the agent, which adopts running containers.

use quorate_agent::RuntimeChoice;
use serde_json::json;

use crate::harness::{IMAGE, Node1, container, eventually, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_adopts_its_containers() {
    let Some(mut node) = Node1::start().await else { return };
    let spec = || {
        json!({ "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
            "readinessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 1 } }] })
    };
    let stays = node.cluster.create("stays", spec());
    let goes = node.cluster.create("goes", spec());
    node.cluster.wait(&stays, "ready", is_ready).await;
    node.cluster.wait(&goes, "ready", is_ready).await;
    let mut before = node.containers().await;
    node.stop_agent().await;
    assert_eq!(before.iter().filter(|(.., running)| *running).count(), 4, "the pods run on without their agent");

    // One pod is deleted while the agent is stopped.
    node.cluster.vanish(&goes, false);
    node.start_agent(RuntimeChoice::Docker { endpoint: None });
    before.retain(|(_, name, _)| name.contains("stays"));
    before.sort();
    eventually("only the containers that stay", async || {
        let mut now = node.containers().await;
        now.sort();
        if now == before { Ok(()) } else { Err(now) }
    })
    .await;
    let status = node.cluster.status(&stays);
    assert!(is_ready(&status));
    assert_eq!(container(&status, "main").map(|main| main.restart_count), Some(0));
    node.finish(&[&stays]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_only_pods_still_bound_to_the_node_restart() {
    let Some(mut node) = Node1::start().await else { return };
    let spec = || {
        json!({ "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] }] })
    };
    let ours = node.cluster.create("ours", spec());
    let moved = node.cluster.create("moved", spec());
    node.cluster.wait(&ours, "ready", is_ready).await;
    node.cluster.wait(&moved, "ready", is_ready).await;
    node.stop_agent().await;
    node.power_cut().await;
    node.cluster.vanish(&moved, false);
    node.start_agent(RuntimeChoice::Docker { endpoint: None });
    node.cluster
        .wait(&ours, "runs again", |status| {
            is_ready(status) && container(status, "main").is_some_and(|c| c.restart_count == 1)
        })
        .await;
    eventually("the moved pod leaves nothing behind", async || {
        let left = node.containers().await;
        if left.iter().any(|(_, name, _)| name.contains("moved")) { Err(left) } else { Ok(()) }
    })
    .await;
    node.finish(&[&ours]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_pods_are_kept_alive_without_masters() {
    let Some(mut node) = Node1::start().await else { return };
    let pod = node.cluster.create(
        "lonely",
        json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] }] }),
    );
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.stop_agent().await;
    node.cluster.reachable.store(false, std::sync::atomic::Ordering::SeqCst);
    node.start_agent(RuntimeChoice::Docker { endpoint: None });
    let victim = node.containers().await.into_iter().find(|(_, name, _)| name.contains("k8s_main")).expect("it runs");
    node.docker
        .kill_container(&victim.0, None::<bollard::query_parameters::KillContainerOptions>)
        .await
        .expect("the container is killed");
    eventually("the container is restarted", async || {
        let containers = node.containers().await;
        let again =
            |(id, name, running): &(String, String, bool)| *running && name.contains("k8s_main") && *id != victim.0;
        if containers.iter().any(again) { Ok(()) } else { Err(containers) }
    })
    .await;
    // The status is reported when the masters are reachable again.
    node.cluster.reachable.store(true, std::sync::atomic::Ordering::SeqCst);
    node.cluster
        .wait(&pod, "the restart is reported", |status| container(status, "main").is_some_and(|c| c.restart_count == 1))
        .await;
    node.stop().await;
}
