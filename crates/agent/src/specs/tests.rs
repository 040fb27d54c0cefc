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
    assert_eq!(limits_of(json!({ "limits": { "cpu": "1m" } })).cpu_quota, 1000, "the kernel's minimum");
}

#[test]
fn a_zero_limit_counts_as_no_limit() {
    let limits =
        limits_of(json!({ "limits": { "cpu": "0", "memory": "0" }, "requests": { "cpu": "0", "memory": "0" } }));
    assert_eq!(limits, Limits { cpu_shares: 2, cpu_quota: 0, memory_bytes: 0, oom_score_adj: 1000 });
    let limits = limits_of(json!({ "limits": { "cpu": "1", "memory": "0" } }));
    assert_eq!((limits.memory_bytes, limits.oom_score_adj), (0, 999), "it is burstable");
}

#[test]
fn containers_that_others_depend_on_are_killed_last() {
    let machine = Machine { cpus: 4, memory_bytes: 8 << 30, ..Machine::default() };
    let score = |spec: Value| {
        let pod = pod(spec);
        let spec = pod.spec.as_ref().expect("a spec");
        let first = spec.init_containers.iter().flatten().chain(&spec.containers).next().expect("a container");
        limits(&pod, first, &machine).oom_score_adj
    };
    let main = json!([{ "name": "c", "resources": { "requests": { "memory": "4Gi" } } }]);
    let sidecar = json!([{ "name": "s", "restartPolicy": "Always" }]);
    assert_eq!(
        score(json!({ "initContainers": sidecar, "containers": main })),
        500,
        "a sidecar gets the score of the main container"
    );
    assert_eq!(score(json!({ "initContainers": [{ "name": "s" }], "containers": main })), 999);
    let critical = json!({ "priorityClassName": "system-node-critical", "containers": [{ "name": "c" }] });
    assert_eq!(score(critical), -997);
}

#[test]
fn security_contexts_of_pod_and_container_are_merged() {
    let merged = |of_pod: Value, own: Value| {
        let container = json!({ "name": "c", "securityContext": own });
        let pod = pod(json!({ "securityContext": of_pod, "containers": [container] }));
        security(&pod, &pod.spec.as_ref().expect("a spec").containers[0], None)
    };
    let of_pod = json!({ "runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "runAsNonRoot": true });
    let own = json!({
        "runAsUser": 1001, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
    });
    let both = merged(of_pod, own);
    assert_eq!((both.user, both.group), (Some(1001), Some(3000)));
    assert_eq!(both.groups, ["2000"]);
    assert!(both.no_new_privileges && both.must_not_be_root && !both.privileged);
    assert_eq!((both.cap_add, both.cap_drop), (vec!["NET_BIND_SERVICE".to_owned()], vec!["ALL".to_owned()]));
    let group = merged(json!({ "runAsGroup": 3000 }), json!({}));
    assert_eq!((group.user, group.group), (None, Some(3000)), "the user is the image's");
    let own = merged(json!({ "runAsNonRoot": true }), json!({ "runAsNonRoot": false }));
    assert!(!own.must_not_be_root);
}

#[test]
fn profiles_become_options_of_the_engine() {
    let of = |context: Value, profile: Option<&str>| {
        let pod = pod(json!({ "containers": [{ "name": "c", "securityContext": context }] }));
        security(&pod, &pod.spec.as_ref().expect("a spec").containers[0], profile.map(str::to_owned))
    };
    let unconfined = json!({ "seccompProfile": { "type": "Unconfined" }, "appArmorProfile": { "type": "Unconfined" } });
    let unconfined = of(unconfined, None);
    assert_eq!(
        (unconfined.seccomp.as_deref(), unconfined.app_armor.as_deref()),
        (Some("unconfined"), Some("unconfined"))
    );
    let default = of(
        json!({ "seccompProfile": { "type": "RuntimeDefault" }, "appArmorProfile": { "type": "RuntimeDefault" } }),
        None,
    );
    assert_eq!((default.seccomp, default.app_armor), (None, None));
    let local = json!({
        "seccompProfile": { "type": "Localhost", "localhostProfile": "strict.json" },
        "appArmorProfile": { "type": "Localhost", "localhostProfile": "strict" },
        "seLinuxOptions": { "user": "u", "level": "s0:c1" },
    });
    let local = of(local, Some("{}"));
    assert_eq!((local.seccomp.as_deref(), local.app_armor.as_deref()), (Some("{}"), Some("strict")));
    assert_eq!(local.se_linux, ["user:u", "level:s0:c1"]);
}

#[test]
fn host_names_have_a_domain_if_the_pod_asks_for_it() {
    let names = |spec: Value| {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = pod(spec);
        (sandbox(&pod, 0).hostname, domain(&pod))
    };
    let domain = Some("shops.shop.svc.cluster.local".to_owned());
    assert_eq!(names(json!({ "subdomain": "shops" })), ("web-1".to_owned(), domain.clone()));
    let whole = "web-1.shops.shop.svc.cluster.local".to_owned();
    assert_eq!(names(json!({ "subdomain": "shops", "setHostnameAsFQDN": true })), (whole, domain));
    assert_eq!(names(json!({ "setHostnameAsFQDN": true })), ("web-1".to_owned(), None));
    assert_eq!(
        names(json!({ "subdomain": "shops", "hostnameOverride": "other.name" })),
        ("other.name".to_owned(), None)
    );
}

#[test]
fn images_without_a_fixed_tag_are_always_pulled() {
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
fn the_sandbox_opens_host_ports() {
    let spec = sandbox(
        &pod(json!({
            "containers": [{ "name": "c", "ports": [
                { "containerPort": 80, "hostPort": 8080 }, { "containerPort": 53, "protocol": "UDP" } ] }],
        })),
        2,
    );
    assert_eq!((spec.hostname.as_str(), spec.attempt), ("web-1", 2));
    let port = HostPort { container_port: 80, host_port: 8080, host_ip: String::new(), protocol: "tcp".into() };
    assert_eq!(spec.ports, [port]);
    let host = sandbox(
        &pod(json!({ "hostNetwork": true, "containers": [{ "name": "c", "ports": [
        { "containerPort": 80, "hostPort": 80 } ] }] })),
        0,
    );
    assert!(host.host_network && host.ports.is_empty());
}
