//! A pod whose worker panicked.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{IMAGE, Node1, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_continues_after_its_worker_has_panicked() {
    let Some(node) = Node1::start().await else { return };
    let cluster = &node.cluster;
    cluster.set_config_map("settings", &[("level", "one")]);
    cluster.panics.store(true, Ordering::SeqCst);
    let pod = cluster.create(
        "unlucky",
        json!({
            "terminationGracePeriodSeconds": 0,
            "volumes": [{ "name": "settings", "configMap": { "name": "settings" } }],
            "containers": [
                { "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] }],
        }),
    );
    cluster.wait(&pod, "ready", is_ready).await;
    assert!(!cluster.panics.load(Ordering::SeqCst), "the worker has panicked");
    node.finish(&[&pod]).await;
}
