//! Ephemeral containers in a real pod.

use k8s_openapi::api::core::v1::{ContainerStatus, EphemeralContainer, PodStatus};
use quorate_agent::RuntimeChoice;
use serde_json::{Value, json};

use crate::harness::{IMAGE, Node1, eventually, is_ready};
use crate::streams::{V5, finish, open};

fn debugger(name: &str, script: &str, more: Value) -> EphemeralContainer {
    let mut container = more;
    container["name"] = json!(name);
    container["image"] = json!(IMAGE);
    container["imagePullPolicy"] = json!("Never");
    container["command"] = json!(["sh", "-c", script]);
    serde_json::from_value(container).expect("a container")
}

fn of<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    status.ephemeral_container_statuses.iter().flatten().find(|status| status.name == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_containers_join_a_running_pod() {
    let Some(mut node) = Node1::start().await else { return };
    let pod = node.cluster.create("web", json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "4343"] }],
    }));
    let before = node.cluster.wait(&pod, "the pod becomes ready", is_ready).await;

    node.cluster.change(&pod, |pod| {
        pod.spec.as_mut().expect("a spec").ephemeral_containers = Some(vec![
            debugger("sees", "ps; exec sleep 3600", json!({ "targetContainerName": "main" })),
            debugger("alone", "ps; exit 3", json!({})),
            debugger("refused", "true", json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }] })),
        ]);
    });
    let runs = |status: &PodStatus, name: &str| of(status, name)?.state.as_ref()?.running.clone().map(|_| ());
    let ended = |status: &PodStatus, name: &str| Some(of(status, name)?.state.as_ref()?.terminated.as_ref()?.exit_code);
    let waits = |status: &PodStatus, name: &str| of(status, name)?.state.as_ref()?.waiting.clone();
    let status = node
        .cluster
        .wait(&pod, "the containers run and end", |status| {
            runs(status, "sees").is_some()
                && ended(status, "alone") == Some(3)
                && waits(status, "refused")
                    .is_some_and(|waiting| waiting.reason.as_deref() == Some("CreateContainerConfigError"))
        })
        .await;
    assert_eq!((is_ready(&status), status.phase.as_deref()), (true, Some("Running")));
    assert_eq!(status.container_statuses, before.container_statuses, "the pod's own container is not touched");

    eventually("it sees the processes of its target", async || {
        let log = node.log("web", "sees", "").await;
        if log.contains("sleep 4343") { Ok(()) } else { Err(log) }
    })
    .await;
    let log = node.log("web", "alone", "").await;
    assert!(log.contains("PID") && !log.contains("sleep 4343"), "it sees only its own processes: {log}");
    let exec = "/exec/default/web/sees?stdout=true&stderr=true&command=cat&command=/proc/1/cmdline";
    let (out, err, _) = finish(open(&node, exec, V5).await).await;
    assert_eq!((out.as_str(), err.as_str()), ("sleep\x004343\0", ""));

    node.stop_agent().await;
    node.start_agent(RuntimeChoice::Docker { endpoint: None });
    node.cluster.change(&pod, |pod| {
        let list = pod.spec.as_mut().and_then(|spec| spec.ephemeral_containers.as_mut()).expect("a list");
        list.push(debugger("late", "exec sleep 3600", json!({})));
    });
    let after = node.cluster.wait(&pod, "a new agent adds one", |status| runs(status, "late").is_some()).await;
    let id = |status: &PodStatus| of(status, "sees").and_then(|status| status.container_id.clone());
    assert_eq!(id(&after), id(&status), "a new agent finds the container again");
    assert_eq!(ended(&after, "alone"), Some(3), "an ended container is not started again");
    node.finish(&[&pod]).await;
}
