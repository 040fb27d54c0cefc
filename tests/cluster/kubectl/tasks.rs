//! Common tasks with the unmodified `kubectl` on PATH.

use harness::{Cluster, Runtime, Spec, eventually, tag_image};

use crate::demo_path::{DEPLOYMENT_IMAGE, TEST_IMAGE, web};

#[test]
fn kubectl_deploys_inspects_scales_rolls_and_deletes() {
    tag_image(TEST_IMAGE, DEPLOYMENT_IMAGE);
    let cluster = Cluster::start(Spec { masters: 1, workers: 1, runtime: Runtime::Docker, flags: vec![] });

    let applied = cluster.kubectl(&["apply", "-f", "-"], &web(2)).ok();
    for line in ["configmap/web created", "secret/web created", "deployment.apps/web created"] {
        assert!(applied.contains(line), "{applied}");
    }
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"], "").ok();
    let again = cluster.kubectl(&["apply", "-f", "-"], &web(2)).ok();
    assert!(again.contains("deployment.apps/web unchanged"), "{again}");

    let pods = cluster.kubectl(&["get", "pods", "-o", "wide"], "").ok();
    assert!(pods.starts_with("NAME"), "{pods}");
    assert_eq!(pods.lines().filter(|line| line.contains("1/1") && line.contains("Running")).count(), 2, "{pods}");
    let deployments = cluster.kubectl(&["get", "deploy", "web"], "").ok();
    assert!(deployments.lines().nth(1).is_some_and(|line| line.contains("2/2")), "{deployments}");
    let described = cluster.kubectl(&["describe", "pods", "-l", "app=web"], "").ok();
    for part in ["Successfully assigned default/web-", "Started container", "Node:", "QoS Class:"] {
        assert!(described.contains(part), "{part} is missing in {described}");
    }
    let node = cluster.kubectl(&["describe", "node", "worker-1"], "").ok();
    assert!(node.contains("Allocatable:") && node.contains("default"), "{node}");

    // Probes of two replicas write a line to the log every second.
    eventually("a line in the log", || {
        let logs = cluster.kubectl(&["logs", "deployment/web", "--timestamps"], "").result()?;
        if logs.contains("response:200") {
            Ok(())
        } else {
            Err(harness::Output { success: true, stdout: logs, stderr: String::new() })
        }
    });

    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"], "").ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"], "").ok();
    let names = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"], "").ok();
    assert_eq!(names.lines().count(), 3, "{names}");

    cluster.kubectl(&["set", "env", "deployment/web", "COLOUR=green"], "").ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"], "").ok();
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"], "").ok();
    assert!(history.lines().any(|line| line.starts_with('2')), "{history}");
    cluster.kubectl(&["rollout", "undo", "deployment/web"], "").ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"], "").ok();
    let template =
        cluster.kubectl(&["get", "deployment/web", "-o", "jsonpath={.spec.template.spec.containers[0].env}"], "");
    assert!(!template.ok().contains("COLOUR"));

    cluster.kubectl(&["label", "deployment/web", "tier=front"], "").ok();
    cluster.kubectl(&["annotate", "deployment/web", "note=kept"], "").ok();
    cluster.kubectl(&["patch", "deployment", "web", "-p", r#"{"spec":{"minReadySeconds":1}}"#], "").ok();
    cluster.kubectl(&["cordon", "worker-1"], "").ok();
    let nodes = cluster.kubectl(&["get", "nodes"], "").ok();
    assert!(nodes.contains("SchedulingDisabled"), "{nodes}");
    cluster.kubectl(&["uncordon", "worker-1"], "").ok();

    let missing = cluster.kubectl(&["get", "pod", "nobody"], "");
    assert!(!missing.success);
    assert!(missing.stderr.contains("Error from server (NotFound): pods \"nobody\" not found"), "{}", missing.stderr);
    let invalid = web(2).replace("app: web\n  strategy", "app: other\n  strategy");
    let refused = cluster.kubectl(&["apply", "-f", "-"], &invalid);
    assert!(!refused.success && refused.stderr.contains("invalid"), "{refused:?}");

    cluster.kubectl(&["delete", "-f", "-", "--timeout=120s"], &web(2)).ok();
    eventually("the pods to be gone", || {
        let left = cluster.kubectl(&["get", "pods", "-o", "name"], "").ok();
        if left.is_empty() && harness::containers(&cluster.name()).is_empty() { Ok(()) } else { Err(left) }
    });
}
