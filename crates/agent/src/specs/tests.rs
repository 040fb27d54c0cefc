use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    let metadata = json!({ "name": "web-1", "namespace": "shop", "uid": "u1" });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("a well-formed pod")
}

fn limits_of(resources: Value) -> Limits {
    let pod = pod(json!({ "containers": [{ "name": "c", "resources": resources }] }));
    let machine = Machine { cpus: 4, memory_bytes: 8 << 30, ..Machine::default() };
    limits(&pod, &pod.spec.as_ref().expect("a spec").containers[0], &machine)
}

#[test]
fn resources_become_cgroup_limits() {
    let limits = limits_of(json!({}));
    assert_eq!(limits, Limits { cpu_shares: 2, cpu_quota: 0, memory_bytes: 0, oom_score_adj: 1000 });
    let limits = limits_of(json!({ "requests": { "cpu": "250m", "memory": "2Gi" }, "limits": { "cpu": "500m" } }));
    assert_eq!(limits, Limits { cpu_shares: 256, cpu_quota: 50_000, memory_bytes: 0, oom_score_adj: 750 });
    let limits = limits_of(json!({ "limits": { "cpu": "2", "memory": "64Mi" } }));
    assert_eq!(limits, Limits { cpu_shares: 2048, cpu_quota: 200_000, memory_bytes: 64 << 20, oom_score_adj: -997 });
    assert_eq!(limits_of(json!({ "limits": { "cpu": "1m" } })).cpu_quota, 1000, "the kernel takes no less");
}

#[test]
fn security_contexts_of_pod_and_container_are_merged() {
    let of_pod: PodSecurityContext =
        serde_json::from_value(json!({ "runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "runAsNonRoot": true }))
            .expect("a context");
    let own: SecurityContext = serde_json::from_value(json!({
        "runAsUser": 1001, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
    }))
    .expect("a context");
    let merged = security(Some(&of_pod), Some(&own));
    assert_eq!(merged.user.as_deref(), Some("1001:3000"));
    assert_eq!(merged.groups, ["2000"]);
    assert!(merged.no_new_privileges && !merged.must_not_be_root && !merged.privileged);
    assert_eq!((merged.cap_add, merged.cap_drop), (vec!["NET_BIND_SERVICE".to_owned()], vec!["ALL".to_owned()]));
    assert!(
        security(Some(&PodSecurityContext { run_as_non_root: Some(true), ..Default::default() }), None)
            .must_not_be_root
    );
}

#[test]
fn moving_tags_are_pulled_always() {
    let policy = |image: &str, policy: Option<&str>| {
        let value = json!({ "name": "c", "image": image, "imagePullPolicy": policy });
        pull_policy(&serde_json::from_value(value).expect("a container"))
    };
    assert_eq!(policy("app", None), PullPolicy::Always);
    assert_eq!(policy("app:latest", None), PullPolicy::Always);
    assert_eq!(policy("host:5000/app", None), PullPolicy::Always);
    assert_eq!(policy("host:5000/app:v1", None), PullPolicy::IfNotPresent);
    assert_eq!(policy("app@sha256:abc", None), PullPolicy::IfNotPresent);
    assert_eq!(policy("app:latest", Some("Never")), PullPolicy::Never);
}

#[test]
fn the_sandbox_opens_host_ports_and_knows_its_hosts() {
    let spec = sandbox(
        &pod(json!({
            "hostAliases": [{ "ip": "10.9.8.7", "hostnames": ["db", "db.local"] }],
            "containers": [{ "name": "c", "ports": [
                { "containerPort": 80, "hostPort": 8080 }, { "containerPort": 53, "protocol": "UDP" } ] }],
        })),
        2,
    );
    assert_eq!((spec.hostname.as_str(), spec.attempt), ("web-1", 2));
    assert_eq!(spec.extra_hosts, ["db:10.9.8.7", "db.local:10.9.8.7"]);
    let port = HostPort { container_port: 80, host_port: 8080, host_ip: String::new(), protocol: "tcp".into() };
    assert_eq!(spec.ports, [port]);
    let host = sandbox(
        &pod(json!({ "hostNetwork": true, "containers": [{ "name": "c", "ports": [
        { "containerPort": 80, "hostPort": 80 } ] }] })),
        0,
    );
    assert!(host.host_network && host.ports.is_empty());
}
