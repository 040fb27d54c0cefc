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
fn a_pod_gets_its_defaults() {
    let given = json!({
        "metadata": {"name": "web"},
        "spec": {
            "serviceAccountName": "robot",
            "containers": [{
                "name": "c", "image": "registry:5000/web",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "1500u"}},
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
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "2m", "memory": "1Gi"}},
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
fn a_bound_pod_changes_only_in_few_fields() {
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
fn every_volume_source_is_checked() {
    for (source, expected) in [
        (
            json!({"nfs": {}}),
            vec![
                "nfs.server: Required value",
                "nfs.path: Required value",
                "nfs.path: Invalid value: \"\": must be an absolute path",
            ],
        ),
        (
            json!({"hostPath": {"path": "/a/../b"}}),
            vec!["hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
        ),
        (
            json!({"gitRepo": {"directory": "/x"}}),
            vec![
                "gitRepo.repository: Required value",
                "gitRepo.directory: Invalid value: \"/x\": must be a relative path",
            ],
        ),
        (
            json!({"gcePersistentDisk": {"partition": 300}}),
            vec![
                "gcePersistentDisk.pdName: Required value",
                "gcePersistentDisk.partition: Invalid value: 300: must be between 1 and 255, inclusive",
            ],
        ),
        (json!({"awsElasticBlockStore": {}}), vec!["awsElasticBlockStore.volumeID: Required value"]),
        (
            json!({"iscsi": {"lun": 256, "chapAuthSession": true}}),
            vec![
                "iscsi.targetPortal: Required value",
                "iscsi.iqn: Required value",
                "iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                "iscsi.secretRef: Required value",
            ],
        ),
        (
            json!({"iscsi": {"targetPortal": "p", "lun": 0, "iqn": "iqn.2026"}}),
            vec!["iscsi.iqn: Invalid value: \"iqn.2026\": must be valid format"],
        ),
        (json!({"iscsi": {"targetPortal": "p", "lun": 0, "iqn": "iqn.2026-01.com.example:disk"}}), vec![]),
        (json!({"glusterfs": {}}), vec!["glusterfs.endpoints: Required value", "glusterfs.path: Required value"]),
        (json!({"flocker": {}}), vec!["flocker: Required value: one of datasetName and datasetUUID is required"]),
        (json!({"persistentVolumeClaim": {}}), vec!["persistentVolumeClaim.claimName: Required value"]),
        (json!({"rbd": {}}), vec!["rbd.monitors: Required value", "rbd.image: Required value"]),
        (
            json!({"cinder": {"secretRef": {}}}),
            vec!["cinder.volumeID: Required value", "cinder.secretRef.name: Required value"],
        ),
        (json!({"cephfs": {}}), vec!["cephfs.monitors: Required value"]),
        (
            json!({"quobyte": {"registry": "a:1,b"}}),
            vec![
                "quobyte.registry: Invalid value: \"a:1,b\": must be a host:port pair or multiple pairs separated by commas",
                "quobyte.volume: Required value",
            ],
        ),
        (
            json!({"fc": {}}),
            vec!["fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"],
        ),
        (
            json!({"fc": {"targetWWNs": ["w"]}}),
            vec!["fc.lun: Required value: lun is required if targetWWNs is specified"],
        ),
        (
            json!({"flexVolume": {"options": {"kubernetes.io/x": "y"}}}),
            vec![
                "flexVolume.driver: Required value",
                "flexVolume.options[kubernetes.io/x]: Invalid value: \"kubernetes.io/x\": kubernetes.io and k8s.io namespaces are reserved",
            ],
        ),
        (json!({"azureFile": {}}), vec!["azureFile.secretName: Required value", "azureFile.shareName: Required value"]),
        (
            json!({"azureDisk": {"diskName": "d", "diskURI": "u"}}),
            vec![
                "azureDisk.diskURI: Unsupported value: \"u\": supported values: \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
            ],
        ),
        (json!({"vsphereVolume": {}}), vec!["vsphereVolume.volumePath: Required value"]),
        (json!({"photonPersistentDisk": {}}), vec!["photonPersistentDisk.pdID: Required value"]),
        (json!({"portworxVolume": {}}), vec!["portworxVolume.volumeID: Required value"]),
        (json!({"storageos": {}}), vec!["storageos.volumeName: Required value"]),
        (
            json!({"scaleIO": {"secretRef": {}}}),
            vec![
                "scaleIO.gateway: Required value",
                "scaleIO.system: Required value",
                "scaleIO.volumeName: Required value",
            ],
        ),
        (json!({"csi": {"driver": "example.com"}}), vec![]),
        (json!({"image": {}}), vec!["image.reference: Required value"]),
        (json!({"ephemeral": {}}), vec!["ephemeral.volumeClaimTemplate: Required value"]),
        (
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}),
            vec![
                "ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
                "ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
            ],
        ),
        (
            json!({"downwardAPI": {"items": [{"path": "a"}, {"path": "../b", "fieldRef": {"fieldPath": "status.podIP"}}]}}),
            vec![
                "downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
                "downwardAPI.path: Invalid value: \"../b\": must not contain '..'",
                "downwardAPI.fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
            ],
        ),
        (
            json!({"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.labels['app']"}}, {"path": "b", "resourceFieldRef": {"resource": "limits.cpu", "containerName": "c", "divisor": "2"}}]}}),
            vec![
                "downwardAPI.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ],
        ),
        (
            json!({"projected": {"sources": [
                {"secret": {"name": "s", "items": [{"key": "k", "path": "same"}]}},
                {"configMap": {"items": [{"key": "k", "path": "same"}]}, "serviceAccountToken": {"path": "t", "expirationSeconds": 60}},
                {"clusterTrustBundle": {"path": "c"}},
            ]}}),
            vec![
                "projected: Invalid value: \"\": conflicting duplicate paths",
                "projected.sources[1].configMap.name: Required value",
                "projected.sources[1].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
                "projected.sources[1]: Forbidden: may not specify more than 1 volume type per source",
                "projected.sources[2].clusterTrustBundle: Required value: either name or signerName must be specified",
            ],
        ),
        (
            json!({"nfs": {"server": "s", "path": "/"}, "rbd": {}}),
            vec!["rbd: Forbidden: may not specify more than 1 volume type"],
        ),
    ] {
        let mut volume = source.clone();
        volume["name"] = json!("v");
        let mut errors = errors_of("Pod", &with(pod(), &json!({"spec": {"volumes": [volume]}})));
        let mut expected: Vec<String> = expected.iter().map(|error| format!("spec.volumes[0].{error}")).collect();
        errors.sort();
        expected.sort();
        assert_eq!(errors, expected, "{source}");
    }
}

#[test]
fn claims_of_ephemeral_volumes_are_not_shared() {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let volumes = json!([
        {"name": "v", "ephemeral": {"volumeClaimTemplate": template}},
        {"name": "w", "persistentVolumeClaim": {"claimName": "web-v"}},
    ]);
    assert_eq!(
        errors_of("Pod", &with(pod(), &json!({"spec": {"volumes": volumes}}))),
        [
            "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"web-v\": must not reference a PVC that gets created for an ephemeral volume"
        ]
    );
}

#[test]
fn placement_of_a_gated_pod_may_only_be_narrowed() {
    let gates = json!([{"name": "example.com/a"}, {"name": "example.com/b"}]);
    let nodes = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let disk = json!({"key": "disk", "operator": "In", "values": ["ssd"]});
    let zone = json!({"key": "zone", "operator": "Exists"});
    let gated = with(pod(), &json!({"spec": {"schedulingGates": gates}}));
    let spec = |spec: &Value| with(gated.clone(), &json!({ "spec": spec }));
    let selected = spec(&json!({"nodeSelector": {"disk": "ssd"}}));
    let bound = spec(&json!({"affinity": nodes(json!([{"matchExpressions": [disk]}]))}));
    let terms = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let only_selectors = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
    for (old, changes, expected) in [
        (&selected, json!({"nodeSelector": {"zone": "a"}}), vec![]),
        (
            &selected,
            json!({"nodeSelector": {"disk": "hdd"}}),
            vec![format!("spec.nodeSelector: Invalid value: {{\"disk\":\"hdd\"}}: {only_selectors}")],
        ),
        (
            &selected,
            json!({"nodeSelector": null}),
            vec![format!("spec.nodeSelector: Invalid value: {{}}: {only_selectors}")],
        ),
        (&selected, json!({"affinity": nodes(json!([{"matchExpressions": [disk]}]))}), vec![]),
        (&bound, json!({"affinity": nodes(json!([{"matchExpressions": [disk, zone]}]))}), vec![]),
        (
            &bound,
            json!({"affinity": nodes(json!([{"matchExpressions": [zone]}]))}),
            vec![format!("{terms}[0]: Invalid value: {{\"matchExpressions\":[{zone}]}}: only additions are allowed (no mutations or deletions)")],
        ),
        (
            &bound,
            json!({"affinity": null}),
            vec![format!("{terms}: Invalid value: []: no additions/deletions to non-empty NodeSelectorTerms list are allowed")],
        ),
        (&bound, json!({"schedulingGates": [{"name": "example.com/a"}]}), vec![]),
        (
            &bound,
            json!({"schedulingGates": [{"name": "example.com/c"}]}),
            vec!["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'example.com/c'".to_owned()],
        ),
    ] {
        assert_eq!(update_errors("Pod", old, &json!({"spec": changes})), expected, "{changes}");
    }
    let repelling = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone"}]}}});
    let errors = update_errors("Pod", &selected, &json!({"spec": repelling}));
    assert!(errors.len() == 1 && errors[0].ends_with("changed: spec.affinity"), "{errors:?}");
    let assigned = with(selected, &json!({"spec": {"nodeName": "n1"}}));
    assert_eq!(
        errors_of("Pod", &assigned),
        ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"]
    );
}

#[test]
fn a_status_write_may_change_metadata_but_not_owners() {
    let strategy = strategy("Pod");
    let old = created("Pod", &pod());
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]);
    let changes = json!({
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "generation": 9, "ownerReferences": owner},
        "status": {"phase": "Running"},
    });
    let mut new = with(old.clone(), &changes);
    strategy.prepare_status_update(&mut new, &old);
    assert_eq!(new["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(new["metadata"]["annotations"], json!({"c": "d"}));
    assert_eq!(new["metadata"]["generation"], old["metadata"]["generation"]);
    assert_eq!(new["metadata"].get("ownerReferences"), None, "a node cannot break garbage collection");
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
fn only_running_pods_are_deleted_gracefully() {
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

/// Returns the ready, status and restarts cells of a pod with this status.
fn shown(patch: &Value) -> [String; 3] {
    let cells = cells("Pod", &with(created("Pod", &pod()), patch));
    [cells[1].clone(), cells[2].clone(), cells[3].clone()]
}

#[test]
fn the_status_word_matches_kubectl() {
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
fn wide_columns_are_filled() {
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
