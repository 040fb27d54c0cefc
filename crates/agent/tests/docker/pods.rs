//! Pods from their start to their complete removal.

use serde_json::json;

use crate::harness::{IMAGE, Node1, container, eventually, is_ready, waiting_reason};

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

    // A change of the object changes the volume's content atomically.
    node.cluster.set_config_map("settings", &[("greeting", "hello"), ("page", "second page")]);
    let page = node.data_dir().join("pods").join(&pod.uid).join("volumes/settings/page");
    eventually("the new page", async || {
        let shown = std::fs::read_to_string(&page).expect("the page is always there");
        if shown == "second page" { Ok(()) } else { Err(shown) }
    })
    .await;

    for reason in ["Pulled", "Created", "Started"] {
        node.cluster.wait_event(reason, "").await;
    }
    node.cluster.delete(&pod, 10);
    node.cluster.wait_gone(&pod).await;
    node.wait_no_containers().await;
    node.cluster.wait_event("Killing", "").await;
    let left: Vec<_> = std::fs::read_dir(node.data_dir().join("pods")).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
    node.stop().await;
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
    node.finish(&[&crash, &done]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hollow_node_reports_like_a_healthy_one() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_leads_to_its_container() {
    let Some(node) = Node1::start().await else { return };
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let pod = node.cluster.create(
        "served",
        json!({
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo a page > /tmp/page; exec httpd -f -p 8080 -h /tmp"],
                "ports": [{ "containerPort": 8080, "hostPort": free.port() }],
                "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
            }],
        }),
    );
    node.cluster.wait(&pod, "ready", is_ready).await;
    eventually("the page", async || {
        let mut curl = tokio::process::Command::new("curl");
        let page = curl.args(["-s", "--max-time", "5"]).arg(format!("http://{free}/page")).output().await;
        let page = page.expect("curl runs").stdout;
        if page == b"a page\n" { Ok(()) } else { Err(String::from_utf8_lossy(&page).into_owned()) }
    })
    .await;
    node.finish(&[&pod]).await;
}
