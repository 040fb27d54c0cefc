use serde_json::json;

use super::*;

fn now() -> Timestamp {
    parse_time("2026-01-01T00:10:00Z").expect("a time")
}

fn with_events() -> Related {
    Related {
        show_events: true,
        events: vec![json!({"type": "Normal", "reason": "Scheduled", "message": "assigned", "count": 1,
            "lastTimestamp": "2026-01-01T00:09:30Z", "source": {"component": "default-scheduler", "host": "n1"}})],
        ..Related::default()
    }
}

#[test]
fn a_pod_is_described_like_in_kubectl() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web", "hash": "x"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}]},
        "spec": {"nodeName": "n1", "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}], "args": ["-v"],
                "env": [{"name": "A", "value": "b"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "1"}},
                "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}],
            "startTime": "2026-01-01T00:00:00Z", "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "containerID": "docker://1", "imageID": "sha", "ready": true, "restartCount": 2,
                "state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}}}]},
    });
    let expected = "\
Name:             web-1
Namespace:        default
Service Account:  default
Node:             n1/10.0.0.1
Start Time:       Thu, 01 Jan 2026 00:00:00 +0000
Labels:           app=web
                  hash=x
Annotations:      <none>
Status:           Running
IP:               10.1.0.2
IPs:
  IP:           10.1.0.2
Controlled By:  ReplicaSet/web
Containers:
  c:
    Container ID:  docker://1
    Image:         nginx
    Image ID:      sha
    Port:          80/TCP
    Host Port:     0/TCP
    Args:
      -v
    State:          Running
      Started:      Thu, 01 Jan 2026 00:00:05 +0000
    Ready:          True
    Restart Count:  2
    Limits:
      cpu:  1
    Environment:
      A:  b
      N:  web-1 (v1:metadata.name)
    Mounts:
      /data from v (rw)
Conditions:
  Type    Status
  Ready   True 
Volumes:
  v:
    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
    Medium:      
    SizeLimit:   <unset>
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     node.kubernetes.io/not-ready:NoExecute op=Exists for 300s
Events:
  Type    Reason     Age   From               Message
  ----    ------     ----  ----               -------
  Normal  Scheduled  30s   default-scheduler  assigned
";
    assert_eq!(describe(&pod, &with_events(), now()), expected);
}

#[test]
fn a_deployment_shows_its_template_and_replica_sets() {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"deployment.kubernetes.io/revision": "2", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 2, "unavailableReplicas": 1,
            "conditions": [{"type": "Available", "status": "True", "reason": "Enough"}]},
    });
    let set = |name: &str, revision: &str, replicas: u32| {
        json!({"metadata": {"name": name, "ownerReferences": [{"uid": "u"}],
            "annotations": {"deployment.kubernetes.io/revision": revision}}, "spec": {"replicas": replicas}, "status": {"replicas": replicas}})
    };
    let related = Related { replica_sets: vec![set("web-a", "1", 0), set("web-b", "2", 3)], ..Related::default() };
    let text = describe(&deployment, &related, now());
    for expected in [
        "Replicas:               3 desired | 3 updated | 3 total | 2 available | 1 unavailable\n",
        "Annotations:            deployment.kubernetes.io/revision: 2\n",
        "RollingUpdateStrategy:  25% max unavailable, 1 max surge\n",
        "   c:\n    Image:         i\n",
        "OldReplicaSets:  web-a (0/0 replicas created)\n",
        "NewReplicaSet:   web-b (3/3 replicas created)\n",
    ] {
        assert!(text.contains(expected), "{expected}\nin\n{text}");
    }
    assert!(!text.contains("last-applied"), "{text}");
}

#[test]
fn a_node_shows_the_sum_of_its_pods_requests() {
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": ""}},
        "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
    let pod = |cpu: &str| {
        json!({"metadata": {"name": "p", "namespace": "d", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"resources": {"requests": {"cpu": cpu, "memory": "256Mi"}}}]}, "status": {"phase": "Running"}})
    };
    let related = Related { pods: vec![pod("250m"), pod("750m")], ..Related::default() };
    let text = describe(&node, &related, now());
    assert!(text.contains("Roles:              worker\n"), "{text}");
    assert!(text.contains("Taints:             k=v:NoSchedule\n"), "{text}");
    assert!(text.contains("  cpu                1 (50%)      0 (0%)\n"), "{text}");
    assert!(text.contains("  memory             512Mi (50%)  0 (0%)\n"), "{text}");
}

#[test]
fn values_of_secrets_are_hidden_and_unknown_kinds_show_all_fields() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {"k": "YWJj"}});
    let text = describe(&secret, &Related::default(), now());
    assert!(text.contains("k:  3 bytes\n") && !text.contains("YWJj"), "{text}");

    let widget = json!({"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "w", "creationTimestamp": "t"},
        "spec": {"maxSize": 3, "parts": [{"id": "a"}], "tags": ["x"]}});
    let text = describe(&widget, &Related::default(), now());
    for expected in
        ["Kind:         Widget\n", "  Creation Timestamp:  t\n", "  Max Size:  3\n", "    Id:  a\n", "    x\n"]
    {
        assert!(text.contains(expected), "{expected}\nin\n{text}");
    }
}
