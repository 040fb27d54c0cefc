use std::collections::BTreeSet;

use quorate_manager::ManagerConfig;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, DEPLOYMENTS, NOT_READY, PODS, REPLICA_SETS, condition, deployment, is_ready, name_of, uid_of,
};

fn web(cluster: &Cluster) -> Value {
    cluster.object(&DEPLOYMENTS, Some("default"), "web").expect("the deployment is there")
}

fn image_of(pod: &Value) -> String {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

/// Returns a patch that changes the template, so that it has to be rolled out.
fn another_image() -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}})
}

/// Returns whether the controller has observed the current deployment.
fn is_observed(deployment: &Value) -> bool {
    deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
}

/// Returns whether there are exactly `count` pods, all ready and with this image.
fn all_run(cluster: &Cluster, count: usize, image: &str) -> bool {
    let pods = cluster.list(&PODS, Some("default"));
    pods.len() == count && pods.iter().all(|pod| is_ready(pod) && image_of(pod) == image)
}

fn progress(cluster: &Cluster) -> Option<[String; 3]> {
    let deployment = web(cluster);
    let condition = condition(&deployment, "Progressing")?;
    Some(["status", "reason", "message"].map(|field| condition[field].as_str().unwrap_or_default().to_owned()))
}

fn progress_reason(cluster: &Cluster) -> String {
    progress(cluster).map(|[_, reason, _]| reason).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_starts_no_pod_before_the_last_old_one_is_gone() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    let mut object = deployment("web", 3);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.client.create(&DEPLOYMENTS, Some("default"), object).await.expect("the deployment is created");
    cluster.wait("three ready pods", || all_run(&cluster, 3, "web:1")).await;
    let old: Vec<String> = cluster.ready_pods().iter().map(name_of).collect();
    cluster.hold(&old[0]).await;
    let before = cluster.store.revision();

    cluster.patch(&DEPLOYMENTS, "web", another_image()).await;
    cluster
        .wait("the controller to see that only the held pod is left", || {
            let deployment = web(&cluster);
            is_observed(&deployment)
                && deployment["status"]["replicas"].as_i64().unwrap_or(0) == 0
                && cluster.list(&PODS, Some("default")).iter().map(name_of).eq([old[0].clone()])
        })
        .await;
    // The controller creates a set before it writes the status, so a new set would exist by now.
    assert_eq!(cluster.list(&REPLICA_SETS, Some("default")).len(), 1);
    cluster.release(&old[0]).await;
    cluster.wait("three ready pods of the new image", || all_run(&cluster, 3, "web:2")).await;
    cluster.wait("the end of the rollout", || progress_reason(&cluster) == "NewReplicaSetAvailable").await;

    let mut alive: BTreeSet<String> = old.iter().cloned().collect();
    let mut images = BTreeSet::new();
    for (key, pod) in cluster.history(before).await {
        if key.resource != "pods" {
            continue;
        }
        match pod {
            Some(pod) if old.contains(&key.name) => assert_eq!(image_of(&pod), "web:1"),
            Some(pod) => {
                assert!(alive.is_empty(), "{} came while {alive:?} were there", key.name);
                images.insert(image_of(&pod));
            }
            None => assert!(alive.remove(&key.name), "{} did not stay", key.name),
        }
    }
    assert_eq!(images, BTreeSet::from(["web:2".to_owned()]));
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_deployment_is_scaled_and_rolled_out_when_it_is_resumed() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    cluster.deploy("default", "web", 2).await;
    cluster.wait("two ready pods", || all_run(&cluster, 2, "web:1")).await;
    let pods: BTreeSet<String> = cluster.ready_pods().iter().map(uid_of).collect();
    let sets = |cluster: &Cluster| cluster.list(&REPLICA_SETS, Some("default")).len();

    cluster.patch(&DEPLOYMENTS, "web", json!({"spec": {"paused": true}})).await;
    cluster.wait("the condition", || progress_reason(&cluster) == "DeploymentPaused").await;
    cluster.patch(&DEPLOYMENTS, "web", another_image()).await;
    cluster.wait("the controller to see the template", || is_observed(&web(&cluster))).await;
    // The controller creates a set before it writes the status, so another set would exist by now.
    assert_eq!(sets(&cluster), 1);
    cluster.patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 3}})).await;
    cluster.wait("a third pod of the old image", || all_run(&cluster, 3, "web:1")).await;
    assert_eq!(sets(&cluster), 1);
    let now: BTreeSet<String> = cluster.ready_pods().iter().map(uid_of).collect();
    assert!(now.is_superset(&pods), "{pods:?} were replaced: {now:?}");
    assert_eq!(progress_reason(&cluster), "DeploymentPaused");

    cluster.patch(&DEPLOYMENTS, "web", json!({"spec": {"paused": null}})).await;
    cluster.wait("three ready pods of the new image", || all_run(&cluster, 3, "web:2")).await;
    cluster.wait("the end of the rollout", || progress_reason(&cluster) == "NewReplicaSetAvailable").await;
    assert_eq!(sets(&cluster), 2);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_rollout_is_reported_until_it_progresses() {
    let (mut cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.node("worker-1").await;
    let mut object = deployment("web", 2);
    object["spec"]["progressDeadlineSeconds"] = json!(1);
    object["spec"]["template"]["metadata"]["annotations"] = json!({NOT_READY: "true"});
    cluster.client.create(&DEPLOYMENTS, Some("default"), object).await.expect("the deployment is created");
    let updated = |cluster: &Cluster| web(cluster)["status"]["updatedReplicas"] == 2;
    cluster.wait("two pods of which the deployment knows", || updated(&cluster)).await;
    cluster.wait("the deadline", || progress_reason(&cluster) == "ProgressDeadlineExceeded").await;
    let set = cluster.list(&REPLICA_SETS, Some("default")).first().map(name_of).expect("its set");
    let stuck = format!("ReplicaSet \"{set}\" has timed out progressing.");
    assert_eq!(progress(&cluster), Some(["False", "ProgressDeadlineExceeded", stuck.as_str()].map(str::to_owned)));
    let pods = cluster.list(&PODS, Some("default"));
    assert_eq!(pods.len(), 2, "a stuck rollout keeps its pods");

    for pod in pods.iter().map(name_of) {
        cluster.patch(&PODS, &pod, json!({"metadata": {"annotations": {NOT_READY: null}}})).await;
    }
    cluster.wait("the end of the rollout", || progress_reason(&cluster) == "NewReplicaSetAvailable").await;
    let done = format!("ReplicaSet \"{set}\" has successfully progressed.");
    assert_eq!(progress(&cluster), Some(["True", "NewReplicaSetAvailable", done.as_str()].map(str::to_owned)));
    let deployment = web(&cluster);
    assert!(condition(&deployment, "Available").is_some_and(|available| available["status"] == "True"), "{deployment}");
    master.stop().await;
}
