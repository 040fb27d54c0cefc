use serde_json::{Value, json};

use super::*;

const ALL: Capabilities = Capabilities { app_armor: true, se_linux: true, seccomp: true };
const NONE: Capabilities = Capabilities { app_armor: false, se_linux: false, seccomp: false };

/// Creates a pod with these fields in its spec, and the fields of `c` in its only container.
fn pod(spec: Value, c: Value) -> Pod {
    let mut container = json!({ "name": "c", "image": "i" });
    container.as_object_mut().expect("an object").extend(c.as_object().expect("an object").clone());
    let mut whole = json!({ "containers": [container] });
    whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
    let metadata = json!({ "name": "web", "namespace": "shop", "uid": "u1" });
    serde_json::from_value(json!({ "metadata": metadata, "spec": whole })).expect("a well-formed pod")
}

fn refusal(pod: &Pod, capabilities: Capabilities) -> Option<(String, String)> {
    let rejection = examine(pod, &capabilities).rejection?;
    Some((rejection.reason.to_owned(), rejection.message))
}

#[test]
fn ordinary_pods_are_admitted() {
    let spec = json!({
        "activeDeadlineSeconds": 60, "affinity": {}, "automountServiceAccountToken": true,
        "dnsConfig": { "nameservers": ["10.0.0.10"] }, "dnsPolicy": "ClusterFirst", "enableServiceLinks": true,
        "ephemeralContainers": [], "hostAliases": [{ "ip": "10.9.8.7", "hostnames": ["db"] }], "hostUsers": true,
        "hostname": "web-0", "subdomain": "web", "setHostnameAsFQDN": true, "imagePullSecrets": [{ "name": "registry" }],
        "os": { "name": "linux" }, "overhead": {}, "priority": 7, "readinessGates": [{ "conditionType": "x/y" }],
        "resources": {}, "restartPolicy": "Always", "runtimeClassName": "", "schedulerName": "default-scheduler",
        "serviceAccount": "default", "serviceAccountName": "default", "shareProcessNamespace": true,
        "securityContext": {
            "fsGroup": 1, "fsGroupChangePolicy": "OnRootMismatch", "runAsGroup": 1, "runAsNonRoot": true, "runAsUser": 1,
            "seLinuxOptions": { "level": "" }, "seccompProfile": { "type": "Unconfined" },
            "appArmorProfile": { "type": "Unconfined" }, "supplementalGroups": [1], "supplementalGroupsPolicy": "Merge",
            "sysctls": [{ "name": "net/ipv4/tcp_syncookies", "value": "1" }], "windowsOptions": {},
        },
        "volumes": [
            { "name": "a", "emptyDir": {} }, { "name": "b", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            { "name": "c", "configMap": { "name": "c" } }, { "name": "d", "secret": { "secretName": "d" } },
            { "name": "e", "downwardAPI": {} }, { "name": "f", "hostPath": { "path": "/f" } },
            { "name": "g", "projected": { "sources": [{ "secret": { "name": "d" } }, { "configMap": { "name": "c" } }] } },
        ],
    });
    let container = json!({
        "resources": { "limits": { "cpu": "1", "memory": "1Gi", "example.com/dongle": "1", "hugepages-2Mi": "0" } },
        "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "NotRequired" }], "stdin": true, "stdinOnce": true,
        "lifecycle": { "stopSignal": "SIGUSR1" }, "livenessProbe": { "grpc": { "port": 1 } },
        "securityContext": { "procMount": "Default", "privileged": true, "capabilities": { "add": ["NET_ADMIN"] } },
        "volumeMounts": [{ "name": "a", "mountPath": "/a", "readOnly": true, "recursiveReadOnly": "IfPossible" }],
    });
    assert_eq!(examine(&pod(spec, container), &NONE), Verdict::default());
}

#[test]
fn unsupported_fields_are_refused_by_name() {
    let of_pod = [
        ("spec.hostUsers", json!({ "hostUsers": false })),
        ("spec.resourceClaims", json!({ "resourceClaims": [{ "name": "gpu" }] })),
        ("spec.runtimeClassName", json!({ "runtimeClassName": "gvisor" })),
        (
            "spec.securityContext.windowsOptions",
            json!({ "securityContext": { "windowsOptions": { "hostProcess": true } } }),
        ),
        ("spec.volumes[0]", json!({ "volumes": [{ "name": "v" }] })),
        (
            "spec.volumes[0].persistentVolumeClaim",
            json!({ "volumes": [
            { "name": "v", "persistentVolumeClaim": { "claimName": "v" } } ] }),
        ),
        ("spec.volumes[0].image", json!({ "volumes": [{ "name": "v", "image": { "reference": "i" } }] })),
        ("spec.volumes[0].nfs", json!({ "volumes": [{ "name": "v", "nfs": { "path": "/", "server": "s" } }] })),
        (
            "spec.volumes[0].emptyDir.medium",
            json!({ "volumes": [{ "name": "v", "emptyDir": { "medium": "HugePages" } }] }),
        ),
        (
            "spec.volumes[0].projected.sources[0].serviceAccountToken",
            json!({ "volumes": [
            { "name": "v", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } } ] }),
        ),
        (
            "spec.volumes[0].projected.sources[0].podCertificate",
            json!({ "volumes": [
            { "name": "v", "projected": { "sources": [{ "podCertificate": { "keyType": "ED25519", "signerName": "s" } }] } } ] }),
        ),
        (
            "spec.volumes[0].projected.sources[0].clusterTrustBundle",
            json!({ "volumes": [
            { "name": "v", "projected": { "sources": [{ "clusterTrustBundle": { "path": "ca" } }] } } ] }),
        ),
    ];
    let of_container = [
        ("spec.containers[0].securityContext.procMount", json!({ "securityContext": { "procMount": "Unmasked" } })),
        (
            "spec.containers[0].securityContext.windowsOptions",
            json!({ "securityContext": {
            "windowsOptions": { "runAsUserName": "me" } } }),
        ),
        (
            "spec.containers[0].securityContext.seccompProfile",
            json!({ "securityContext": {
            "seccompProfile": { "type": "Localhost" } } }),
        ),
        ("spec.containers[0].resources.claims", json!({ "resources": { "claims": [{ "name": "gpu" }] } })),
        (
            "spec.containers[0].resources.limits[hugepages-2Mi]",
            json!({ "resources": { "limits": { "hugepages-2Mi": "2Mi" } } }),
        ),
        ("spec.containers[0].restartPolicyRules", json!({ "restartPolicyRules": [{ "action": "Restart" }] })),
        ("spec.containers[0].volumeDevices", json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }] })),
        (
            "spec.containers[0].volumeMounts[0].recursiveReadOnly",
            json!({ "volumeMounts": [
            { "name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled" } ] }),
        ),
        (
            "spec.containers[0].env[0].valueFrom.fileKeyRef",
            json!({ "env": [{ "name": "X", "valueFrom": {
            "fileKeyRef": { "key": "k", "path": "p", "volumeName": "v" } } }] }),
        ),
    ];
    let pods = of_pod.into_iter().map(|(field, spec)| (field, pod(spec, json!({}))));
    let pods = pods.chain(of_container.into_iter().map(|(field, container)| (field, pod(json!({}), container))));
    for (field, pod) in pods {
        let (reason, message) = refusal(&pod, ALL).unwrap_or_else(|| panic!("{field} is not refused"));
        assert!(message.starts_with(&format!("{field}: ")), "{field}: {message}");
        assert_eq!(reason, "UnexpectedAdmissionError", "{field}");
    }
}

#[test]
fn an_ephemeral_container_is_examined_without_its_pod() {
    let debugger = |container: Value| -> Container {
        let mut whole = json!({ "name": "debug", "image": "busybox" });
        quorate_api::patch::merge::apply(&mut whole, &container);
        serde_json::from_value(whole).expect("a container")
    };
    let refused = pod(json!({ "hostUsers": false }), json!({}));
    let examine = |container| examine_ephemeral(&refused, &debugger(container), &ALL).rejection;
    assert_eq!(examine(json!({})), None, "the pod was admitted before");
    let rejection = examine(json!({ "volumeDevices": [{ "name": "v", "devicePath": "/dev/x" }] })).expect("refused");
    let field = "spec.ephemeralContainers{debug}.volumeDevices";
    assert!(rejection.message.starts_with(field), "{}", rejection.message);
}

#[test]
fn refusals_of_the_kubelet_have_its_reasons_and_messages() {
    let cases = [
        (
            json!({ "os": { "name": "windows" } }),
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ),
        (
            json!({ "resources": { "limits": { "cpu": "1" } } }),
            "PodLevelResourcesNotSupported",
            "spec.resources: this node does not support resources of whole pods",
        ),
        (
            json!({ "securityContext": { "supplementalGroupsPolicy": "Strict" } }),
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        ),
        (
            json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] } }),
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted",
        ),
        (
            json!({ "hostNetwork": true, "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_rmem", "value": "1" }] } }),
            "SysctlForbidden",
            "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled",
        ),
        (
            json!({ "hostIPC": true, "securityContext": { "sysctls": [{ "name": "kernel/shm_rmid_forced", "value": "1" }] } }),
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled",
        ),
        (
            json!({ "securityContext": { "appArmorProfile": { "type": "RuntimeDefault" } } }),
            "AppArmor",
            "spec.containers[0]: Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ),
        (
            json!({ "securityContext": { "seLinuxOptions": { "level": "s0:c1" } } }),
            "UnexpectedAdmissionError",
            "spec.securityContext.seLinuxOptions: SELinux is not enabled on this node",
        ),
        (
            json!({ "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } }),
            "UnexpectedAdmissionError",
            "spec.containers[0].securityContext.seccompProfile: the container engine of this node filters no system calls",
        ),
        (
            json!({ "subdomain": "d".repeat(60), "setHostnameAsFQDN": true }),
            "UnexpectedAdmissionError",
            "spec.setHostnameAsFQDN: Failed to construct FQDN from Pod hostname and cluster domain, FQDN",
        ),
    ];
    for (spec, reason, words) in cases {
        let (found, message) = refusal(&pod(spec.clone(), json!({})), NONE).unwrap_or_else(|| panic!("{spec}"));
        assert_eq!(found, reason, "{spec}");
        assert!(message.starts_with(words), "{spec}: {message}");
    }
}

#[test]
fn protection_that_the_engine_supports_is_admitted() {
    let profiles = json!({
        "appArmorProfile": { "type": "Localhost", "localhostProfile": "strict" },
        "seLinuxOptions": { "level": "s0:c1", "type": "spc_t" },
        "seccompProfile": { "type": "Localhost", "localhostProfile": "strict.json" },
    });
    let pod = pod(json!({}), json!({ "securityContext": profiles }));
    assert_eq!(refusal(&pod, ALL), None);
    let (_, message) = refusal(&pod, NONE).expect("the engine supports none of it");
    assert_eq!(message.matches("; ").count(), 2, "all of them are named: {message}");
}

#[test]
fn app_armor_annotations_count_like_the_field() {
    let mut pod = pod(json!({}), json!({}));
    let mut annotate = |value: &str| {
        let key = "container.apparmor.security.beta.kubernetes.io/c".to_owned();
        pod.metadata.annotations = Some([(key, value.to_owned())].into());
        refusal(&pod, NONE).is_some()
    };
    assert!(!annotate("unconfined") && !annotate(""));
    assert!(annotate("runtime/default") && annotate("localhost/strict") && annotate("nonsense"));
}

#[test]
fn disk_space_limits_are_reported_as_unenforced() {
    let volumes = json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Gi" } }]);
    let limits = json!({ "limits": { "ephemeral-storage": "2Gi" }, "requests": { "ephemeral-storage": "1Gi" } });
    let verdict = examine(&pod(json!({ "volumes": volumes }), json!({ "resources": limits })), &ALL);
    assert_eq!(verdict.rejection, None);
    assert_eq!(
        verdict.unenforced,
        [
            "spec.volumes[0].emptyDir.sizeLimit=1Gi: this node does not enforce the limit",
            "spec.containers[0].resources.limits[ephemeral-storage]=2Gi: this node does not enforce the limit",
        ]
    );
}
