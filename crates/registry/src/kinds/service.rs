//! Service: a stable address for pods. Addresses and node ports are allocated elsewhere; what was allocated is kept.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, name};
use serde_json::{Value, json};

use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::metadata;
use crate::table::{NONE, age_cell, column, name_cell, name_column, or_none, wide};
use crate::value::{carry_over, child, int, items, items_mut, set_default, set_default_text, text};

const HEADLESS: &str = "None";
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
/// The ports of nodes that services may take: Kubernetes' default.
const NODE_PORTS: RangeInclusive<i32> = 30_000..=32_767;
/// How long a client's affinity may last, in seconds.
const MAX_AFFINITY_SECONDS: i32 = 86_400;

pub struct Service;

impl Kind for Service {
    type Object = core::Service;

    const HAS_STATUS: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            name_column(),
            column("Type"),
            column("Cluster-IP"),
            column("External-IP"),
            column("Port(s)"),
            column("Age"),
            wide("Selector"),
        ]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let selector: Vec<String> = spec["selector"]
            .as_object()
            .map(|labels| labels.iter().map(|(key, value)| format!("{key}={}", text(value))).collect())
            .unwrap_or_default();
        vec![
            name_cell(object),
            spec["type"].clone(),
            or_none(text(&spec["clusterIP"])),
            Value::from(external_address(object)),
            or_none(&ports(spec)),
            age_cell(object, now),
            or_none(&selector.join(",")),
        ]
    }

    fn check_name(name: &str) -> Vec<String> {
        name::dns1035_label(name)
    }

    fn default(object: &mut Value) {
        let spec = child(object, "spec");
        set_default_text(spec, "sessionAffinity", "None");
        set_default_text(spec, "type", "ClusterIP");
        if spec["sessionAffinity"] == "ClientIP" {
            set_default(child(child(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", 10_800);
        }
        for port in items_mut(spec, "ports") {
            set_default_text(port, "protocol", "TCP");
            let target = &port["targetPort"];
            if target.is_null() || target == 0 || target == "" {
                port["targetPort"] = port["port"].clone();
            }
        }
        let kind = text(&spec["type"]).to_owned();
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            set_default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
        if kind != "ExternalName" {
            set_default_text(spec, "internalTrafficPolicy", "Cluster");
            set_default_text(spec, "ipFamilyPolicy", "SingleStack");
            let address = text(&spec["clusterIP"]).to_owned();
            set_default(spec, "ipFamilies", json!([if address.contains(':') { "IPv6" } else { "IPv4" }]));
            if !address.is_empty() {
                set_default(spec, "clusterIPs", json!([address]));
            }
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(new: &mut Value, old: &Value) {
        let (old, new) = (&old["spec"], child(new, "spec"));
        let needs_address = |spec: &Value| spec["type"] != "ExternalName";
        if needs_address(new) && needs_address(old) && text(&new["clusterIP"]).is_empty() {
            carry_over(new, old, "clusterIP");
            carry_over(new, old, "clusterIPs");
        }
        let needs_node_ports = |spec: &Value| matches!(text(&spec["type"]), "NodePort" | "LoadBalancer");
        if needs_node_ports(new) && needs_node_ports(old) {
            for port in items_mut(new, "ports").filter(|port| int(&port["nodePort"]) == 0) {
                let same = |other: &&Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
                if let Some(allocated) = items(&old["ports"]).iter().find(same) {
                    carry_over(port, allocated, "nodePort");
                }
            }
        }
    }

    fn validate(object: &core::Service) -> Vec<FieldError> {
        let Some(spec) = &object.spec else { return vec![FieldError::required(FieldPath::new("spec"), "")] };
        let (path, mut errors) = (FieldPath::new("spec"), Vec::new());
        let kind = spec.type_.as_deref();
        let headless = spec.cluster_ip.as_deref() == Some(HEADLESS);
        check::one_of(kind, TYPES, path.child("type"), &mut errors);
        validate_ports(spec, &path, &mut errors);
        check::one_of(
            spec.session_affinity.as_deref(),
            &["ClientIP", "None"],
            path.child("sessionAffinity"),
            &mut errors,
        );
        affinity(spec, &path, &mut errors);
        if let Some(selector) = &spec.selector {
            metadata::labels(selector.iter(), &path.child("selector"), &mut errors);
        }
        for (index, address) in spec.cluster_ips.iter().flatten().enumerate() {
            if address != HEADLESS {
                check::ip(address, &path.child("clusterIPs").index(index), &mut errors);
            }
        }
        let first = spec.cluster_ips.as_ref().and_then(|list| list.first());
        if first.map(String::as_str) != spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty()) {
            let detail = "first value must match `clusterIP`";
            errors.push(FieldError::invalid(path.child("clusterIPs"), &spec.cluster_ips, detail));
        }
        match kind {
            Some("ExternalName") => {
                let path = path.child("externalName");
                let target = spec.external_name.as_deref().unwrap_or_default();
                check::required_name(target.trim_end_matches('.'), name::dns1123_subdomain, &path, &mut errors);
                if spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
                    let path = FieldPath::new("spec").child("clusterIPs");
                    errors.push(FieldError::forbidden(path, "may not be set when `type` is 'ExternalName'"));
                }
            }
            Some("LoadBalancer" | "NodePort") if headless => {
                let detail = format!("may not be set to 'None' for {} services", kind.unwrap_or_default());
                errors.push(FieldError::invalid(path.child("clusterIPs").index(0), HEADLESS, detail));
            }
            _ => {}
        }
        traffic(spec, &path, &mut errors);
        let (external, internal) = (&spec.external_traffic_policy, &spec.internal_traffic_policy);
        check::one_of_if_set(external.as_deref(), POLICIES, path.child("externalTrafficPolicy"), &mut errors);
        check::one_of_if_set(internal.as_deref(), POLICIES, path.child("internalTrafficPolicy"), &mut errors);
        for (index, address) in spec.external_ips.iter().flatten().enumerate() {
            check::ip(address, &path.child("externalIPs").index(index), &mut errors);
        }
        errors
    }

    fn validate_update(new: &core::Service, old: &core::Service) -> Vec<FieldError> {
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return Vec::new() };
        let external = |spec: &core::ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
        let assigned = |ip: &Option<String>| ip.as_deref().is_some_and(|ip| !ip.is_empty());
        if !external(new) && !external(old) && assigned(&old.cluster_ip) && new.cluster_ip != old.cluster_ip {
            let path = FieldPath::new("spec").child("clusterIPs").index(0);
            return vec![FieldError::invalid(path, &new.cluster_ips, "may not change once set")];
        }
        Vec::new()
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let spec = &object["spec"];
        vec![("spec.clusterIP", text(&spec["clusterIP"]).to_owned()), ("spec.type", text(&spec["type"]).to_owned())]
    }
}

fn validate_ports(spec: &core::ServiceSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child("ports");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let may_have_none = spec.cluster_ip.as_deref() == Some(HEADLESS) || spec.type_.as_deref() == Some("ExternalName");
    if ports.is_empty() && !may_have_none {
        errors.push(FieldError::required(path.clone(), ""));
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match port.name.as_deref().unwrap_or_default() {
            "" if ports.len() > 1 => errors.push(FieldError::required(path.child("name"), "")),
            "" => {}
            port_name => {
                check::named(port_name, name::dns1123_label, &path.child("name"), errors);
                if !names.insert(port_name) {
                    errors.push(FieldError::duplicate(path.child("name"), port_name));
                }
            }
        }
        check::port_number(port.port, path.child("port"), errors);
        check::one_of(port.protocol.as_deref(), check::PROTOCOLS, path.child("protocol"), errors);
        if let Some(target) = &port.target_port {
            check::port(target, &path.child("targetPort"), errors);
        }
        let node_port = port.node_port.unwrap_or_default();
        if node_port != 0 && !matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(path.child("nodePort"), detail));
        } else if node_port != 0 && !NODE_PORTS.contains(&node_port) {
            let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
            let detail = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            errors.push(FieldError::invalid(path.child("nodePort"), node_port, detail));
        } else if node_port != 0 && !node_ports.insert((node_port, port.protocol.as_deref())) {
            errors.push(FieldError::duplicate(path.child("nodePort"), node_port));
        }
        if !numbers.insert((port.port, port.protocol.as_deref())) {
            errors.push(FieldError::duplicate(path, json!({"port": port.port, "protocol": port.protocol})));
        }
    }
}

/// What only services have that are reached from outside.
fn traffic(spec: &core::ServiceSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let kind = spec.type_.as_deref().unwrap_or_default();
    let is_external = matches!(kind, "LoadBalancer" | "NodePort")
        || kind == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    if let Some(policy) = spec.external_traffic_policy.as_deref().filter(|policy| !policy.is_empty() && !is_external) {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(path.child("externalTrafficPolicy"), policy, detail));
    }
    if spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) && kind != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(path.child("loadBalancerSourceRanges"), detail));
    }
    let checks_health = kind == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local");
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        let path = path.child("healthCheckNodePort");
        if !checks_health {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(path, port, detail));
        } else {
            check::port_number(port, path, errors);
        }
    }
}

/// How long a client stays with one pod is said only where it does.
fn affinity(spec: &core::ServiceSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child("sessionAffinityConfig");
    let Some(config) = &spec.session_affinity_config else { return };
    if spec.session_affinity.as_deref() == Some("None") {
        let detail = "must not be set when session affinity is None";
        errors.push(FieldError::forbidden(path, detail));
        return;
    }
    let seconds = config.client_ip.as_ref().and_then(|client_ip| client_ip.timeout_seconds);
    if let Some(seconds) = seconds.filter(|seconds| !(1..=MAX_AFFINITY_SECONDS).contains(seconds)) {
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.push(FieldError::invalid(path.child("clientIP").child("timeoutSeconds"), seconds, detail));
    }
}

fn ports(spec: &Value) -> String {
    let port = |port: &Value| match int(&port["nodePort"]) {
        0 => format!("{}/{}", int(&port["port"]), text(&port["protocol"])),
        node_port => format!("{}:{node_port}/{}", int(&port["port"]), text(&port["protocol"])),
    };
    items(&spec["ports"]).iter().map(port).collect::<Vec<_>>().join(",")
}

fn external_address(object: &Value) -> String {
    let spec = &object["spec"];
    let external: Vec<&str> = items(&spec["externalIPs"]).iter().map(text).collect();
    let list = match text(&spec["type"]) {
        "ExternalName" => return text(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress =
                items(&object["status"]["loadBalancer"]["ingress"]).iter().map(|ingress| match text(&ingress["ip"]) {
                    "" => text(&ingress["hostname"]),
                    ip => ip,
                });
            let all: Vec<&str> = ingress.filter(|address| !address.is_empty()).chain(external).collect();
            if all.is_empty() {
                return "<pending>".to_owned();
            }
            all
        }
        _ => external,
    };
    if list.is_empty() { NONE.to_owned() } else { list.join(",") }
}
