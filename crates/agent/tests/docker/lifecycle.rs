//! Hooks, terminations, limits and logs of containers.

use serde_json::{Value, json};

use crate::harness::{IMAGE, Node1, condition, container, is_ready, terminated};

/// Returns a container that runs a script in the test's directory of the node.
fn script(name: &str, script: &str) -> Value {
    json!({
        "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
        "workingDir": "/host", "volumeMounts": [{ "name": "host", "mountPath": "/host" }],
    })
}

fn host(dir: &tempfile::TempDir) -> Value {
    json!([{ "name": "host", "hostPath": { "path": dir.path(), "type": "Directory" } }])
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_end_after_their_hook_and_within_their_grace_period() {
    let Some(node) = Node1::start().await else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("the container has written it");
    std::fs::write(dir.path().join("given"), "from the node\n").expect("a file");
    let mut polite =
        script("polite", "cat given; pwd; trap 'echo stopping >> course; exit 7' TERM; while true; do sleep 0.1; done");
    let run = |script: &str| json!({ "exec": { "command": ["sh", "-c", script] } });
    polite["lifecycle"] = json!({
        "postStart": run("echo started >> course"),
        "preStop": run("echo leaving >> course; sleep 1; echo left >> course"),
    });
    let pod = node.cluster.create(
        "polite",
        json!({
        "terminationGracePeriodSeconds": 30, "volumes": host(&dir), "containers": [polite] }),
    );
    node.cluster.wait(&pod, "ready", is_ready).await;
    assert_eq!(read("course"), "started\n", "the container is not ready before its hook has run");
    node.wait_log("polite", "polite", "from the node\n/host\n").await;

    node.cluster.delete(&pod, 30);
    let last = node.cluster.wait_gone(&pod).await;
    assert_eq!(read("course"), "started\nleaving\nleft\nstopping\n", "SIGTERM comes after the hook");
    assert_eq!(terminated(&last, "polite").map(|end| end.exit_code), Some(7));

    let deaf = script("deaf", "trap '' TERM; while true; do sleep 0.1; done");
    let pod = node.cluster.create(
        "deaf",
        json!({
        "terminationGracePeriodSeconds": 1, "volumes": host(&dir), "containers": [deaf] }),
    );
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.cluster.delete(&pod, 1);
    let last = node.cluster.wait_gone(&pod).await;
    assert_eq!(terminated(&last, "deaf").map(|end| end.exit_code), Some(137), "it is killed in the end");
    node.wait_no_containers().await;
    assert_eq!(read("given"), "from the node\n", "the pod does not remove the node's directory");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_post_start_hook_ends_its_container() {
    let Some(node) = Node1::start().await else { return };
    let pod = node.cluster.create(
        "hook",
        json!({
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
                "lifecycle": { "postStart": { "exec": { "command": ["sh", "-c", "echo no luck; exit 1"] } } },
            }],
        }),
    );
    let restarted = |status: &_| container(status, "main").is_some_and(|main| main.restart_count >= 1);
    let status = node.cluster.wait(&pod, "it is restarted", restarted).await;
    assert_eq!(condition(&status, "Ready"), Some("False"));
    node.cluster.wait_event("FailedPostStartHook", "no luck").await;
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_in_the_container() {
    let Some(node) = Node1::start().await else { return };
    // The paths of cgroup v2, or else of v1.
    let look = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes; \
                if [ -f cpu.max ]; then cat cpu.max cpu.weight; else \
                echo $(cat cpu/cpu.cfs_quota_us) $(cat cpu/cpu.cfs_period_us); cat cpu/cpu.shares; fi";
    let limited = |name: &str, command: &[&str]| {
        json!({
            "restartPolicy": "Never",
            "containers": [{
                "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": command,
                "resources": { "requests": { "cpu": "250m" }, "limits": { "cpu": "500m", "memory": "32Mi" } },
            }],
        })
    };
    let looks = node.cluster.create("looks", limited("looks", &["sh", "-c", look]));
    let ended = |status: &k8s_openapi::api::core::v1::PodStatus| {
        matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
    };
    node.cluster.wait(&looks, "it has looked", ended).await;
    let seen = node.log("looks", "looks", "").await;
    let seen = seen.lines().collect::<Vec<_>>();
    // 250m is 256 shares in cgroup v1. The scale of v2 is shorter, and there are two conversions.
    assert_eq!(seen[..2], ["33554432", "50000 100000"], "{seen:?}");
    assert!(["256", "10", "34"].contains(&seen[2]), "{seen:?}");

    let greedy = node.cluster.create("greedy", limited("greedy", &["tail", "/dev/zero"]));
    let out_of_memory = |status: &k8s_openapi::api::core::v1::PodStatus| {
        let end = terminated(status, "greedy");
        end.is_some_and(|end| (end.exit_code, end.reason.as_deref()) == (137, Some("OOMKilled")))
    };
    node.cluster.wait(&greedy, "it is killed", |status| ended(status) && out_of_memory(status)).await;
    node.finish(&[&looks, &greedy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_start_at_a_time_or_are_of_the_previous_run() {
    let Some(node) = Node1::start().await else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let main = script(
        "main",
        "echo x >> lives; lives=$(wc -l < lives); echo life $lives; echo more; [ $lives = 2 ] || exit 1; sleep 3600",
    );
    let pod = node.cluster.create(
        "twice",
        json!({
        "terminationGracePeriodSeconds": 0, "volumes": host(&dir), "containers": [main] }),
    );
    node.wait_log("twice", "main", "life 2\nmore\n").await;
    let twice = |status: &k8s_openapi::api::core::v1::PodStatus| {
        is_ready(status) && container(status, "main").is_some_and(|main| main.restart_count == 1)
    };
    node.cluster.wait(&pod, "the second run", twice).await;
    assert_eq!(node.log("twice", "main", "previous=true").await, "life 1\nmore\n");
    let stamped = node.log("twice", "main", "timestamps=true").await;
    let stamps = stamped.lines().filter_map(|line| line.split_once(' ')).map(|(stamp, _)| stamp).collect::<Vec<_>>();
    assert!(stamps.len() == 2 && stamps.is_sorted(), "{stamped}");
    assert_eq!(node.log("twice", "main", &format!("sinceTime={}", stamps[1])).await, "more\n");
    assert_eq!(node.log("twice", "main", "sinceTime=2100-01-01T00:00:00Z").await, "");
    assert_eq!(node.log("twice", "main", "sinceSeconds=36000").await, "life 2\nmore\n");
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_ignore_sigterm_share_the_grace_period_of_their_pod() {
    let Some(node) = Node1::start().await else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let deaf = |name: &str| script(name, "trap '' TERM; while true; do sleep 0.1; done");
    let sidecar = |name: &str| {
        let mut container = deaf(name);
        container["restartPolicy"] = json!("Always");
        container["lifecycle"] = json!({ "preStop": { "exec": { "command": ["touch", name] } } });
        container
    };
    let pod = node.cluster.create(
        "deaf",
        json!({
            "terminationGracePeriodSeconds": 6, "volumes": host(&dir),
            "initContainers": [sidecar("first"), sidecar("second")], "containers": [deaf("main")],
        }),
    );
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.cluster.delete(&pod, 6);
    let last = node.cluster.wait_gone(&pod).await;
    let ended = |name: &str| {
        let end = terminated(&last, name).expect("it has ended");
        (end.exit_code, end.finished_at.as_ref().expect("a time").0)
    };
    let [main, second, first] = ["main", "second", "first"].map(ended);
    assert_eq!([main.0, second.0, first.0], [137; 3], "all are killed in the end");
    assert!(main.1 < second.1 && main.1 < first.1, "{last:?}");
    // After the grace period, the first sidecar does not wait for the end of the second one.
    let events = node.cluster.events.lock().clone();
    let killing = events.iter().find(|event| event.message.as_deref() == Some("Stopping container first"));
    let killing = killing.and_then(|event| event.first_timestamp.as_ref()).expect("the event of its stop").0;
    assert!(killing < second.1, "stopped at {killing}: {last:?}");
    assert!(dir.path().join("first").exists() && dir.path().join("second").exists(), "their hooks have run");
    node.wait_no_containers().await;
    node.stop().await;
}
