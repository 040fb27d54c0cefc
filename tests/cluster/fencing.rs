//! Fencing while an agent hangs and its containers run on: a pod with a fence is stopped and moves to another node; a
//! pod without one waits for its node.

use harness::{Cluster, Container, Runtime, Spec, containers, eventually};

use crate::demo_path::TEST_IMAGE;

fn pod(name: &str, node: &str, annotations: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, annotations: {{{annotations}}}}}, spec: {{nodeName: {node},
            terminationGracePeriodSeconds: 1, containers: [{{name: main, image: {TEST_IMAGE}, imagePullPolicy: Never,
            command: [sleep, '3600']}}]}}}}"
    )
}

/// Returns the running container of the pod, whatever its uid; panics if there are two.
fn running(cluster: &Cluster, pod: &str) -> Option<Container> {
    let mut found = containers(&cluster.name()).into_iter().filter(|container| container.pod == pod);
    let first = found.next();
    let second = found.next();
    assert!(second.is_none(), "the pod runs twice: {first:?} and {second:?}");
    first
}

#[test]
fn a_fenced_pod_never_runs_twice_although_its_agent_hangs() {
    let flags = vec!["--node-monitor-grace", "6s", "--eviction-after", "2s", "--heartbeat-interval", "1s"];
    let cluster = Cluster::start(Spec { masters: 1, workers: 2, runtime: Runtime::Docker, flags });
    let fence = "'quorate.io/fence-after': 10s";
    cluster.qctl(&["apply", "-f", "-"], &pod("fenced", "worker-1", fence)).ok();
    cluster.qctl(&["apply", "-f", "-"], &pod("free", "worker-1", "")).ok();
    let start = |name: &str| eventually("the pod to run", || running(&cluster, name).ok_or(name.to_owned()));
    let (fenced, free) = (start("fenced"), start("free"));

    cluster.freeze("worker-1");
    eventually("the fenced pod to be removed", || {
        running(&cluster, "fenced");
        let pod = cluster.qctl(&["get", "pod", "fenced", "-o", "json"], "");
        if pod.success { Err(pod.stdout) } else { Ok(()) }
    });
    assert_eq!(running(&cluster, "fenced"), None, "the pod is removed only after its container was stopped");

    // The pod without a fence is terminating, and stays because its container still runs.
    let deleted = ["get", "pod", "free", "-o", "jsonpath={.metadata.deletionTimestamp}"];
    eventually("the pod without a fence to be evicted", || match cluster.qctl(&deleted, "").ok() {
        at if at.trim().is_empty() => Err(at),
        at => Ok(at),
    });
    assert_eq!(running(&cluster, "free"), Some(free));

    // The name is free, so a new pod of that name starts on another node before the agent continues.
    cluster.qctl(&["apply", "-f", "-"], &pod("fenced", "worker-2", fence)).ok();
    let moved = start("fenced");
    assert_ne!(moved.pod_uid, fenced.pod_uid);
    cluster.thaw("worker-1");
    eventually("the agent to stop the pod that was deleted meanwhile", || {
        assert_eq!(running(&cluster, "fenced").as_ref(), Some(&moved));
        let pod = cluster.qctl(&["get", "pod", "free"], "");
        if pod.success || running(&cluster, "free").is_some() { Err(pod.stdout) } else { Ok(()) }
    });
    cluster.qctl(&["delete", "pod", "fenced"], "").ok();
    eventually("nothing to run", || running(&cluster, "fenced").map_or(Ok(()), Err));
}
