use serde_json::{Value, json};

use crate::Deletion;
use crate::kinds::tests::{cells, created, errors_of, strategy, update_errors};

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
    })
}

fn with(mut object: Value, patch: &Value) -> Value {
    quorate_api::patch::merge::apply(&mut object, patch);
    object
}

fn container(container: &Value) -> Value {
    let mut whole = json!({"name": "c", "image": "i:1"});
    quorate_api::patch::merge::apply(&mut whole, container);
    with(pod(), &json!({"spec": {"containers": [whole]}}))
}

#[test]
fn a_pod_is_filled_in() {
    let given = json!({
        "metadata": {"name": "web"},
        "spec": {
            "serviceAccountName": "robot",
            "containers": [{
                "name": "c", "image": "registry:5000/web",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0.1"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "lifecycle": {"preStop": {"httpGet": {"port": "http"}}},
            }],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "m"}}, {"name": "c", "hostPath": {"path": "/x"}}],
        },
        "status": {"phase": "Running", "podIP": "6.6.6.6"},
    });
    assert_eq!(
        created("Pod", &given),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "generation": 1},
            "spec": {
                "serviceAccountName": "robot", "serviceAccount": "robot",
                "containers": [{
                    "name": "c", "image": "registry:5000/web", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
                    "livenessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                    },
                    "lifecycle": {"preStop": {"httpGet": {"port": "http", "path": "/", "scheme": "HTTP"}}},
                }],
                "volumes": [
                    {"name": "a", "emptyDir": {}},
                    {"name": "b", "configMap": {"name": "m", "defaultMode": 420}},
                    {"name": "c", "hostPath": {"path": "/x", "type": ""}},
                ],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        })
    );
}

#[test]
fn containers_are_checked() {
    for (part, expected) in [
        (json!({}), vec![]),
        (json!({"image": ""}), vec!["spec.containers[0].image: Required value"]),
        (json!({"name": ""}), vec!["spec.containers[0].name: Required value"]),
        (
            json!({"securityContext": {"runAsUser": -1, "procMount": "Half", "privileged": true, "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["CAP_SYS_ADMIN"]}}}),
            vec![
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.containers[0].securityContext.procMount: Unsupported value: \"Half\": supported values: \"Default\", \"Unmasked\"",
                "spec.containers[0].securityContext.allowPrivilegeEscalation: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                "spec.containers[0].securityContext.allowPrivilegeEscalation: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ],
        ),
        (
            json!({"imagePullPolicy": "Sometimes"}),
            vec![
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ],
        ),
        (
            json!({"ports": [{"containerPort": 70000}, {"name": "UPPER", "containerPort": 1}]}),
            vec![
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[1].name: Invalid value: \"UPPER\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "spec.containers[0].ports[1].name: Invalid value: \"UPPER\": must contain at least one letter (a-z)",
            ],
        ),
        (
            json!({"env": [{"name": "A=B"}, {"name": ""}, {"name": "C", "valueFrom": {}}]}),
            vec![
                "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                "spec.containers[0].env[1].name: Required value",
                "spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ],
        ),
        (
            json!({"volumeMounts": [{"name": "missing", "mountPath": "/x"}]}),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"missing\""],
        ),
        (
            json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            json!({"resources": {"limits": {"memory": "lots"}}}),
            vec![
                "spec.containers[0].resources.limits[memory]: Invalid value: \"lots\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                "spec.containers[0].resources.requests[memory]: Invalid value: \"lots\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ],
        ),
        (
            json!({"livenessProbe": {"periodSeconds": -1, "successThreshold": 2}}),
            vec![
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
    ] {
        assert_eq!(errors_of("Pod", &container(&part)), expected, "{part}");
    }
}

#[test]
fn pods_are_checked() {
    for (spec, expected) in [
        (json!({"containers": []}), vec!["spec.containers: Required value"]),
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
            vec!["spec.containers[1].name: Duplicate value: \"a\""],
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/a/../b"}}, {"name": "v", "secret": {}}]}),
            vec![
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "spec.volumes[1].name: Duplicate value: \"v\"",
                "spec.volumes[1].secret.secretName: Required value",
            ],
        ),
        (
            json!({"terminationGracePeriodSeconds": -1, "restartPolicy": "Maybe"}),
            vec![
                "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\"",
                "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            json!({"tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "tolerationSeconds": 1, "effect": "NoSchedule"}]}),
            vec![
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "spec.tolerations[1].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            ],
        ),
        (
            json!({"os": {"name": "plan9"}, "securityContext": {"fsGroup": -1, "supplementalGroups": [1, -2]},
                "ephemeralContainers": [{"name": "e", "image": "x"}]}),
            vec![
                "spec.os.name: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"",
                "spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.securityContext.supplementalGroups[1]: Invalid value: -2: must be between 0 and 2147483647, inclusive",
                "spec.ephemeralContainers: Forbidden: cannot be set on create",
            ],
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "x", "livenessProbe": {"tcpSocket": {"port": 1}}}]}),
            vec![
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ],
        ),
    ] {
        assert_eq!(errors_of("Pod", &with(pod(), &json!({ "spec": spec }))), expected, "{spec}");
    }
}

#[test]
fn a_running_pod_hardly_changes() {
    let update = |spec: Value| update_errors("Pod", &pod(), &json!({ "spec": spec }));
    assert_eq!(
        update(json!({"containers": [{"name": "c", "image": "nginx:2", "imagePullPolicy": "IfNotPresent"}]})),
        Vec::<String>::new()
    );
    assert_eq!(
        update(json!({"activeDeadlineSeconds": 5, "tolerations": [{"operator": "Exists"}]})),
        Vec::<String>::new()
    );
    let errors = update(
        json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i", "command": ["x"], "imagePullPolicy": "IfNotPresent"}]}),
    );
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`")
    );
    assert!(errors[0].ends_with("changed: spec.containers[0].command, spec.nodeName"), "{}", errors[0]);
    assert_eq!(
        update(json!({"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]})),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let tolerant = with(
        pod(),
        &json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 5}}),
    );
    assert_eq!(
        update_errors("Pod", &tolerant, &json!({"spec": {"tolerations": [], "activeDeadlineSeconds": 6}})),
        [
            "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value 5",
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ]
    );
}

#[test]
fn a_status_keeps_the_class() {
    let strategy = strategy("Pod");
    let old = created("Pod", &pod());
    let mut new =
        with(old.clone(), &json!({"status": {"phase": "Running", "qosClass": null}, "spec": {"nodeName": "x"}}));
    strategy.prepare_status_update(&mut new, &old);
    assert_eq!(new["status"], json!({"phase": "Running", "qosClass": "BestEffort"}));
    assert_eq!(new["spec"], old["spec"]);
}

#[test]
fn deletion_waits_only_for_what_runs() {
    let strategy = strategy("Pod");
    let unscheduled = created("Pod", &pod());
    let running = with(unscheduled.clone(), &json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}));
    let done = with(running.clone(), &json!({"status": {"phase": "Succeeded"}}));
    assert_eq!(strategy.deletion(&unscheduled, None), Deletion::Immediate);
    assert_eq!(strategy.deletion(&done, Some(60)), Deletion::Immediate);
    assert_eq!(strategy.deletion(&running, None), Deletion::Graceful { seconds: 30 });
    assert_eq!(strategy.deletion(&running, Some(5)), Deletion::Graceful { seconds: 5 });
    assert_eq!(strategy.deletion(&running, Some(0)), Deletion::Immediate);
    assert_eq!(strategy.deletion(&running, Some(-1)), Deletion::Graceful { seconds: 1 });
}

/// Ready, status and restarts of a pod with this status.
fn shown(patch: &Value) -> [String; 3] {
    let cells = cells("Pod", &with(created("Pod", &pod()), patch));
    [cells[1].clone(), cells[2].clone(), cells[3].clone()]
}

#[test]
fn the_status_word_is_kubectls() {
    let running = json!({"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let waiting = |reason: &str| json!({"name": "c", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}});
    let ended = |code: i64, reason: &str| json!({"name": "c", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}});
    let inits = json!([{"name": "i"}, {"name": "j"}]);
    for (patch, expected) in [
        (json!({}), ["0/1", "Pending", "0"]),
        (json!({"status": {"phase": "Running", "containerStatuses": [running]}}), ["1/1", "Running", "0"]),
        (
            json!({"status": {"phase": "Pending", "containerStatuses": [waiting("ErrImageNeverPull")]}}),
            ["0/1", "ErrImageNeverPull", "0"],
        ),
        (
            json!({"status": {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}}),
            ["0/1", "Completed", "0"],
        ),
        (json!({"status": {"phase": "Failed", "containerStatuses": [ended(3, "")]}}), ["0/1", "ExitCode:3", "0"]),
        (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), ["0/1", "Evicted", "0"]),
        (
            json!({"status": {"phase": "Running", "containerStatuses": [running, ended(0, "Completed")]}}),
            ["1/1", "NotReady", "0"],
        ),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:10:00Z"}, "status": {"phase": "Running", "containerStatuses": [running]}}),
            ["1/1", "Terminating", "0"],
        ),
        (
            json!({"spec": {"initContainers": inits}, "status": {"initContainerStatuses": [ended(0, "Completed"), {"name": "j", "restartCount": 0, "state": {"running": {}}}]}}),
            ["0/1", "Init:1/2", "0"],
        ),
        (
            json!({"spec": {"initContainers": inits}, "status": {"initContainerStatuses": [waiting("CrashLoopBackOff")]}}),
            ["0/1", "Init:CrashLoopBackOff", "0"],
        ),
        (
            json!({"spec": {"initContainers": inits}, "status": {"initContainerStatuses": [ended(1, "Error")]}}),
            ["0/1", "Init:Error", "0"],
        ),
        (
            json!({"status": {"phase": "Running", "containerStatuses": [{
                "name": "c", "ready": false, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:57:00Z"}},
            }]}}),
            ["0/1", "CrashLoopBackOff", "2 (3m ago)"],
        ),
        (
            json!({"spec": {"schedulingGates": [{"name": "g"}]}, "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}),
            ["0/1", "SchedulingGated", "0"],
        ),
    ] {
        assert_eq!(shown(&patch), expected.map(str::to_owned), "{patch}");
    }
}

#[test]
fn the_wide_columns() {
    let object = with(
        created("Pod", &pod()),
        &json!({
            "spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "a", "status": "True"}]},
        }),
    );
    assert_eq!(cells("Pod", &object)[4..], ["60m", "10.0.0.1", "n1", "<none>", "1/2"]);
    let fields = strategy("Pod").selectable_fields(&object);
    assert!(
        fields.contains(&("spec.nodeName", "n1".to_owned()))
            && fields.contains(&("status.podIP", "10.0.0.1".to_owned()))
    );
}
