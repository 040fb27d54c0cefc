//! Pods whose image changes while they run.

use bollard::query_parameters::{RemoveImageOptions, TagImageOptionsBuilder};
use serde_json::json;

use crate::harness::{IMAGE, Node1, container, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_image_restarts_its_container_and_is_in_the_status() {
    let Some(node) = Node1::start().await else { return };
    let other = format!("quorate/agent-test-{:08x}:2", rand::random::<u32>());
    let (repo, tag) = other.split_once(':').expect("a tag");
    let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
    node.docker.tag_image(IMAGE, Some(options)).await.expect("a second name of the image");

    let command = json!(["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]);
    let pod = node.cluster.create(
        "changes",
        json!({
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
            "containers": [
                { "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": command },
                { "name": "side", "image": IMAGE, "imagePullPolicy": "Never", "command": command },
            ],
        }),
    );
    let status = node.cluster.wait(&pod, "ready", is_ready).await;
    let main = container(&status, "main").expect("a status").clone();
    assert_eq!((main.image.as_str(), main.restart_count), (IMAGE, 0));
    let side = container(&status, "side").and_then(|side| side.container_id.clone());

    node.cluster.change(&pod, |pod| {
        pod.spec.as_mut().expect("a spec").containers[0].image = Some(other.clone());
    });
    let status = node
        .cluster
        .wait(&pod, "ready with the other image", |status| {
            is_ready(status) && container(status, "main").is_some_and(|main| main.image == other)
        })
        .await;
    let after = container(&status, "main").expect("a status");
    assert_eq!((after.restart_count, status.phase.as_deref()), (1, Some("Running")));
    assert_ne!(after.container_id, main.container_id);
    assert_eq!(
        container(&status, "side").and_then(|side| side.container_id.clone()),
        side,
        "the other container keeps running"
    );
    node.cluster.wait_event("Killing", "Container main definition changed, will be restarted").await;
    let docker = node.docker.clone();
    node.finish(&[&pod]).await;
    docker.remove_image(&other, None::<RemoveImageOptions>, None).await.expect("the second name is removed");
}
