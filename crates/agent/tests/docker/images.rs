//! Pulls of images, and missing images.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::json;

use crate::harness::{Node1, container, is_ready, waiting_reason};
use crate::registry::Registry;

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_by_their_pull_policy() {
    // The registry is created first, so that its images are removed after the containers.
    let registry = Registry::start().await;
    let Some(node) = Node1::start().await else { return };
    let image = registry.image("app:stable");
    let spec = |policy: &str| {
        json!({ "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": image, "imagePullPolicy": policy,
            "command": ["sh", "-c", "echo $VERSION; sleep 3600"] }] })
    };
    let image_id = |status: &PodStatus| container(status, "main").map(|main| main.image_id.clone()).unwrap_or_default();

    // The tag is published later, so the pod waits for it.
    let early = node.cluster.create("early", spec("IfNotPresent"));
    let backs_off = |status: &PodStatus| waiting_reason(status, "main").as_deref() == Some("ImagePullBackOff");
    node.cluster.wait(&early, "back-off", backs_off).await;
    let first = registry.publish("stable", "first");
    let status = node.cluster.wait(&early, "ready", is_ready).await;
    assert_eq!(image_id(&status), format!("docker://{first}"));
    node.wait_log("early", "main", "first\n").await;
    node.cluster.wait_event("Pulled", &format!("Successfully pulled image \"{image}\" in ")).await;

    // The tag moves to another image.
    let second = registry.publish("stable", "second");
    let content = node.cluster.create("content", spec("IfNotPresent"));
    let status = node.cluster.wait(&content, "ready", is_ready).await;
    assert_eq!(image_id(&status), format!("docker://{first}"), "the present image is used");
    let curious = node.cluster.create("curious", spec("Always"));
    let status = node.cluster.wait(&curious, "ready", is_ready).await;
    assert_eq!(image_id(&status), format!("docker://{second}"));
    node.wait_log("curious", "main", "second\n").await;

    node.finish(&[&early, &content, &curious]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_images_are_reported() {
    let Some(node) = Node1::start().await else { return };
    let spec = |policy: &str| json!({ "containers": [{ "name": "main", "image": "localhost:1/nothing/here:v1", "imagePullPolicy": policy }] });
    let never = node.cluster.create("never", spec("Never"));
    let pull = node.cluster.create("pull", spec("IfNotPresent"));
    node.cluster
        .wait(&never, "never", |status| waiting_reason(status, "main").as_deref() == Some("ErrImageNeverPull"))
        .await;
    node.cluster
        .wait(&pull, "back-off", |status| waiting_reason(status, "main").as_deref() == Some("ImagePullBackOff"))
        .await;
    for pod in [&never, &pull] {
        node.cluster.delete(pod, 30);
        node.cluster.wait_gone(pod).await;
    }
    node.finish(&[]).await;
}
