//! Pods and pod templates.

use jiff::Timestamp;
use serde_json::Value;

use super::{field, items, line, long_time, metadata, or_none, scalar, text, volumes};
use crate::output::parse_time;

pub fn describe(pod: &Value, out: &mut String, now: Timestamp) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    metadata::name(pod, out);
    if let Some(priority) = spec["priority"].as_i64() {
        field(out, 0, "Priority", priority);
    }
    if let Some(class) = spec["priorityClassName"].as_str().filter(|class| !class.is_empty()) {
        field(out, 0, "Priority Class Name", class);
    }
    let account = text(&spec["serviceAccountName"]);
    if !account.is_empty() {
        field(out, 0, "Service Account", account);
    }
    match text(&spec["nodeName"]) {
        "" => field(out, 0, "Node", "<none>"),
        node => field(out, 0, "Node", format!("{node}/{}", text(&status["hostIP"]))),
    }
    if status["startTime"].is_string() {
        field(out, 0, "Start Time", long_time(&status["startTime"]));
    }
    metadata::labels_and_annotations(pod, out);
    match pod["metadata"]["deletionTimestamp"].as_str().and_then(parse_time) {
        Some(time) => {
            let lasts = quorate_api::duration::human(now.duration_since(time));
            field(out, 0, "Status", format!("Terminating (lasts {lasts})"));
            let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
            field(out, 0, "Termination Grace Period", format!("{grace}s"));
        }
        None => field(out, 0, "Status", text(&status["phase"])),
    }
    for (key, name) in [("Reason", "reason"), ("Message", "message")] {
        if let Some(value) = status[name].as_str().filter(|value| !value.is_empty()) {
            field(out, 0, key, value);
        }
    }
    field(out, 0, "IP", text(&status["podIP"]));
    if items(&status["podIPs"]).next().is_none() {
        field(out, 0, "IPs", "<none>");
    } else {
        line(out, 0, "IPs:");
        items(&status["podIPs"]).for_each(|ip| field(out, 1, "IP", text(&ip["ip"])));
    }
    if let Some(controller) = metadata::controller(pod) {
        field(out, 0, "Controlled By", controller);
    }
    containers(out, 0, "Init Containers", &spec["initContainers"], Some((pod, &status["initContainerStatuses"])));
    containers(out, 0, "Containers", &spec["containers"], Some((pod, &status["containerStatuses"])));
    conditions(out, &status["conditions"]);
    volumes::describe(out, 0, &spec["volumes"]);
    if let Some(class) = status["qosClass"].as_str() {
        field(out, 0, "QoS Class", class);
    }
    metadata::labels(out, 0, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(out, 0, &spec["tolerations"]);
}

/// Describes the template of a workload, for descriptions and `rollout history`.
pub fn pod_template(template: &Value, out: &mut String) {
    let spec = &template["spec"];
    metadata::labels(out, 1, "Labels", &template["metadata"]["labels"]);
    if template["metadata"]["annotations"].as_object().is_some_and(|map| !map.is_empty()) {
        metadata::annotations(out, 1, &template["metadata"]["annotations"]);
    }
    if let Some(account) = spec["serviceAccountName"].as_str().filter(|account| !account.is_empty()) {
        field(out, 1, "Service Account", account);
    }
    containers(out, 1, "Init Containers", &spec["initContainers"], None);
    containers(out, 1, "Containers", &spec["containers"], None);
    volumes::describe(out, 1, &spec["volumes"]);
    metadata::labels(out, 1, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(out, 1, &spec["tolerations"]);
}

fn conditions(out: &mut String, conditions: &Value) {
    if items(conditions).next().is_none() {
        return;
    }
    line(out, 0, "Conditions:");
    line(out, 1, "Type\tStatus");
    for condition in items(conditions) {
        line(out, 1, &format!("{} \t{} ", text(&condition["type"]), text(&condition["status"])));
    }
}

fn tolerations(out: &mut String, level: usize, tolerations: &Value) {
    let mut start = "Tolerations:";
    for toleration in items(tolerations) {
        let key = text(&toleration["key"]);
        let value = text(&toleration["value"]);
        let effect = text(&toleration["effect"]);
        let mut shown = key.to_owned();
        if !value.is_empty() {
            shown.push_str(&format!("={value}"));
        }
        if !effect.is_empty() {
            shown.push_str(&format!(":{effect}"));
        }
        if text(&toleration["operator"]) == "Exists" && value.is_empty() {
            shown.push_str(if key.is_empty() && effect.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
            shown.push_str(&format!(" for {seconds}s"));
        }
        line(out, level, &format!("{start}\t{shown}"));
        start = "";
    }
    if !start.is_empty() {
        field(out, level, "Tolerations", "<none>");
    }
}

/// Describes a list of containers. `of_pod` has their pod and their statuses, and is `None` for templates.
fn containers(out: &mut String, level: usize, title: &str, list: &Value, of_pod: Option<(&Value, &Value)>) {
    if items(list).next().is_none() {
        return;
    }
    line(out, level, &format!("{title}:"));
    for container in items(list) {
        let status = of_pod.and_then(|(_, list)| items(list).find(|status| status["name"] == container["name"]));
        if of_pod.is_none() {
            // In a template inside another object, kubectl indents only names, by a single blank.
            out.push(' ');
        }
        one_container(out, container, status, of_pod.map(|(pod, _)| pod));
    }
}

fn one_container(out: &mut String, container: &Value, status: Option<&Value>, pod: Option<&Value>) {
    let inner = 2;
    line(out, 1, &format!("{}:", text(&container["name"])));
    if let Some(status) = status {
        field(out, inner, "Container ID", text(&status["containerID"]));
    }
    field(out, inner, "Image", text(&container["image"]));
    if let Some(status) = status {
        field(out, inner, "Image ID", text(&status["imageID"]));
    }
    ports(out, inner, &container["ports"]);
    for (title, name) in [("Command", "command"), ("Args", "args")] {
        if items(&container[name]).next().is_some() {
            line(out, inner, &format!("{title}:"));
            for word in items(&container[name]) {
                text(word).lines().for_each(|part| line(out, inner + 1, part));
            }
        }
    }
    if let Some(status) = status {
        container_status(out, inner, status);
    }
    for (title, name) in [("Limits", "limits"), ("Requests", "requests")] {
        if let Some(resources) = container["resources"][name].as_object().filter(|map| !map.is_empty()) {
            line(out, inner, &format!("{title}:"));
            resources.iter().for_each(|(key, quantity)| field(out, inner + 1, key, scalar(quantity)));
        }
    }
    for (title, name) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")] {
        if container[name].is_object() {
            field(out, inner, title, probe(&container[name]));
        }
    }
    environment(out, inner, container, pod);
    mounts(out, inner, &container["volumeMounts"]);
}

fn ports(out: &mut String, level: usize, ports: &Value) {
    let list = |number: &str| -> Vec<String> {
        items(ports)
            .map(|port| {
                let protocol = port["protocol"].as_str().unwrap_or("TCP");
                let name = port["name"].as_str().filter(|_| number == "containerPort");
                let suffix = name.map_or(String::new(), |name| format!(" ({name})"));
                format!("{}/{protocol}{suffix}", port[number].as_i64().unwrap_or(0))
            })
            .collect()
    };
    let plural = if items(ports).count() > 1 { "Ports" } else { "Port" };
    field(out, level, plural, or_none(&list("containerPort").join(", ")));
    field(out, level, &format!("Host {plural}"), or_none(&list("hostPort").join(", ")));
}

fn container_status(out: &mut String, level: usize, status: &Value) {
    state(out, level, "State", &status["state"]);
    if status["lastState"]["terminated"].is_object() {
        state(out, level, "Last State", &status["lastState"]);
    }
    field(out, level, "Ready", if status["ready"] == true { "True" } else { "False" });
    field(out, level, "Restart Count", status["restartCount"].as_i64().unwrap_or(0));
}

fn state(out: &mut String, level: usize, title: &str, state: &Value) {
    let (running, waiting, terminated) = (&state["running"], &state["waiting"], &state["terminated"]);
    if running.is_object() {
        field(out, level, title, "Running");
        field(out, level + 1, "Started", long_time(&running["startedAt"]));
    } else if terminated.is_object() {
        field(out, level, title, "Terminated");
        for (key, name) in [("Reason", "reason"), ("Message", "message")] {
            if let Some(value) = terminated[name].as_str().filter(|value| !value.is_empty()) {
                field(out, level + 1, key, value.trim_end());
            }
        }
        field(out, level + 1, "Exit Code", terminated["exitCode"].as_i64().unwrap_or(0));
        if let Some(signal) = terminated["signal"].as_i64().filter(|signal| *signal > 0) {
            field(out, level + 1, "Signal", signal);
        }
        field(out, level + 1, "Started", long_time(&terminated["startedAt"]));
        field(out, level + 1, "Finished", long_time(&terminated["finishedAt"]));
    } else {
        field(out, level, title, "Waiting");
        if let Some(reason) = waiting["reason"].as_str() {
            field(out, level + 1, "Reason", reason);
        }
    }
}

fn probe(probe: &Value) -> String {
    let number = |name: &str, default: i64| probe[name].as_i64().unwrap_or(default);
    let timing = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3),
    );
    let action = if let Some(exec) = probe.get("exec") {
        let words: Vec<&str> = items(&exec["command"]).map(text).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(http) = probe.get("httpGet") {
        let scheme = http["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text(&http["host"]), scalar(&http["port"]), text(&http["path"]))
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", text(&tcp["host"]), scalar(&tcp["port"]))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", scalar(&grpc["port"]), text(&grpc["service"]))
    } else {
        "unknown".to_owned()
    };
    format!("{action} {timing}")
}

fn environment(out: &mut String, level: usize, container: &Value, pod: Option<&Value>) {
    if items(&container["envFrom"]).next().is_some() {
        line(out, level, "Environment Variables from:");
        for source in items(&container["envFrom"]) {
            let (kind, reference) = if source["configMapRef"].is_object() {
                ("ConfigMap", &source["configMapRef"])
            } else {
                ("Secret", &source["secretRef"])
            };
            let prefix = source["prefix"].as_str().map_or(String::new(), |prefix| format!(" with prefix '{prefix}'"));
            let optional = reference["optional"].as_bool().unwrap_or(false);
            line(out, level + 1, &format!("{}\t{kind}{prefix}\tOptional: {optional}", text(&reference["name"])));
        }
    }
    if items(&container["env"]).next().is_none() {
        field(out, level, "Environment", "<none>");
        return;
    }
    line(out, level, "Environment:");
    for variable in items(&container["env"]) {
        field(out, level + 1, text(&variable["name"]), value_of(variable, pod));
    }
}

fn value_of(variable: &Value, pod: Option<&Value>) -> String {
    let from = &variable["valueFrom"];
    let key_of = |reference: &Value, kind: &str| {
        let optional = reference["optional"].as_bool().unwrap_or(false);
        format!(
            "<set to the key '{}' {kind} '{}'>\tOptional: {optional}",
            text(&reference["key"]),
            text(&reference["name"])
        )
    };
    if from["fieldRef"].is_object() {
        let version = from["fieldRef"]["apiVersion"].as_str().unwrap_or("v1");
        let path = text(&from["fieldRef"]["fieldPath"]);
        let known = pod.zip(path.strip_prefix("metadata.")).map_or("", |(pod, name)| text(&pod["metadata"][name]));
        format!("{known} ({version}:{path})")
    } else if from["resourceFieldRef"].is_object() {
        format!(" ({})", text(&from["resourceFieldRef"]["resource"]))
    } else if from["secretKeyRef"].is_object() {
        key_of(&from["secretKeyRef"], "in secret")
    } else if from["configMapKeyRef"].is_object() {
        key_of(&from["configMapKeyRef"], "of config map")
    } else {
        text(&variable["value"]).replace('\n', " ")
    }
}

fn mounts(out: &mut String, level: usize, mounts: &Value) {
    if items(mounts).next().is_none() {
        field(out, level, "Mounts", "<none>");
        return;
    }
    line(out, level, "Mounts:");
    let mut sorted: Vec<&Value> = items(mounts).collect();
    sorted.sort_by_key(|mount| text(&mount["mountPath"]));
    for mount in sorted {
        let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
        if let Some(path) = mount["subPath"].as_str() {
            flags.push(format!("path=\"{path}\""));
        }
        let shown = format!("{} from {} ({})", text(&mount["mountPath"]), text(&mount["name"]), flags.join(","));
        line(out, level + 1, &shown);
    }
}
