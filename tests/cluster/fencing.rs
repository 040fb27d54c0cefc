//! An agent hangs while its containers go on: a pod with a fence is stopped all the same, and runs elsewhere; a pod
//! without one waits for its node.

use harness::{Cluster, Container, Runtime, Spec, containers, eventually};

use crate::demo_path::TEST_IMAGE;

fn pod(name: &str, node: &str, annotations: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, annotations: {{{annotations}}}}}, spec: {{nodeName: {node},
            terminationGracePeriodSeconds: 1, containers: [{{name: main, image: {TEST_IMAGE}, imagePullPolicy: Never,
            command: [sleep, '3600']}}]}}}}"
    )
}

/// The running containers of the pod, under whatever uid; never more than one.
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
    assert_eq!(running(&cluster, "fenced"), None, "it is removed only once it has been stopped");

    // The other one is on its way out, and stays, since it still runs.
    let deleted = ["get", "pod", "free", "-o", "jsonpath={.metadata.deletionTimestamp}"];
    eventually("the pod without a fence to be evicted", || match cluster.qctl(&deleted, "").ok() {
        at if at.trim().is_empty() => Err(at),
        at => Ok(at),
    });
    assert_eq!(running(&cluster, "free"), Some(free));

    // The name is free, and its next owner starts elsewhere while the agent comes back to its senses.
    cluster.qctl(&["apply", "-f", "-"], &pod("fenced", "worker-2", fence)).ok();
    let moved = start("fenced");
    assert_ne!(moved.pod_uid, fenced.pod_uid);
    cluster.thaw("worker-1");
    eventually("the agent to end what it was told to end meanwhile", || {
        assert_eq!(running(&cluster, "fenced").as_ref(), Some(&moved));
        let pod = cluster.qctl(&["get", "pod", "free"], "");
        if pod.success || running(&cluster, "free").is_some() { Err(pod.stdout) } else { Ok(()) }
    });
    cluster.qctl(&["delete", "pod", "fenced"], "").ok();
    eventually("nothing to run", || running(&cluster, "fenced").map_or(Ok(()), Err));
}
