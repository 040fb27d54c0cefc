//! Commands about pods and their containers.

use std::fs;

use harness::{Lines, eventually};

use super::Kubectl;
use crate::demo_path::TEST_IMAGE;
use crate::streams::fetch;

/// A pod that serves a page and repeats its input, and one whose container has failed once.
fn pods() -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: stays, labels: {{app: stays}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {TEST_IMAGE}
    imagePullPolicy: Never
    stdin: true
    command: [sh, -c, 'mkdir /w; echo hello >/w/index.html; httpd -p 8080 -h /w; while read x; do echo got $x; done; exec sleep 3600']
  - name: side
    image: {TEST_IMAGE}
    imagePullPolicy: Never
    command: [sh, -c, 'echo from side; exec sleep 3600']
---
apiVersion: v1
kind: Pod
metadata: {{name: restarts}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {TEST_IMAGE}
    imagePullPolicy: Never
    volumeMounts: [{{name: kept, mountPath: /kept}}]
    command: [sh, -c, 'if [ -e /kept/once ]; then echo second; exec sleep 3600; fi; touch /kept/once; echo first; exit 3']
  volumes: [{{name: kept, emptyDir: {{}}}}]
"
    )
}

/// Returns the local port of a line of `port-forward`.
fn local_port(line: &str) -> u16 {
    let port = line.trim_start_matches("Forwarding from 127.0.0.1:").split(' ').next();
    port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {line}"))
}

pub fn containers_are_reached(kubectl: &Kubectl<'_>) {
    kubectl.given("create -f -", &pods());
    kubectl.says("wait pod/stays --for=condition=Ready --timeout=120s", "pod/stays condition met\n");
    kubectl.says("exec stays -- echo hello", "hello\n");
    assert_eq!(kubectl.given("exec -i stays -c side -- cat", "typed"), "typed");
    kubectl.fails("exec stays -- sh -c 'exit 5'", "exit code 5");
    kubectl.says("exec deployment/web -- echo hello", "hello\n");
    let mut attach = kubectl.command("attach -i stays -c main");
    let mut attached = Lines::start_with_input(&mut attach);
    attached.write("word\n");
    attached.until("the container's answer", |line| line == "got word");
    drop(attached);
    for target in ["pod/stays", "deployment/web", "service/web"] {
        let remote = if target == "service/web" { "80" } else { "8080" };
        let mut forward = Lines::start(&mut kubectl.command(&format!("port-forward {target} :{remote}")));
        let line = forward.until("a forwarded port", |line| line.starts_with("Forwarding from 127.0.0.1:"));
        if target == "pod/stays" {
            eventually("the page", || fetch(local_port(&line)).map_err(|error| error.to_string()));
        }
    }
    let (file, back) = (kubectl.cluster.dir().join("file"), kubectl.cluster.dir().join("back"));
    fs::write(&file, "copied\n").expect("the directory is ours");
    kubectl.says(&format!("cp {} stays:/tmp/file -c main", file.display()), "");
    kubectl.ok(&format!("cp stays:/tmp/file {} -c main", back.display()));
    assert_eq!(fs::read_to_string(&back).expect("the copy"), "copied\n");

    let image = format!("--image={TEST_IMAGE} --image-pull-policy=Never");
    kubectl.says(&format!("run runs {image} --restart=Never --command -- echo ran"), "pod/runs created\n");
    kubectl.says("wait pod/runs --for=jsonpath={.status.phase}=Succeeded --timeout=120s", "pod/runs condition met\n");
    kubectl.says("logs runs", "ran\n");
    let once = kubectl.given(&format!("run once {image} --restart=Never --rm -i --quiet -- cat"), "through\n");
    assert_eq!(once, "through\n");
    kubectl.says("wait pod/once --for=delete --timeout=60s", "");
    kubectl.shows("delete pod runs --grace-period=0 --force", &["pod \"runs\" force deleted"]);
    let mut created = Lines::start(&mut kubectl.command("wait cm/late --for=create --timeout=60s"));
    kubectl.says("create cm late", "configmap/late created\n");
    created.until("the object", |line| line == "configmap/late condition met");
    assert!(created.ended());
}

pub fn logs_are_printed(kubectl: &Kubectl<'_>) {
    kubectl.becomes("logs restarts", "second\n");
    kubectl.says("logs restarts --previous", "first\n");
    kubectl.says("logs stays -c main --tail=1", "got word\n");
    kubectl.says("logs stays -c side --since=1h --limit-bytes=4", "from");
    kubectl.shows("logs stays -c side --timestamps", &["20", "Z from side\n"]);
    kubectl.shows("logs -l app=stays --all-containers --prefix", &["[pod/stays/side] from side"]);
    kubectl.shows("logs stays --all-containers --since-time=2020-01-01T00:00:00Z", &["from side"]);
    kubectl.ok("logs deployment/web");
    let mut follow = Lines::start(&mut kubectl.command("logs -f stays -c main --tail=1"));
    follow.until("the last line", |line| line == "got word");
    kubectl.ok("exec stays -c main -- sh -c 'echo late >/proc/1/fd/1'");
    follow.until("a later line", |line| line == "late");
    kubectl.fails("logs stays -c nobody", "container nobody is not valid for pod stays");
}

pub fn pods_are_debugged(kubectl: &Kubectl<'_>) {
    let image = format!("--image={TEST_IMAGE} --image-pull-policy=Never");
    kubectl.ok(&format!("debug stays {image} -c seen --profile=general -- echo debugged"));
    kubectl.becomes("logs stays -c seen", "debugged\n");
    kubectl.ok(&format!("debug stays {image} --copy-to=copy -c main --same-node --profile=general -- sleep 3600"));
    kubectl.says("wait pod/copy --for=condition=Ready --timeout=120s", "pod/copy condition met\n");
    kubectl.says("get pod copy -o jsonpath={.spec.containers[0].command[0]}", "sleep");
    kubectl.ok("delete pod copy --now");
    let debugged = kubectl.ok(&format!("debug node/worker-1 {image} --profile=general -- sleep 3600"));
    assert!(debugged.contains("Creating debugging pod node-debugger-worker-1-"), "{debugged}");
}
