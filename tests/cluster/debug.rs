//! `kubectl debug` of a running pod, and its resize.

use harness::{Cluster, Lines, Runtime, Spec, eventually, kubectl_is_recent};
use serde_json::{Value, json};

use crate::demo_path::TEST_IMAGE;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    imagePullPolicy: Never
    command: [sleep, "4545"]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {memory: 32Mi}}
"#;

fn shown(cluster: &Cluster, path: &str) -> String {
    cluster.kubectl(&["get", "pod", "web", "-o", &format!("jsonpath={path}")], "").ok()
}

#[test]
fn kubectl_debugs_and_resizes_a_running_pod() {
    if !kubectl_is_recent() {
        return;
    }
    let cluster = Cluster::start(Spec { masters: 3, workers: 1, runtime: Runtime::Docker, flags: vec![] });
    cluster.kubectl(&["apply", "-f", "-"], &POD.replace("IMAGE", TEST_IMAGE)).ok();
    cluster.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=120s"], "").ok();

    let image = format!("--image={TEST_IMAGE}");
    let debug = ["debug", "web", &image, "--image-pull-policy=Never", "--profile=general"];
    let mut shell = cluster.kubectl_command();
    let mut shell = Lines::start_with_input(shell.args(debug).args(["-i", "-c", "shell", "--target=main", "--", "sh"]));
    shell.write("echo begun; ps; echo done\n");
    shell.until("the target's process", |line| line.contains("sleep 4545"));
    shell.write("exit 7\n");
    eventually("the shell has ended", || {
        let path = "{.status.ephemeralContainerStatuses[?(@.name=='shell')].state.terminated.exitCode}";
        let code = shown(&cluster, path);
        if code == "7" { Ok(()) } else { Err(code) }
    });

    let script = ["-c", "once", "--", "sh", "-c", "echo from the debugger; sleep 3600"];
    cluster.kubectl(&[&debug[..], &script].concat(), "").ok();
    eventually("the second one's log", || {
        let log = cluster.kubectl(&["logs", "web", "-c", "once"], "").result().map_err(|output| output.stderr)?;
        if log == "from the debugger\n" { Ok(()) } else { Err(log) }
    });
    assert_eq!(cluster.kubectl(&["exec", "web", "-c", "once", "--", "echo", "here"], "").ok(), "here\n");
    assert_eq!(shown(&cluster, "{.status.containerStatuses[0].restartCount}"), "0");

    let path = "/api/v1/namespaces/default/pods/web";
    let pod = cluster.kubectl(&["get", "--raw", path], "").ok();
    let mut pod: Value = serde_json::from_str(&pod).expect("a pod");
    pod["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    pod["spec"]["containers"][0]["resources"] =
        json!({ "requests": { "cpu": "200m", "memory": "48Mi" }, "limits": { "memory": "48Mi" } });
    cluster.kubectl(&["replace", "--raw", &format!("{path}/resize"), "-f", "-"], &pod.to_string()).ok();
    eventually("the resize", || {
        let path = "{.status.containerStatuses[0].resources.requests.cpu} \
                    {.status.containerStatuses[0].resources.limits.memory} {.status.conditions[*].type}";
        let shown = shown(&cluster, path);
        if shown.starts_with("200m 48Mi ") && !shown.contains("Resize") { Ok(()) } else { Err(shown) }
    });
    assert_eq!(shown(&cluster, "{.status.containerStatuses[0].restartCount}"), "0");
    let limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
    let limit = cluster.kubectl(&["exec", "web", "-c", "main", "--", "sh", "-c", &format!("{limit}; true")], "").ok();
    assert_eq!(limit.trim(), (48 << 20).to_string());
    cluster.kubectl(&["delete", "pod", "web", "--timeout=60s"], "").ok();
}
