//! Pods on real Docker, from start to clean end.

mod harness;

use harness::{IMAGE, Node1, container, is_ready, waiting_reason};
use quorate_agent::RuntimeChoice;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_everything_runs_and_leaves_nothing_behind() {
    let Some(node) = Node1::start().await else { return };
    node.cluster.set_config_map("settings", &[("greeting", "hello"), ("page", "first page")]);
    node.cluster.set_secret("keys", &[("token", "s3cret")]);
    let pod = node.cluster.create("everything", json!({
        "terminationGracePeriodSeconds": 10,
        "volumes": [
            { "name": "shared", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "keys", "secret": { "secretName": "keys", "defaultMode": 256 } },
            { "name": "about", "downwardAPI": { "items": [
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } } ] } },
        ],
        "initContainers": [{
            "name": "prepare", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo prepared by $WHO > /shared/note; mount | grep -q 'tmpfs on /memory'"],
            "env": [{ "name": "WHO", "value": "init" }],
            "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }, { "name": "memory", "mountPath": "/memory" }],
        }],
        "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["sh", "-c"],
            "args": ["cat /shared/note /config/page; echo; cat /keys/token; echo; cat /about/labels; echo; \
                      echo $GREETING $POD_NAME $POD_IP $(COMPOSED) $CPU; hostname; id -u; \
                      trap 'echo stopping; exit 0' TERM; while true; do sleep 0.1; done"],
            "env": [
                { "name": "GREETING", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "greeting" } } },
                { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "COMPOSED", "value": "composed-$(POD_NAME)" },
                { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } },
            ],
            "resources": { "limits": { "cpu": "500m", "memory": "32Mi" } },
            "securityContext": { "runAsUser": 0, "readOnlyRootFilesystem": true },
            "volumeMounts": [
                { "name": "shared", "mountPath": "/shared" },
                { "name": "settings", "mountPath": "/config" },
                { "name": "keys", "mountPath": "/keys" },
                { "name": "about", "mountPath": "/about" },
            ],
            "readinessProbe": { "exec": { "command": ["test", "-f", "/shared/note"] }, "periodSeconds": 1 },
            "lifecycle": { "postStart": { "exec": { "command": ["sh", "-c", "echo from postStart > /shared/post"] } } },
        }],
    }));
    let status = node.cluster.wait(&pod, "the pod becomes ready", is_ready).await;
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.qos_class.as_deref(), Some("Burstable"), "the init container has no limits");
    let ip = status.pod_ip.clone().expect("an address");
    let init = container(&status, "prepare").expect("the init container's status");
    assert!(init.ready && init.state.as_ref().is_some_and(|state| state.terminated.is_some()), "{init:?}");
    let main = container(&status, "main").expect("the container's status");
    assert!(main.container_id.as_ref().is_some_and(|id| id.starts_with("docker://")), "{main:?}");
    assert!(main.image_id.starts_with("docker://sha256:"), "{main:?}");

    let (code, log) = node.get("system:masters", "/containerLogs/default/everything/main").await;
    assert_eq!(code, 200, "{log}");
    let expected = format!(
        "prepared by init\nfirst page\ns3cret\napp=\"everything\"\nhello everything {ip} composed-everything 500\neverything\n0\n"
    );
    assert_eq!(log, expected);
    let (_, tail) =
        node.get("system:masters", "/containerLogs/default/everything/main?tailLines=2&timestamps=true").await;
    assert_eq!(tail.lines().count(), 2, "{tail}");
    assert!(tail.lines().all(|line| line.starts_with("20") && line.contains('T')), "{tail}");
    let (_, cut) = node.get("system:masters", "/containerLogs/default/everything/main?limitBytes=8").await;
    assert_eq!(cut, "prepared");
    let (code, _) = node.get("system:nodes", "/healthz").await;
    assert_eq!(code, 403, "only the masters' group may use the node API");
    let (code, body) = node.get("system:masters", "/containerLogs/default/everything/other").await;
    assert_eq!(code, 404, "{body}");

    // The object changes, and so does what the volume shows, in one step.
    node.cluster.set_config_map("settings", &[("greeting", "hello"), ("page", "second page")]);
    let page = node.data_dir().join("pods").join(&pod.uid).join("volumes/settings/page");
    let deadline = std::time::Instant::now() + harness::PATIENCE;
    while std::fs::read_to_string(&page).expect("the page is always there") != "second page" {
        assert!(std::time::Instant::now() < deadline, "the volume still shows the old page");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    for reason in ["Pulled", "Created", "Started"] {
        assert!(node.cluster.has_event(reason), "no event {reason}");
    }
    node.cluster.delete(&pod, 10);
    node.cluster.wait_gone(&pod).await;
    node.wait_no_containers().await;
    assert!(node.cluster.has_event("Killing"));
    let left: Vec<_> = std::fs::read_dir(node.data_dir().join("pods")).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
    node.tear_down().await;
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
    assert!(node.cluster.has_event("Unhealthy"));
    let (code, previous) = node.get("system:masters", "/containerLogs/default/fragile/main?previous=true").await;
    assert_eq!((code, previous.as_str()), (200, ""));
    node.cluster.delete(&pod, 0);
    node.cluster.wait_gone(&pod).await;
    node.wait_no_containers().await;
    node.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_container_backs_off_and_a_job_like_pod_ends() {
    let Some(node) = Node1::start().await else { return };
    let crash = node.cluster.create("crash", json!({
        "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", "echo oh no; exit 3"],
            "terminationMessagePolicy": "FallbackToLogsOnError" }],
    }));
    let done = node.cluster.create(
        "done",
        json!({
            "restartPolicy": "Never",
            "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo -n well done > /dev/termination-log"] }],
        }),
    );
    let status = node
        .cluster
        .wait(&crash, "it backs off", |status| waiting_reason(status, "main").as_deref() == Some("CrashLoopBackOff"));
    let status = status.await;
    let main = container(&status, "main").expect("a status");
    let last = main.last_state.as_ref().and_then(|state| state.terminated.as_ref()).expect("the last state");
    assert_eq!((last.exit_code, last.reason.as_deref(), last.message.as_deref()), (3, Some("Error"), Some("oh no\n")));
    assert_eq!(main.restart_count, 1, "the first restart is immediate");
    let status = node.cluster.wait(&done, "it succeeds", |status| status.phase.as_deref() == Some("Succeeded")).await;
    let state = container(&status, "main").and_then(|c| c.state.clone()?.terminated).expect("terminated");
    assert_eq!(
        (state.exit_code, state.reason.as_deref(), state.message.as_deref()),
        (0, Some("Completed"), Some("well done"))
    );
    for pod in [&crash, &done] {
        node.cluster.delete(pod, 0);
        node.cluster.wait_gone(pod).await;
    }
    node.wait_no_containers().await;
    node.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_not_there_are_reported() {
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
    node.wait_no_containers().await;
    node.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_returns_adopts_its_containers() {
    let Some(mut node) = Node1::start().await else { return };
    let spec = || {
        json!({ "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
            "readinessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 1 } }] })
    };
    let stays = node.cluster.create("stays", spec());
    let goes = node.cluster.create("goes", spec());
    node.cluster.wait(&stays, "ready", is_ready).await;
    node.cluster.wait(&goes, "ready", is_ready).await;
    let mut before = node.containers().await;
    node.stop_agent().await;
    assert_eq!(before.iter().filter(|(.., running)| *running).count(), 4, "the pods run on without their agent");

    // While the agent is away, one pod vanishes.
    node.cluster.vanish(&goes, false);
    node.start_agent(RuntimeChoice::Docker { endpoint: None });
    before.retain(|(_, name, _)| name.contains("stays"));
    let deadline = std::time::Instant::now() + harness::PATIENCE;
    loop {
        let mut now = node.containers().await;
        now.sort();
        before.sort();
        if now == before {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{now:?} is not {before:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let status = node.cluster.status(&stays);
    assert!(is_ready(&status));
    assert_eq!(container(&status, "main").map(|main| main.restart_count), Some(0));
    node.cluster.delete(&stays, 0);
    node.cluster.wait_gone(&stays).await;
    node.wait_no_containers().await;
    node.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_only_pods_that_are_still_ours_start_again() {
    let Some(mut node) = Node1::start().await else { return };
    let spec = || {
        json!({ "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] }] })
    };
    let ours = node.cluster.create("ours", spec());
    let moved = node.cluster.create("moved", spec());
    node.cluster.wait(&ours, "ready", is_ready).await;
    node.cluster.wait(&moved, "ready", is_ready).await;
    node.stop_agent().await;
    node.power_cut().await;
    node.cluster.vanish(&moved, false);
    node.start_agent(RuntimeChoice::Docker { endpoint: None });
    node.cluster
        .wait(&ours, "runs again", |status| {
            is_ready(status) && container(status, "main").is_some_and(|c| c.restart_count == 1)
        })
        .await;
    let deadline = std::time::Instant::now() + harness::PATIENCE;
    while node.containers().await.iter().any(|(_, name, _)| name.contains("moved")) {
        assert!(std::time::Instant::now() < deadline, "the moved pod left something behind");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    node.cluster.delete(&ours, 0);
    node.cluster.wait_gone(&ours).await;
    node.wait_no_containers().await;
    node.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_masters_what_runs_is_kept_alive() {
    let Some(mut node) = Node1::start().await else { return };
    let pod = node.cluster.create(
        "lonely",
        json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"] }] }),
    );
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.stop_agent().await;
    node.cluster.reachable.store(false, std::sync::atomic::Ordering::SeqCst);
    node.start_agent(RuntimeChoice::Docker { endpoint: None });
    let victim = node.containers().await.into_iter().find(|(_, name, _)| name.contains("k8s_main")).expect("it runs");
    node.docker
        .kill_container(&victim.0, None::<bollard::query_parameters::KillContainerOptions>)
        .await
        .expect("the container is killed");
    let deadline = std::time::Instant::now() + harness::PATIENCE;
    loop {
        let containers = node.containers().await;
        if containers.iter().any(|(id, name, running)| *running && name.contains("k8s_main") && *id != victim.0) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "nobody restarted the container: {containers:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The masters return: the status follows.
    node.cluster.reachable.store(true, std::sync::atomic::Ordering::SeqCst);
    node.cluster
        .wait(&pod, "the restart is reported", |status| container(status, "main").is_some_and(|c| c.restart_count == 1))
        .await;
    node.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hollow_node_reports_what_a_healthy_one_would() {
    let node = Node1::start_hollow();
    let pod = node.cluster.create(
        "hollow",
        json!({
            "initContainers": [{ "name": "init", "image": "i:1" }],
            "containers": [{ "name": "main", "image": "x:1",
                "env": [{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "absent", "key": "k" } } }],
                "readinessProbe": { "httpGet": { "port": 80 } } }],
        }),
    );
    let status = node.cluster.wait(&pod, "ready", is_ready).await;
    assert!(status.pod_ip.is_some_and(|ip| ip.starts_with("10.")));
    let (code, log) = node.get("system:masters", "/containerLogs/default/hollow/main").await;
    assert_eq!((code, log.lines().count()), (200, 1), "{log}");
    let registered = node.cluster.node.lock().clone().and_then(|node| node.status).expect("the node is registered");
    let ready = registered.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    assert_eq!(ready.map(|condition| condition.status.as_str()), Some("True"));
    assert_eq!(
        registered.daemon_endpoints.and_then(|e| e.kubelet_endpoint).map(|e| e.port),
        Some(i32::from(node.port))
    );
    node.cluster.delete(&pod, 30);
    node.cluster.wait_gone(&pod).await;
    node.stop().await;
}
