use serde_json::{Value, json};

use super::*;

fn machine() -> Machine {
    Machine { cpus: 4, memory_bytes: 8 << 30, disk_bytes: 1 << 40, ..Machine::default() }
}

fn subject(container: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web-1", "namespace": "shop", "uid": "u1", "labels": { "app": "web", "tier": "x" } },
        "spec": { "nodeName": "node-a", "serviceAccountName": "default", "containers": [container] },
    }))
    .expect("a well-formed pod")
}

fn objects() -> Referenced {
    let map = json!({ "metadata": { "name": "settings" }, "data": { "A": "1", "B": "two" } });
    let secret = json!({ "metadata": { "name": "keys" }, "data": { "token": "czNjcmV0" } });
    Referenced {
        config_maps: [("settings".to_owned(), serde_json::from_value(map).expect("a map"))].into(),
        secrets: [("keys".to_owned(), serde_json::from_value(secret).expect("a secret"))].into(),
        ..Referenced::default()
    }
}

fn check(container: Value) -> Result<Vec<String>, String> {
    let pod = subject(container);
    let machine = machine();
    let ips = ["10.1.2.3".to_owned(), "fd00::1".to_owned()];
    let facts = Facts { pod: &pod, pod_ips: &ips, host_ip: "192.0.2.1", machine: &machine };
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    let variables = resolve("shop", container, &objects(), facts).map_err(|error| error.to_string())?;
    Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

#[test]
fn values_may_refer_to_earlier_variables() {
    let env = json!([
        { "name": "HOST", "value": "db" },
        { "name": "URL", "value": "pg://$(HOST):$(PORT)/$$(HOST)" },
        { "name": "HOST", "value": "again-$(HOST)" },
        { "name": "EMPTY" },
    ]);
    let got = check(json!({ "name": "c", "env": env })).expect("it resolves");
    assert_eq!(got, ["HOST=again-db", "URL=pg://db:$(PORT)/$(HOST)", "EMPTY="]);
}

#[test]
fn variables_of_the_container_replace_those_of_services() {
    let pod = subject(json!({
        "name": "c",
        "env": [{ "name": "URL", "value": "redis://$(REDIS_SERVICE_HOST):$(REDIS_SERVICE_PORT)" },
                { "name": "REDIS_SERVICE_PORT", "value": "own" }],
    }));
    let services = [("REDIS_SERVICE_HOST", "10.96.0.7"), ("REDIS_SERVICE_PORT", "6379")];
    let services = services.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let objects = Referenced { services, ..objects() };
    let machine = machine();
    let facts = Facts { pod: &pod, pod_ips: &[], host_ip: "192.0.2.1", machine: &machine };
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    let variables = resolve("shop", container, &objects, facts).expect("it resolves");
    let lines: Vec<String> = variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(lines, ["URL=redis://10.96.0.7:6379", "REDIS_SERVICE_PORT=own", "REDIS_SERVICE_HOST=10.96.0.7"]);
}

#[test]
fn variables_come_from_single_keys_and_from_whole_objects() {
    let got = check(json!({
        "name": "c",
        "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "settings" } },
                    { "secretRef": { "name": "absent", "optional": true } }],
        "env": [
            { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } },
            { "name": "NONE", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "C", "optional": true } } },
        ],
    }));
    assert_eq!(got.expect("it resolves"), ["P_A=1", "P_B=two", "TOKEN=s3cret"]);
    let missing = |source: Value| check(json!({ "name": "c", "env": [{ "name": "X", "valueFrom": source }] }));
    let error = missing(json!({ "configMapKeyRef": { "name": "absent", "key": "k" } })).expect_err("it does not exist");
    assert_eq!(error, "configmap \"absent\" not found");
    let error = missing(json!({ "secretKeyRef": { "name": "keys", "key": "k" } })).expect_err("no such key");
    assert_eq!(error, "couldn't find key k in secret \"keys\"");
}

#[test]
fn fields_and_resources_describe_the_pod() {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let resource =
        |resource: &str, divisor: &str| json!({ "resourceFieldRef": { "resource": resource, "divisor": divisor } });
    let cases = [
        (field("metadata.name"), "web-1"),
        (field("metadata.labels['tier']"), "x"),
        (field("metadata.annotations['none']"), ""),
        (field("spec.nodeName"), "node-a"),
        (field("status.podIP"), "10.1.2.3"),
        (field("status.podIPs"), "10.1.2.3,fd00::1"),
        (field("status.hostIP"), "192.0.2.1"),
        (resource("limits.cpu", "0"), "2"),
        (resource("limits.cpu", "1m"), "1500"),
        (resource("requests.cpu", "1"), "0"),
        (resource("limits.memory", "1Mi"), "8192"),
        (resource("requests.memory", "1Ki"), "64"),
    ];
    for (source, expected) in cases {
        let container = json!({
            "name": "c",
            "resources": { "limits": { "cpu": "1500m" }, "requests": { "memory": "64Ki" } },
            "env": [{ "name": "X", "valueFrom": source }],
        });
        assert_eq!(check(container), Ok(vec![format!("X={expected}")]), "{source}");
    }
    let unknown = json!({ "name": "c", "env": [{ "name": "X", "valueFrom": field("spec.containers") }] });
    assert_eq!(check(unknown), Err("unsupported field reference \"spec.containers\"".to_owned()));
}

#[test]
fn references_to_unknown_variables_are_not_expanded() {
    let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    let cases = [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("x$", "x$"),
        ("$$$(A)", "$1"),
    ];
    for (text, expected) in cases {
        assert_eq!(expand(text, &variables), expected, "{text}");
    }
}
