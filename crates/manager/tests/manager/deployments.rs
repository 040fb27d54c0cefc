use std::collections::BTreeSet;

use quorate_manager::ManagerConfig;
use serde_json::{Value, json};

use crate::harness::{Cluster, DEPLOYMENTS, EVENTS, NAMESPACES, PODS, REPLICA_SETS, node_of};

fn ready_replicas(cluster: &Cluster, name: &str) -> i64 {
    let deployment = cluster.object(&DEPLOYMENTS, Some("default"), name);
    deployment.and_then(|deployment| deployment["status"]["readyReplicas"].as_i64()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_rolled_out_updated_scaled_and_deleted() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    cluster.node("worker-2").await;

    cluster.deploy("default", "web", 3).await;
    cluster.wait("three ready replicas", || ready_replicas(&cluster, "web") == 3).await;
    let pods = cluster.ready_pods();
    assert_eq!(pods.len(), 3);
    let nodes: BTreeSet<&str> = pods.iter().filter_map(node_of).collect();
    assert_eq!(nodes, BTreeSet::from(["worker-1", "worker-2"]), "the pods are spread");
    let assigned = |pod: &Value| {
        let (name, node) = (pod["metadata"]["name"].as_str().unwrap_or_default(), node_of(pod).unwrap_or_default());
        format!("Successfully assigned default/{name} to {node}")
    };
    let expected: BTreeSet<String> = pods.iter().map(assigned).collect();
    cluster
        .wait("an event for each binding", || {
            let events = cluster.list(&EVENTS, Some("default"));
            let scheduled = events.iter().filter(|event| event["reason"] == "Scheduled");
            let messages: BTreeSet<&str> = scheduled.filter_map(|event| event["message"].as_str()).collect();
            expected.iter().all(|message| messages.contains(message.as_str()))
        })
        .await;

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}});
    cluster.patch(&DEPLOYMENTS, "web", image).await;
    cluster
        .wait("three ready pods of the new image only", || {
            let all = cluster.list(&PODS, Some("default"));
            all.len() == 3
                && all.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "web:2")
                && ready_replicas(&cluster, "web") == 3
        })
        .await;
    assert_eq!(cluster.list(&REPLICA_SETS, Some("default")).len(), 2, "the old replica set stays for a rollback");

    cluster.patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 6}})).await;
    cluster.wait("six ready replicas", || ready_replicas(&cluster, "web") == 6).await;
    cluster.patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 1}})).await;
    cluster.wait("one pod", || cluster.list(&PODS, Some("default")).len() == 1).await;

    let options = json!({"propagationPolicy": "Background"});
    cluster.client.delete(&DEPLOYMENTS, Some("default"), "web", options).await.expect("it is deleted");
    cluster
        .wait("nothing to be left", || {
            cluster.list(&PODS, Some("default")).is_empty() && cluster.list(&REPLICA_SETS, Some("default")).is_empty()
        })
        .await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_pods_are_reported() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    cluster.deploy("default", "web", 2).await;
    cluster.wait("two ready replicas", || ready_replicas(&cluster, "web") == 2).await;

    // The API validates a template's finalizers only when a pod is created from it.
    let finalizers = |list: Value| json!({"spec": {"template": {"metadata": {"finalizers": list}}}});
    cluster.patch(&DEPLOYMENTS, "web", finalizers(json!(["unqualified"]))).await;
    let has_failed = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| {
            condition["type"] == "ReplicaFailure"
                && condition["reason"] == "FailedCreate"
                && condition["message"].as_str().is_some_and(|message| message.contains("metadata.finalizers[0]"))
        })
    };
    cluster
        .wait("the conditions", || {
            cluster.list(&REPLICA_SETS, Some("default")).iter().any(has_failed)
                && cluster.object(&DEPLOYMENTS, Some("default"), "web").as_ref().is_some_and(has_failed)
        })
        .await;
    cluster
        .wait("the event", || {
            cluster.list(&EVENTS, Some("default")).iter().any(|event| {
                event["reason"] == "FailedCreate"
                    && event["type"] == "Warning"
                    && event["involvedObject"]["kind"] == "ReplicaSet"
                    && event["message"]
                        .as_str()
                        .is_some_and(|message| message.starts_with("Error creating: Pod \"web-"))
            })
        })
        .await;
    assert_eq!(ready_replicas(&cluster, "web"), 2, "running pods are not touched");

    cluster.patch(&DEPLOYMENTS, "web", finalizers(Value::Null)).await;
    cluster
        .wait("the failure to be over", || {
            let deployment = cluster.object(&DEPLOYMENTS, Some("default"), "web").expect("it is there");
            !has_failed(&deployment) && !cluster.list(&REPLICA_SETS, Some("default")).iter().any(has_failed)
        })
        .await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_namespace_deletes_its_contents() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    cluster.client.create(&NAMESPACES, None, namespace).await.expect("the namespace is created");
    cluster.deploy("team", "web", 2).await;
    cluster.wait("its pods", || cluster.list(&PODS, Some("team")).iter().filter_map(node_of).count() == 2).await;
    cluster.client.delete(&NAMESPACES, None, "team", json!({})).await.expect("the deletion begins");
    cluster.wait("the namespace to be gone", || cluster.object(&NAMESPACES, None, "team").is_none()).await;
    for resource in [&DEPLOYMENTS, &REPLICA_SETS, &PODS, &EVENTS] {
        assert_eq!(cluster.list(resource, Some("team")), Vec::<Value>::new(), "{resource}");
    }
    master.stop().await;
}
