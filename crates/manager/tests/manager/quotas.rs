use quorate_api::GroupVersionResource;
use quorate_manager::ManagerConfig;
use serde_json::{Value, json};

use crate::harness::{Cluster, DEPLOYMENTS, PODS, REPLICA_SETS};

const QUOTAS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "resourcequotas");

fn status(cluster: &Cluster) -> Value {
    cluster.object(&QUOTAS, Some("default"), "q").expect("the quota")["status"].clone()
}

fn counts(pods: &str, sets: &str) -> Value {
    json!({"pods": pods, "count/replicasets.apps": sets})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_grows_as_far_as_its_quota_allows() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": counts("2", "5")}});
    cluster.client.create(&QUOTAS, Some("default"), quota).await.expect("created");
    let measured = json!({"hard": counts("2", "5"), "used": counts("0", "0")});
    cluster.wait("the quota to be measured", || status(&cluster) == measured).await;

    cluster.deploy("default", "web", 3).await;
    cluster.wait("as many pods as the quota allows", || cluster.ready_pods().len() == 2).await;
    cluster
        .wait("the set to report the refusal", || {
            let sets = cluster.list(&REPLICA_SETS, Some("default"));
            let conditions = sets.first().map(|set| set["status"]["conditions"].to_string()).unwrap_or_default();
            conditions.contains("ReplicaFailure") && conditions.contains("exceeded quota: q, requested: pods=1")
        })
        .await;
    assert_eq!(cluster.list(&PODS, Some("default")).len(), 2);
    assert_eq!(status(&cluster)["used"], counts("2", "1"));

    cluster.patch(&QUOTAS, "q", json!({"spec": {"hard": {"pods": "4"}}})).await;
    cluster.wait("the third pod", || cluster.ready_pods().len() == 3).await;
    cluster
        .wait("its charge", || status(&cluster) == json!({"hard": counts("4", "5"), "used": counts("3", "1")}))
        .await;

    cluster.client.delete(&DEPLOYMENTS, Some("default"), "web", json!({})).await.expect("deleted");
    cluster.wait("the usage to be given back", || status(&cluster)["used"] == counts("0", "0")).await;
    master.stop().await;
}
