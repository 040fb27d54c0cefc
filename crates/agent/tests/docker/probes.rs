//! Probes of all kinds against containers whose health changes.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use crate::harness::{IMAGE, Node1, container, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_ready_when_its_probes_succeed() {
    let Some(node) = Node1::start().await else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let make = |name: &str| std::fs::write(dir.path().join(name), name).expect("a file");
    let with = |name: &str, script: &str, more: Value| {
        let mut container = json!({
            "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
            "volumeMounts": [{ "name": "host", "mountPath": "/host" }],
        });
        container.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        container
    };
    let after = |file: &str, then: &str| format!("while [ ! -f /host/{file} ]; do sleep 0.1; done; exec {then}");
    let pod = node.cluster.create("probed", json!({
        "terminationGracePeriodSeconds": 0,
        "volumes": [{ "name": "host", "hostPath": { "path": dir.path() } }],
        "containers": [
            with("slow", "sleep 3600", json!({
                "startupProbe": {
                    "exec": { "command": ["test", "-f", "/host/started"] }, "periodSeconds": 1, "failureThreshold": 600 },
                "readinessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 1 } })),
            with("web", &after("serve", "httpd -f -p 8080 -h /host"), json!({
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "readinessProbe": { "httpGet": { "path": "/page", "port": "http" }, "periodSeconds": 1 } })),
            with("socket", &after("listen", "httpd -f -p 9090 -h /host"), json!({
                "readinessProbe": { "tcpSocket": { "port": 9090 }, "periodSeconds": 1 } })),
        ],
    }));
    let reports = async |message: &str| node.cluster.wait_event("Unhealthy", message).await;
    let ready =
        |status: &PodStatus| ["slow", "web", "socket"].map(|name| container(status, name).is_some_and(|c| c.ready));
    reports("Startup probe failed").await;
    reports(":8080: connect: connection refused").await;
    reports(":9090: connect: connection refused").await;
    let status = node.cluster.status(&pod);
    assert_eq!(ready(&status), [false; 3]);
    assert_eq!(container(&status, "slow").and_then(|slow| slow.started), Some(false));

    make("started");
    let status = node.cluster.wait(&pod, "the slow one", |status| ready(status) == [true, false, false]).await;
    assert_eq!(container(&status, "slow").and_then(|slow| slow.started), Some(true));
    make("serve");
    reports("HTTP probe failed with statuscode: 404").await;
    make("page");
    node.cluster.wait(&pod, "the page", |status| ready(status) == [true, true, false]).await;
    assert!(!is_ready(&node.cluster.status(&pod)));
    make("listen");
    node.cluster.wait(&pod, "all of them", |status| ready(status) == [true; 3] && is_ready(status)).await;

    std::fs::remove_file(dir.path().join("page")).expect("the page is there");
    let status = node.cluster.wait(&pod, "no page", |status| ready(status) == [true, false, true]).await;
    assert!(!is_ready(&status));
    let restarts = status.container_statuses.iter().flatten().map(|container| container.restart_count).sum::<i32>();
    assert_eq!(restarts, 0, "a readiness probe restarts nothing");
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_starts_is_restarted() {
    let Some(node) = Node1::start().await else { return };
    let probe = |command: &str| json!({ "exec": { "command": [command] }, "periodSeconds": 1, "failureThreshold": 2 });
    let pod = node.cluster.create(
        "stuck",
        json!({
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
                "startupProbe": probe("false"), "livenessProbe": probe("true"),
            }],
        }),
    );
    let restarted = |status: &PodStatus| container(status, "main").is_some_and(|main| main.restart_count >= 1);
    let status = node.cluster.wait(&pod, "it is restarted", restarted).await;
    assert!(!is_ready(&status));
    node.cluster.wait_event("Killing", "failed startup probe, will be restarted").await;
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_liveness_probe_restarts_the_container() {
    let Some(node) = Node1::start().await else { return };
    let pod = node.cluster.create("fragile", json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo alive > /tmp/alive; sleep 1; rm /tmp/alive; sleep 3600"],
            "livenessProbe": { "exec": { "command": ["cat", "/tmp/alive"] }, "periodSeconds": 1, "failureThreshold": 2 },
        }],
    }));
    let status = node
        .cluster
        .wait(&pod, "the container is restarted", |status| {
            container(status, "main")
                .is_some_and(|c| c.restart_count >= 1 && c.state.as_ref().is_some_and(|s| s.running.is_some()))
        })
        .await;
    let main = container(&status, "main").expect("a status");
    let last = main.last_state.as_ref().and_then(|state| state.terminated.as_ref()).expect("the last state");
    assert_eq!(last.exit_code, 137);
    node.cluster.wait_event("Unhealthy", "Liveness probe failed").await;
    let (code, previous) = node.get("system:masters", "/containerLogs/default/fragile/main?previous=true").await;
    assert_eq!((code, previous.as_str()), (200, ""));
    node.finish(&[&pod]).await;
}
