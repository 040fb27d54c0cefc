//! Service: a stable address for pods. Addresses and node ports are allocated elsewhere; what was allocated is kept.

use std::collections::BTreeSet;

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
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
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
        }
        if !numbers.insert((port.port, port.protocol.as_deref())) {
            errors.push(FieldError::duplicate(path, json!({"port": port.port, "protocol": port.protocol})));
        }
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
