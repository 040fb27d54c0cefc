//! Test of the demo's steps: from `apply` on a quorum to containers, through the death of the leader and of a worker.

use std::collections::BTreeSet;

use harness::{Cluster, Runtime, Spec, containers, eventually, kill_containers, run, tag_image};

/// Image that `scripts/test` makes; it contains only busybox.
pub const TEST_IMAGE: &str = "quorate/busybox:test";
/// Image of the example's Deployment.
pub const DEPLOYMENT_IMAGE: &str = "quorate/demo:v1";

/// Returns the example manifest with this number of replicas.
pub fn web(replicas: usize) -> String {
    let example = include_str!("../../config/examples/web.yaml");
    example.replace("replicas: 6", &format!("replicas: {replicas}"))
}

/// Returns the running containers if there are `replicas` ready pods with exactly one each. Terminating pods do not
/// count, because those of a dead worker stay until it returns or its Node object is deleted.
pub fn all_running(cluster: &Cluster, master: &str, replicas: usize) -> Result<Vec<harness::Container>, String> {
    let args = ["get", "pods", "-l", "app=web", "-o", "json"];
    let text = cluster.qctl_at(master, &args, "").result().map_err(|output| output.stderr)?;
    let list: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let pods = list["items"].as_array().ok_or("no items")?;
    let pods = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect::<Vec<_>>();
    let ready = |pod: &&&serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    let ready = pods.iter().filter(ready).filter_map(|p| p["metadata"]["uid"].as_str()).collect::<BTreeSet<_>>();
    let found = containers(&cluster.name());
    let running = found.iter().map(|c| c.pod_uid.as_str()).collect::<BTreeSet<_>>();
    if ready.len() == replicas && pods.len() == replicas && running == ready && found.len() == replicas {
        Ok(found)
    } else {
        Err(format!("{} pods, {} ready, {} containers", pods.len(), ready.len(), found.len()))
    }
}

#[test]
fn a_deployment_survives_its_leader_and_a_worker() {
    tag_image(TEST_IMAGE, DEPLOYMENT_IMAGE);
    tag_image(TEST_IMAGE, "quorate/demo:v2");
    let cluster = Cluster::start(Spec {
        masters: 3,
        workers: 2,
        runtime: Runtime::Docker,
        flags: vec!["--node-monitor-grace", "6s", "--eviction-after", "2s", "--heartbeat-interval", "1s"],
    });
    cluster.qctl(&["apply", "-f", "-"], &web(6)).ok();
    eventually("six pods", || all_running(&cluster, "master-1", 6));
    let wide = cluster.qctl(&["get", "pods", "-o", "wide"], "").ok();
    assert!(wide.contains("worker-1") && wide.contains("worker-2"), "{wide}");

    let ip = cluster.qctl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"], "").ok();
    let url = format!("http://{}:8080/", ip.trim());
    let page = run(std::process::Command::new("/bin/busybox").args(["wget", "-q", "-O", "-", &url]), "").ok();
    assert!(page.contains("Still here."), "{page}");

    let leader = cluster.leader_seen_by("master-1");
    cluster.kill(&leader);
    let survivor = cluster.masters().into_iter().map(|m| m.name).find(|name| *name != leader).expect("a survivor");
    eventually("a write through another master", || {
        cluster.qctl_at(&survivor, &["scale", "deployment/web", "--replicas=8"], "").result()
    });
    eventually("eight pods", || all_running(&cluster, &survivor, 8));

    cluster.kill("worker-1");
    kill_containers(&cluster.name(), "worker-1");
    let found = eventually("eight pods on the other worker", || all_running(&cluster, &survivor, 8));
    assert!(found.iter().all(|container| container.node == "worker-2"), "{found:?}");
    // The machine does not come back, so its Node object is deleted, and its pods with it.
    cluster.qctl_at(&survivor, &["delete", "node", "worker-1"], "").ok();
    eventually("the dead worker's pods to be gone", || {
        let nodes = ["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"];
        let nodes = cluster.qctl_at(&survivor, &nodes, "").result().map_err(|output| output.stderr)?;
        if nodes.contains("worker-1") { Err(nodes) } else { Ok(()) }
    });

    cluster.qctl_at(&survivor, &["set", "image", "deployment/web", "httpd=quorate/demo:v2"], "").ok();
    cluster.qctl_at(&survivor, &["rollout", "status", "deployment/web", "--timeout=120s"], "").ok();
    eventually("eight pods of the new version", || all_running(&cluster, &survivor, 8));
    // Pods of the other version may take their grace to end.
    let no_pod_runs = |version: &str| {
        let image = ["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.containers[0].image}"];
        let images = cluster.qctl_at(&survivor, &image, "").result().map_err(|output| output.stderr)?;
        if images.contains(version) { Err(images) } else { Ok(()) }
    };
    eventually("the pods of the old version to be gone", || no_pod_runs("demo:v1"));
    cluster.qctl_at(&survivor, &["rollout", "undo", "deployment/web"], "").ok();
    cluster.qctl_at(&survivor, &["rollout", "status", "deployment/web", "--timeout=120s"], "").ok();
    eventually("eight pods of the old version", || all_running(&cluster, &survivor, 8));
    eventually("the pods of the undone version to be gone", || no_pod_runs("demo:v2"));

    let name = cluster.name();
    drop(cluster);
    assert_eq!(containers(&name), [], "containers are left behind");
}
