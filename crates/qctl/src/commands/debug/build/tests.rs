use super::*;

fn wanted(profile: Profile) -> Wanted {
    Wanted {
        image: Some("tools".into()),
        command: vec!["sh".into()],
        arguments_only: false,
        env: vec![json!({"name": "A", "value": "b"})],
        pull_policy: None,
        stdin: true,
        tty: true,
        profile,
        keep: Keep { init_containers: true, ..Keep::default() },
        custom: None,
    }
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
        "spec": {"nodeName": "w", "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "old"}],
            "containers": [{"name": "main", "image": "x", "args": ["serve"], "livenessProbe": {}}, {"name": "side", "image": "y"}]}})
}

#[test]
fn an_ephemeral_container_may_trace_processes() {
    let container = wanted(Profile::General).ephemeral(&pod(), "d", Some("main")).expect("a container");
    assert_eq!(
        container,
        json!({"name": "d", "image": "tools", "command": ["sh"], "env": [{"name": "A", "value": "b"}], "stdin": true,
            "tty": true, "terminationMessagePolicy": "File", "targetContainerName": "main",
            "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}})
    );
    let security = |profile: Profile| {
        let container = wanted(profile).ephemeral(&pod(), "d", None).expect("a container");
        container.get("securityContext").cloned().unwrap_or_default()
    };
    assert_eq!(security(Profile::Baseline), Value::Null);
    assert_eq!(security(Profile::Sysadmin), json!({"privileged": true}));
    assert_eq!(security(Profile::Netadmin), json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}));
    assert_eq!(security(Profile::Restricted)["runAsNonRoot"], true);
}

#[test]
fn the_users_part_is_merged_by_name() {
    let mut wanted = wanted(Profile::Baseline);
    wanted.custom = Some(json!({"env": [{"name": "C", "value": "d"}], "securityContext": {"runAsUser": 0}}));
    let container = wanted.ephemeral(&pod(), "d", None).expect("a container");
    assert_eq!(container["securityContext"], json!({"runAsUser": 0}));
    let names: Vec<&Value> = container["env"].as_array().expect("env").iter().map(|env| &env["name"]).collect();
    assert!(names.contains(&&json!("A")) && names.contains(&&json!("C")), "{container}");
}

#[test]
fn a_copy_has_the_changes_and_loses_its_labels_and_probes() {
    let images = pairs_of(&[("side", "z")]);
    let copy = Copy { name: "c", container: Some("main"), images: &images, same_node: false, share_processes: None };
    let copied = wanted(Profile::General).copy(&pod(), &copy).expect("a copy");
    assert_eq!(copied["metadata"], json!({"name": "c", "namespace": "n"}));
    assert_eq!(
        copied["spec"],
        json!({"shareProcessNamespace": true, "initContainers": [{"name": "i"}], "containers": [
            {"name": "main", "image": "tools", "command": ["sh"], "env": [{"name": "A", "value": "b"}], "stdin": true,
                "tty": true, "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
            {"name": "side", "image": "z"}]})
    );
    // Only images change.
    let all = pairs_of(&[("*", "z")]);
    let copy = Copy { name: "c", container: None, images: &all, same_node: true, share_processes: Some(false) };
    let copied = wanted(Profile::General).copy(&pod(), &copy).expect("a copy");
    assert_eq!((&copied["spec"]["nodeName"], &copied["spec"]["shareProcessNamespace"]), (&json!("w"), &json!(false)));
    assert_eq!(copied["spec"]["containers"][0]["image"], "z");
    assert_eq!(copied["metadata"]["labels"], json!({"app": "web"}));
}

fn pairs_of(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
}

#[test]
fn a_pod_on_a_node_sees_the_nodes_files() {
    let pod = wanted(Profile::General).node("node-debugger-w-x", "w", "debugger").expect("a pod");
    let spec = &pod["spec"];
    assert_eq!((&spec["nodeName"], &spec["hostPID"], &spec["hostNetwork"]), (&json!("w"), &json!(true), &json!(true)));
    assert_eq!(spec["volumes"], json!([{"name": "host-root", "hostPath": {"path": "/"}}]));
    assert_eq!(spec["containers"][0]["volumeMounts"], json!([{"name": "host-root", "mountPath": "/host"}]));
    let careful = wanted(Profile::Restricted).node("p", "w", "debugger").expect("a pod");
    assert!(careful["spec"].get("hostPID").is_none() && careful["spec"].get("volumes").is_none());
}

#[test]
fn states_of_all_lists_are_found() {
    let pod = json!({"status": {"ephemeralContainerStatuses": [{"name": "d", "state": {"running": {}}}]}});
    assert_eq!(state(&pod, "d"), Some(&json!({"running": {}})));
    assert_eq!(state(&pod, "e"), None);
}
