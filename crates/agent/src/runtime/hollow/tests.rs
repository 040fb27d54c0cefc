use super::*;

fn pod(uid: &str) -> PodRef {
    PodRef { namespace: "default".to_owned(), name: format!("pod-{uid}"), uid: uid.to_owned() }
}

fn sandbox(pod: &PodRef) -> SandboxSpec {
    SandboxSpec {
        pod: pod.clone(),
        attempt: 0,
        hostname: String::new(),
        host_network: false,
        host_pid: false,
        host_ipc: false,
        shares_processes: false,
        ports: Vec::new(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        sysctls: std::collections::BTreeMap::new(),
    }
}

fn container(pod: &PodRef, sandbox_id: &str) -> ContainerSpec {
    ContainerSpec {
        pod: pod.clone(),
        name: "main".to_owned(),
        attempt: 0,
        sandbox_id: sandbox_id.to_owned(),
        runs_to_completion: false,
        image: "image".to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        limits: super::super::Limits::default(),
        security: super::super::Security::default(),
        host_pid: false,
        share_processes: false,
        process_target: None,
        message_file: None,
        message_path: String::new(),
        message_from_logs: false,
        stop_signal: None,
        stdin: false,
        stdin_once: false,
        tty: false,
    }
}

/// Starts a pod of one container and returns its state.
async fn start(runtime: &HollowRuntime, uid: &str) -> Observed {
    let pod = pod(uid);
    let seen = runtime.subscribe(uid);
    runtime.create_sandbox(&sandbox(&pod)).await.expect("it is made");
    let sandbox_id = seen.borrow().sandboxes[0].id.clone();
    runtime.start_sandbox(&pod, &sandbox_id).await.expect("it is started");
    runtime.create_container(&container(&pod, &sandbox_id)).await.expect("it is made");
    let id = seen.borrow().containers[0].id.clone();
    runtime.start_container(&pod, &id).await.expect("it is started");
    Observed::clone(&seen.borrow())
}

fn observed(runtime: &HollowRuntime, uid: &str) -> Observed {
    Observed::clone(&runtime.subscribe(uid).borrow())
}

fn starts(dir: &Path, uid: &str) -> usize {
    let file = std::fs::read(dir.join("pods").join(format!("{uid}.json"))).expect("its file");
    let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    file["starts"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn kept_containers_outlive_their_agent() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = HollowRuntime::kept("n", dir.path()).expect("a directory");
    let before = start(&first, "a").await;
    drop(first);
    let second = HollowRuntime::kept("n", dir.path()).expect("the directory");
    assert_eq!(second.known_pods(), [KnownPod { pod: pod("a"), may_run: true }]);
    assert_eq!(observed(&second, "a"), before);
    assert_eq!(starts(dir.path(), "a"), 1);
    let other = start(&second, "b").await;
    assert_ne!(other.sandboxes[0].ips, before.sandboxes[0].ips, "each pod has its own address");
    second.remove_pod(&pod("a")).await.expect("it is removed");
    drop(second);
    let third = HollowRuntime::kept("n", dir.path()).expect("the directory");
    assert_eq!(third.known_pods(), [KnownPod { pod: pod("b"), may_run: true }]);
}

#[tokio::test]
async fn a_kill_request_ends_a_kept_container() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let runtime = HollowRuntime::kept("n", dir.path()).expect("a directory");
    let id = start(&runtime, "a").await.containers[0].id.clone();
    for id in [&id, "unknown"] {
        std::fs::write(dir.path().join("kill").join(id), "").expect("a file");
    }
    runtime.relist().await.expect("kill requests are handled");
    let exit = observed(&runtime, "a").containers[0].exit().cloned().expect("it has ended");
    assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"));
    assert_eq!(std::fs::read_dir(dir.path().join("kill")).expect("the directory").count(), 0);
    drop(runtime);
    let next = HollowRuntime::kept("n", dir.path()).expect("the directory");
    assert_eq!(observed(&next, "a").containers[0].exit(), Some(&exit));
    // Both starts are counted, although they have one id.
    next.start_container(&pod("a"), &id).await.expect("it is started");
    assert_eq!(starts(dir.path(), "a"), 2);
}
