//! Resizes of running containers on a real engine.

use bollard::query_parameters::InspectContainerOptions;
use k8s_openapi::api::core::v1::{PodStatus, ResourceRequirements};
use quorate_agent::plan::PodRef;
use serde_json::{Value, json};

use crate::harness::{IMAGE, Node1, condition, container, is_ready};

fn resources(cpu: &str, memory: &str, limit: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": limit, "memory": memory } })
}

fn resize(node: &Node1, pod: &PodRef, name: &str, wanted: &Value) {
    let wanted: ResourceRequirements = serde_json::from_value(wanted.clone()).expect("resources");
    node.cluster.change(pod, |pod| {
        let containers = pod.spec.as_mut().map(|spec| &mut spec.containers).expect("a spec");
        let container = containers.iter_mut().find(|container| container.name == name).expect("the container");
        container.resources = Some(wanted);
    });
}

fn has(status: &PodStatus, name: &str, wanted: &Value) -> bool {
    let resources = container(status, name).and_then(|status| status.resources.as_ref());
    resources.is_some_and(|resources| json!(resources) == *wanted)
        && condition(status, "PodResizeInProgress").is_none()
        && condition(status, "PodResizePending").is_none()
}

/// Returns the engine's CPU shares, CPU quota and memory limit of a container.
async fn limits(node: &Node1, status: &PodStatus, name: &str) -> (i64, i64, i64) {
    let id = container(status, name).and_then(|status| status.container_id.clone()).expect("an id");
    let id = id.trim_start_matches("docker://");
    let inspected = node.docker.inspect_container(id, None::<InspectContainerOptions>).await.expect("inspected");
    let host = inspected.host_config.expect("limits");
    (host.cpu_shares.unwrap_or(0), host.cpu_quota.unwrap_or(0), host.memory.unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_resized_in_place_or_restarted_by_their_policy() {
    let Some(node) = Node1::start().await else { return };
    let sleeps = |name: &str, policy: Value| {
        json!({ "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
            "resources": resources("100m", "32Mi", "200m"), "resizePolicy": policy })
    };
    let restart = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let pod = node.cluster.create(
        "web",
        json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [sleeps("stays", json!([])), sleeps("restarts", restart)],
        }),
    );
    let before = node.cluster.wait(&pod, "the pod becomes ready", is_ready).await;
    assert_eq!(limits(&node, &before, "stays").await, (102, 20_000, 32 << 20));

    let larger = resources("200m", "64Mi", "400m");
    resize(&node, &pod, "stays", &larger);
    let status = node.cluster.wait(&pod, "the resize", |status| has(status, "stays", &larger)).await;
    assert_eq!(limits(&node, &status, "stays").await, (204, 40_000, 64 << 20));
    let (was, is) = (container(&before, "stays"), container(&status, "stays"));
    assert_eq!(was.map(|was| &was.container_id), is.map(|is| &is.container_id), "the container runs on");

    let smaller = resources("50m", "16Mi", "100m");
    resize(&node, &pod, "stays", &smaller);
    let status = node.cluster.wait(&pod, "the reduction", |status| has(status, "stays", &smaller)).await;
    assert_eq!(limits(&node, &status, "stays").await, (51, 10_000, 16 << 20));

    resize(&node, &pod, "restarts", &larger);
    let status = node
        .cluster
        .wait(&pod, "the restart", |status| {
            let count = container(status, "restarts").map(|status| status.restart_count);
            count == Some(1) && is_ready(status) && has(status, "restarts", &larger)
        })
        .await;
    assert_eq!(limits(&node, &status, "restarts").await, (204, 40_000, 64 << 20));

    let huge = resources("9000", "64Mi", "9000");
    resize(&node, &pod, "stays", &huge);
    let status =
        node.cluster.wait(&pod, "the refusal", |status| condition(status, "PodResizePending") == Some("True")).await;
    let pending = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodResizePending");
    assert_eq!(pending.and_then(|pending| pending.reason.as_deref()), Some("Infeasible"));
    assert_eq!(limits(&node, &status, "stays").await, (51, 10_000, 16 << 20), "the container keeps what it has");
    resize(&node, &pod, "stays", &smaller);
    node.cluster.wait(&pod, "the end of the resize", |status| has(status, "stays", &smaller)).await;
    node.finish(&[&pod]).await;
}
