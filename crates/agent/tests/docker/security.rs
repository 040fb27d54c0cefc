//! Security of pods: users, subPaths, profiles, and fields that this node refuses.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use crate::harness::{IMAGE, Node1, container, ensure_image_of_user, eventually, is_ready, terminated};

fn script(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script] })
}

fn ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Returns the reason and the message of a waiting container.
fn waiting(status: &PodStatus, name: &str) -> Option<(String, String)> {
    let waiting = container(status, name)?.state.as_ref()?.waiting.clone()?;
    Some((waiting.reason?, waiting.message?))
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a path of letters");
    let table = std::fs::read_to_string("/proc/self/mounts").expect("the table of mounts");
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| at.starts_with(dir))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_run_as_the_user_of_their_image_by_default() {
    let Some(node) = Node1::start().await else { return };
    let (numbered, named) = ("quorate/agent-test-user:1000", "quorate/agent-test-user:named");
    ensure_image_of_user(&node.docker, numbered, "1000:2000").await;
    ensure_image_of_user(&node.docker, named, "app").await;
    let run = |name: &str, image: &str, context: Value| {
        let mut main = script("main", "echo $(id -u):$(id -g)");
        main["image"] = json!(image);
        main["securityContext"] = context;
        node.cluster.create(name, json!({ "restartPolicy": "Never", "containers": [main] }))
    };
    let mut pods = Vec::new();
    let allowed = [
        ("plain", numbered, json!({}), "1000:2000\n"),
        ("group", numbered, json!({ "runAsGroup": 3000 }), "1000:3000\n"),
        ("user", numbered, json!({ "runAsUser": 7, "runAsGroup": 3000 }), "7:3000\n"),
        ("root", IMAGE, json!({ "runAsGroup": 3000 }), "0:3000\n"),
        ("no-root", numbered, json!({ "runAsNonRoot": true }), "1000:2000\n"),
        ("no-root-group", numbered, json!({ "runAsNonRoot": true, "runAsGroup": 3000 }), "1000:3000\n"),
    ];
    for (name, image, context, expected) in allowed {
        let pod = run(name, image, context);
        node.cluster.wait(&pod, name, ended).await;
        assert_eq!(node.log(name, "main", "").await, expected, "{name}");
        pods.push(pod);
    }
    let refused = [
        (
            "is-root",
            IMAGE,
            json!({ "runAsNonRoot": true }),
            "container has runAsNonRoot and image will run as root (pod: ",
        ),
        (
            "is-named",
            named,
            json!({ "runAsNonRoot": true }),
            "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root (pod: ",
        ),
        (
            "zero",
            numbered,
            json!({ "runAsNonRoot": true, "runAsUser": 0 }),
            "container's runAsUser breaks non-root policy (pod: ",
        ),
    ];
    for (name, image, context, words) in refused {
        let pod = run(name, image, context);
        let waits = |status: &PodStatus| {
            waiting(status, "main")
                .is_some_and(|(reason, why)| reason == "CreateContainerConfigError" && why.starts_with(words))
        };
        node.cluster.wait(&pod, name, waits).await;
        pods.push(pod);
    }
    node.finish(&pods.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_paths_are_mounted_unless_they_leave_the_volume() {
    let Some(mut node) = Node1::start().await else { return };
    let outside = tempfile::tempdir().expect("a temporary directory");
    node.cluster.set_config_map("settings", &[("page", "a page"), ("other", "")]);
    node.cluster.set_secret("keys", &[("token", "s3cret")]);
    let mut main = script(
        "main",
        "cat /page /note; mount | grep -c 'tmpfs on /keys'; echo written > /logs/out; id -u > /logs/user; \
         cat /keys/token; echo; touch /logs/again && sleep 3600",
    );
    main["env"] = json!([{ "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]);
    main["securityContext"] = json!({ "runAsUser": 1000 });
    main["volumeMounts"] = json!([
        { "name": "shared", "mountPath": "/logs", "subPathExpr": "$(NAME)/logs" },
        { "name": "shared", "mountPath": "/note", "subPath": "note" },
        { "name": "settings", "mountPath": "/page", "subPath": "page" },
        { "name": "keys", "mountPath": "/keys" },
    ]);
    main["readinessProbe"] = json!({ "exec": { "command": ["test", "-e", "/logs/again"] }, "periodSeconds": 1 });
    let mut plant = script("plant", "echo planted > /shared/note");
    plant["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
    let volumes = json!([
        { "name": "shared", "emptyDir": {} }, { "name": "settings", "configMap": { "name": "settings" } },
        { "name": "keys", "secret": { "secretName": "keys" } },
    ]);
    let parts = node.cluster.create(
        "parts",
        json!({
        "terminationGracePeriodSeconds": 0, "volumes": volumes, "initContainers": [plant], "containers": [main] }),
    );
    node.cluster.wait(&parts, "the parts are there", is_ready).await;
    assert_eq!(node.log("parts", "main", "").await, "a pageplanted\n1\ns3cret\n");
    let pod_dir = node.data_dir().join("pods").join(&parts.uid);
    assert_eq!(std::fs::read_to_string(pod_dir.join("volumes/shared/parts/logs/user")).expect("written"), "1000\n");

    // Another agent takes over, and the container restarts with the same subPaths.
    node.stop_agent().await;
    node.start_agent(quorate_agent::RuntimeChoice::Docker { endpoint: None });
    let id = container(&node.cluster.status(&parts), "main").and_then(|main| main.container_id.clone()).expect("an id");
    let id = id.trim_start_matches("docker://");
    node.docker.kill_container(id, None::<bollard::query_parameters::KillContainerOptions>).await.expect("killed");
    let again =
        |status: &PodStatus| is_ready(status) && container(status, "main").is_some_and(|main| main.restart_count == 1);
    node.cluster.wait(&parts, "the second run", again).await;
    assert_eq!(mounts_below(&pod_dir).len(), 4, "three parts and the Secret: {:?}", mounts_below(&pod_dir));

    // A container of the pod plants links before the next one is made.
    let links = format!("ln -s {} /shared/way; ln -s / /shared/root", outside.path().display());
    let mut plant = script("plant", &links);
    plant["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/shared" }]);
    let attack = |name: &str, sub_path: &str| {
        let mut main = script("main", "echo in > /part/file; sleep 3600");
        main["volumeMounts"] = json!([{ "name": "shared", "mountPath": "/part", "subPath": sub_path }]);
        node.cluster.create(
            name,
            json!({
            "terminationGracePeriodSeconds": 0, "volumes": [{ "name": "shared", "emptyDir": {} }],
            "initContainers": [plant.clone()], "containers": [main] }),
        )
    };
    let attacks = [attack("attack-new", "way/new"), attack("attack-dir", "way"), attack("attack-root", "root/etc")];
    for pod in &attacks {
        let waits = |status: &PodStatus| {
            waiting(status, "main").is_some_and(|(reason, why)| {
                reason == "CreateContainerConfigError" && why.contains("it leaves the volume")
            })
        };
        node.cluster.wait(pod, "it is refused", waits).await;
    }
    assert_eq!(std::fs::read_dir(outside.path()).expect("the directory exists").count(), 0, "nothing was made outside");
    let data = node.data_dir().to_owned();
    for pod in attacks.iter().chain([&parts]) {
        node.cluster.delete(pod, 0);
    }
    for pod in attacks.iter().chain([&parts]) {
        node.cluster.wait_gone(pod).await;
    }
    assert_eq!(mounts_below(&data), Vec::<String>::new());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_unsupported_fields_fails_and_starts_nothing() {
    let Some(node) = Node1::start().await else { return };
    let mut unmasked = script("main", "sleep 3600");
    unmasked["securityContext"] = json!({ "procMount": "Unmasked" });
    let plain = script("main", "sleep 3600");
    let cases = [
        ("unmasked", json!({ "containers": [unmasked] }), "UnexpectedAdmissionError", "procMount"),
        ("users", json!({ "hostUsers": false, "containers": [plain] }), "UnexpectedAdmissionError", "spec.hostUsers"),
        (
            "sysctls",
            json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] },
            "containers": [plain] }),
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted",
        ),
        (
            "claims",
            json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "v" } }],
            "containers": [plain] }),
            "UnexpectedAdmissionError",
            "spec.volumes[0].persistentVolumeClaim",
        ),
    ];
    let mut pods = Vec::new();
    for (name, spec, reason, words) in cases {
        let pod = node.cluster.create(name, spec);
        let status = node.cluster.wait(&pod, name, ended).await;
        assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some(reason)), "{name}");
        let message = status.message.unwrap_or_default();
        assert!(message.starts_with("Pod was rejected: ") && message.contains(words), "{name}: {message}");
        node.cluster.wait_event(reason, words).await;
        pods.push(pod);
    }
    assert_eq!(node.containers().await, [], "nothing was made for any of them");
    let safe = json!({ "sysctls": [{ "name": "net/ipv4/ip_unprivileged_port_start", "value": "80" }] });
    let main = script("main", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    let limited = node.cluster.create(
        "limited",
        json!({
        "restartPolicy": "Never", "securityContext": safe, "containers": [main],
        "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "1Gi" } }] }),
    );
    node.cluster.wait(&limited, "it runs all the same", ended).await;
    assert_eq!(node.log("limited", "main", "").await, "80\n");
    node.cluster.wait_event("Unenforced", "spec.volumes[0].emptyDir.sizeLimit=1Gi").await;
    pods.push(limited);
    node.finish(&pods.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_reported_by_one_event() {
    let Some(mut node) = Node1::start().await else { return };
    let spec = json!({ "hostUsers": false, "containers": [script("main", "sleep 3600")] });
    let pod = node.cluster.create("rejected", spec.clone());
    node.cluster.wait(&pod, "rejected", ended).await;
    node.cluster.wait_event("UnexpectedAdmissionError", "spec.hostUsers").await;
    for round in 0..3 {
        let label = ("round".to_owned(), round.to_string());
        node.cluster.change(&pod, |pod| pod.metadata.labels.get_or_insert_default().extend([label]));
        node.stop_agent().await;
        node.start_agent(quorate_agent::RuntimeChoice::Docker { endpoint: None });
    }
    // The agent reports events in order, so a second event of the first pod would come before this pod's.
    let last = node.cluster.create("last", spec);
    let of = |pod: &quorate_agent::plan::PodRef| {
        let events = node.cluster.events.lock();
        events.iter().filter(|event| event.involved_object.uid.as_ref() == Some(&pod.uid)).count()
    };
    eventually("the event of the last pod", async || if of(&last) == 1 { Ok(()) } else { Err(of(&last)) }).await;
    assert_eq!(of(&pod), 1);
    assert_eq!(node.cluster.repeated_events.load(std::sync::atomic::Ordering::SeqCst), 0);
    node.finish(&[&pod, &last]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seccomp_profile_of_the_node_holds_in_the_container() {
    let Some(node) = Node1::start().await else { return };
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }] });
    let dir = node.data_dir().join("seccomp");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("no-mkdir.json"), profile.to_string()).expect("a profile");
    let run = |name: &str, file: &str| {
        let mut main = script("main", "mkdir /tmp/new 2>/dev/null && echo made || echo denied");
        main["securityContext"] = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": file } });
        node.cluster.create(name, json!({ "restartPolicy": "Never", "containers": [main] }))
    };
    let (held, absent) = (run("held", "no-mkdir.json"), run("absent", "absent.json"));
    node.cluster.wait(&held, "it has tried", ended).await;
    assert_eq!(node.log("held", "main", "").await, "denied\n");
    let waits = |status: &PodStatus| {
        waiting(status, "main").is_some_and(|(_, why)| why.starts_with("cannot load seccomp profile"))
    };
    node.cluster.wait(&absent, "the profile is missed", waits).await;
    node.finish(&[&held, &absent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_the_pods_hosts_file() {
    let Some(node) = Node1::start().await else { return };
    let aliases = json!([{ "ip": "10.9.8.7", "hostnames": ["db", "db.local"] }]);
    let look = "cat /etc/hosts";
    let mut own = script("own", look);
    own["volumeMounts"] = json!([{ "name": "own", "mountPath": "/etc/hosts", "subPath": "file" }]);
    let mut init = script("init", "echo my own > /own/file");
    init["volumeMounts"] = json!([{ "name": "own", "mountPath": "/own" }]);
    let pod = node.cluster.create(
        "hosts",
        json!({
        "restartPolicy": "Never", "subdomain": "shops", "hostAliases": aliases, "initContainers": [init],
        "volumes": [{ "name": "own", "emptyDir": {} }], "containers": [script("main", look), own] }),
    );
    let status = node.cluster.wait(&pod, "they have looked", ended).await;
    let ip = status.pod_ip.expect("an address");
    let seen = node.log("hosts", "main", "").await;
    assert!(seen.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{seen}");
    let end = format!(
        "\n{ip}\thosts.shops.default.svc.cluster.local\thosts\n\n# Entries added by HostAliases.\n10.9.8.7\tdb\tdb.local\n"
    );
    assert!(seen.ends_with(&end), "{seen}");
    assert_eq!(node.log("hosts", "own", "").await, "my own\n");
    let on_host = node.cluster.create(
        "on-host",
        json!({
        "restartPolicy": "Never", "hostNetwork": true, "containers": [script("main", look)] }),
    );
    node.cluster.wait(&on_host, "it has looked", ended).await;
    let seen = node.log("on-host", "main", "").await;
    assert!(!seen.contains("# Kubernetes-managed hosts file."), "{seen}");
    node.finish(&[&pod, &on_host]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_termination_message_takes_little_memory() {
    let Some(node) = Node1::start().await else { return };
    let huge = script("huge", "truncate -s 8G /dev/termination-log; printf 'the end' >> /dev/termination-log; exit 1");
    let mut noisy = script("noisy", "head -c 3000000 /dev/zero | tr '\\0' x; printf 'last words'; exit 1");
    noisy["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let long = script("long", "head -c 4096 /dev/zero | tr '\\0' y > /dev/termination-log; exit 1");
    let containers = json!([huge, noisy, long, script("fourth", "exit 1")]);
    let pod = node.cluster.create("wordy", json!({ "restartPolicy": "Never", "containers": containers }));
    let status = node.cluster.wait(&pod, "all have failed", ended).await;
    let message = |name: &str| terminated(&status, name).and_then(|end| end.message.clone()).unwrap_or_default();
    // Four containers share 12 KiB.
    assert_eq!(message("huge").len(), 3072);
    assert_eq!(message("long"), "y".repeat(3072));
    assert!(message("noisy").ends_with("xlast words") && message("noisy").len() == 2048, "{}", message("noisy"));
    let memory = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    let kilobytes: u64 = peak.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(kilobytes < 1 << 20, "the agent has used {kilobytes} kB");
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminals_log_is_passed_on_before_its_line_ends() {
    let Some(node) = Node1::start().await else { return };
    // Docker logs a line without an end in pieces of 16 KiB.
    let header = "printf '\\001\\000\\000\\000\\177\\177\\177\\177'";
    let mut main = script("main", &format!("{header}; head -c 20000 /dev/zero | tr '\\0' x; sleep 3600"));
    main["tty"] = json!(true);
    let pod = node.cluster.create("terminal", json!({ "terminationGracePeriodSeconds": 0, "containers": [main] }));
    node.cluster.wait(&pod, "ready", is_ready).await;
    // The request follows the log until it has read this many bytes.
    let log = node.log("terminal", "main", "follow=true&limitBytes=16384").await;
    assert_eq!(log, format!("\u{1}\0\0\0{}{}", "\u{7f}".repeat(4), "x".repeat(16384 - 8)));
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_takes_too_long_leaves_no_process_behind() {
    let Some(node) = Node1::start().await else { return };
    let mut main = script("main", "exec sleep 3599");
    // The child of the shell must be killed as well.
    main["readinessProbe"] =
        json!({ "exec": { "command": ["sh", "-c", "sleep 3600; true"] }, "periodSeconds": 1, "timeoutSeconds": 1 });
    let pod = node.cluster.create("slow", json!({ "terminationGracePeriodSeconds": 0, "containers": [main] }));
    let runs = |status: &PodStatus| container(status, "main").is_some_and(|main| main.started == Some(true));
    let status = node.cluster.wait(&pod, "it runs", runs).await;
    let id = container(&status, "main").and_then(|main| main.container_id.clone()).expect("an id");
    let id = id.trim_start_matches("docker://").to_owned();
    let seen = parking_lot::Mutex::new(BTreeSet::new());
    eventually("five probes", async || {
        let top = Command::new("docker").args(["top", &id, "-o", "pid,args"]).output().expect("docker runs").stdout;
        let top = String::from_utf8(top).expect("text");
        let sleeps: Vec<String> = top
            .lines()
            .filter(|line| line.contains("sleep 3600") && !line.contains("sh -c"))
            .map(str::to_owned)
            .collect();
        // A probe that is being killed may still run beside the next one.
        assert!(sleeps.len() <= 2, "{top}");
        let mut seen = seen.lock();
        seen.extend(sleeps);
        if seen.len() >= 5 { Ok(()) } else { Err(seen.clone()) }
    })
    .await;
    node.cluster.wait_event("Unhealthy", "timed out").await;
    node.finish(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_stopped_by_its_stop_signal() {
    let Some(node) = Node1::start().await else { return };
    let mut main = script("main", "trap 'exit 9' USR1; trap '' TERM; touch /tmp/set; while true; do sleep 0.1; done");
    main["lifecycle"] = json!({ "stopSignal": "SIGUSR1" });
    main["readinessProbe"] = json!({ "exec": { "command": ["test", "-e", "/tmp/set"] }, "periodSeconds": 1 });
    let pod = node.cluster.create("signal", json!({ "terminationGracePeriodSeconds": 60, "containers": [main] }));
    node.cluster.wait(&pod, "ready", is_ready).await;
    node.cluster.delete(&pod, 60);
    let last = node.cluster.wait_gone(&pod).await;
    assert_eq!(terminated(&last, "main").map(|end| end.exit_code), Some(9));
    node.wait_no_containers().await;
    node.stop().await;
}
