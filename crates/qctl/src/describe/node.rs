//! Nodes, with their pods and the requests of these.

use jiff::Timestamp;
use quorate_api::quantity::Quantity;
use serde_json::Value;

use super::{Related, field, items, line, long_time, metadata, or_none, scalar, text};
use crate::output::age_since;

pub fn describe(node: &Value, related: &Related, out: &mut String, now: Timestamp) {
    let (spec, status) = (&node["spec"], &node["status"]);
    field(out, 0, "Name", text(&node["metadata"]["name"]));
    field(out, 0, "Roles", or_none(&roles(node)));
    metadata::labels_and_annotations(node, out);
    field(out, 0, "CreationTimestamp", long_time(&node["metadata"]["creationTimestamp"]));
    taints(out, &spec["taints"]);
    field(out, 0, "Unschedulable", spec["unschedulable"].as_bool().unwrap_or(false));
    lease(out, related.lease.as_ref());
    conditions(out, &status["conditions"]);
    if items(&status["addresses"]).next().is_some() {
        line(out, 0, "Addresses:");
        for address in items(&status["addresses"]) {
            field(out, 1, text(&address["type"]), text(&address["address"]));
        }
    }
    for (title, name) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        if let Some(resources) = status[name].as_object().filter(|map| !map.is_empty()) {
            line(out, 0, &format!("{title}:"));
            resources.iter().for_each(|(key, quantity)| field(out, 1, key, scalar(quantity)));
        }
    }
    line(out, 0, "System Info:");
    for (title, name) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        field(out, 1, title, text(&status["nodeInfo"][name]));
    }
    for (title, name) in [("PodCIDR", "podCIDR"), ("ProviderID", "providerID")] {
        if let Some(value) = spec[name].as_str().filter(|value| !value.is_empty()) {
            field(out, 0, title, value);
        }
    }
    pods(out, &related.pods, &status["allocatable"], now);
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    roles.sort_unstable();
    roles.join(",")
}

fn taints(out: &mut String, taints: &Value) {
    let mut start = "Taints:";
    for taint in items(taints) {
        let value = taint["value"]
            .as_str()
            .filter(|value| !value.is_empty())
            .map_or(String::new(), |value| format!("={value}"));
        line(out, 0, &format!("{start}\t{}{value}:{}", text(&taint["key"]), text(&taint["effect"])));
        start = "";
    }
    if !start.is_empty() {
        field(out, 0, "Taints", "<none>");
    }
}

fn lease(out: &mut String, lease: Option<&Value>) {
    line(out, 0, "Lease:");
    let spec = lease.map(|lease| &lease["spec"]);
    let time = |name: &str| spec.map_or_else(|| "<unset>".to_owned(), |spec| long_time(&spec[name]));
    field(out, 1, "HolderIdentity", spec.map_or("<unset>", |spec| text(&spec["holderIdentity"])));
    field(out, 1, "AcquireTime", time("acquireTime"));
    field(out, 1, "RenewTime", time("renewTime"));
}

fn conditions(out: &mut String, conditions: &Value) {
    if items(conditions).next().is_none() {
        return;
    }
    line(out, 0, "Conditions:");
    line(out, 1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    line(out, 1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in items(conditions) {
        let row = format!(
            "{} \t{} \t{} \t{} \t{} \t{}",
            text(&condition["type"]),
            text(&condition["status"]),
            long_time(&condition["lastHeartbeatTime"]),
            long_time(&condition["lastTransitionTime"]),
            text(&condition["reason"]),
            text(&condition["message"]),
        );
        line(out, 1, &row);
    }
}

const SHOWN: [&str; 2] = ["cpu", "memory"];

fn pods(out: &mut String, pods: &[Value], allocatable: &Value, now: Timestamp) {
    let active: Vec<&Value> =
        pods.iter().filter(|pod| !["Succeeded", "Failed"].contains(&text(&pod["status"]["phase"]))).collect();
    field(out, 0, "Non-terminated Pods", format!("({} in total)", active.len()));
    line(out, 1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    line(out, 1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    for pod in &active {
        let mut cells = vec![
            text(&pod["metadata"]["namespace"]).to_owned(),
            text(&pod["metadata"]["name"]).to_owned(),
            String::new(),
        ];
        for resource in SHOWN {
            for kind in ["requests", "limits"] {
                cells.push(with_share(resource, pod_total(pod, kind, resource), allocatable));
            }
        }
        cells.push(age_since(pod["metadata"]["creationTimestamp"].as_str(), now));
        line(out, 1, &cells.join("\t"));
    }
    line(out, 0, "Allocated resources:");
    line(out, 1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    line(out, 1, "Resource\tRequests\tLimits");
    line(out, 1, "--------\t--------\t------");
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let total = |kind: &str| active.iter().map(|pod| pod_total(pod, kind, resource)).sum::<i128>();
        let row = ["requests", "limits"].map(|kind| with_share(resource, total(kind), allocatable));
        line(out, 1, &format!("{resource}\t{}", row.join("\t")));
    }
}

/// Returns the sum of the containers' amounts, or the largest init container's if that is more, in thousandths.
fn pod_total(pod: &Value, kind: &str, resource: &str) -> i128 {
    let of = |container: &Value| milli(&container["resources"][kind][resource]);
    let main: i128 = items(&pod["spec"]["containers"]).map(of).sum();
    let init = items(&pod["spec"]["initContainers"]).map(of).max().unwrap_or(0);
    main.max(init)
}

fn milli(value: &Value) -> i128 {
    let text = scalar(value);
    if text.is_empty() { 0 } else { Quantity::parse(&text).map_or(0, |quantity| quantity.milli_value()) }
}

/// Formats an amount with its share of the allocatable amount: `250m (12%)`.
fn with_share(resource: &str, amount: i128, allocatable: &Value) -> String {
    let available = milli(&allocatable[resource]);
    let share = if available > 0 { amount * 100 / available } else { 0 };
    let shown = if resource == "cpu" {
        if amount % 1000 == 0 { (amount / 1000).to_string() } else { format!("{amount}m") }
    } else {
        binary(amount / 1000)
    };
    format!("{shown} ({share}%)")
}

/// Formats bytes with the largest binary suffix that leaves a whole number.
fn binary(bytes: i128) -> String {
    let mut value = bytes;
    let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti"].iter();
    let mut suffix = suffixes.next().unwrap_or(&"");
    while value != 0 && value % 1024 == 0 {
        let Some(next) = suffixes.next() else { break };
        (value, suffix) = (value / 1024, next);
    }
    format!("{value}{suffix}")
}
