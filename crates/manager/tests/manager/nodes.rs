use std::time::Duration;

use quorate_controllers::Settings;
use quorate_manager::ManagerConfig;

use crate::harness::{Cluster, NODES, PODS, node_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_dead_node_are_replaced_on_another() {
    let settings = Settings {
        node_monitor_grace: Duration::from_secs(2),
        eviction_after: Duration::from_secs(1),
        orphan_grace: Duration::from_secs(1),
        ..Settings::default()
    };
    let (mut cluster, master) = Cluster::led(ManagerConfig { settings, ..ManagerConfig::default() }).await;
    cluster.node("worker-1").await;
    let plug = cluster.node("worker-2").await;
    cluster.deploy("default", "web", 4).await;
    cluster.wait("four ready pods", || cluster.ready_pods().len() == 4).await;
    let on_dead_node = |cluster: &Cluster| {
        let pods = cluster.list(&PODS, Some("default"));
        pods.iter().filter(|pod| node_of(pod) == Some("worker-2")).count()
    };
    assert_eq!(on_dead_node(&cluster), 2, "the pods are spread over both");

    plug.cancel();
    cluster
        .wait("the node to count as dead", || {
            let node = cluster.object(&NODES, None, "worker-2").expect("the Node object stays");
            node["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "Unknown")
        })
        .await;
    cluster
        .wait("four ready pods on the other node", || {
            let ready = cluster.ready_pods();
            ready.iter().filter(|pod| node_of(pod) == Some("worker-1")).count() == 4
        })
        .await;
    // The masters cannot know whether the node still runs its pods, so the pods stay terminating until the Node object
    // is gone.
    let left = cluster.list(&PODS, Some("default"));
    let left: Vec<_> = left.iter().filter(|pod| node_of(pod) == Some("worker-2")).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    for pod in left {
        assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");
        let tolerations = pod["spec"]["tolerations"].as_array().expect("the default tolerations");
        assert!(tolerations.iter().all(|toleration| toleration["tolerationSeconds"] == 1), "{tolerations:?}");
    }
    cluster.client.delete(&NODES, None, "worker-2", serde_json::Value::Null).await.expect("deleted");
    cluster.wait("the dead node's pods to be gone", || on_dead_node(&cluster) == 0).await;
    master.stop().await;
}
