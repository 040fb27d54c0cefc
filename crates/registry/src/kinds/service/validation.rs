//! Checks of a Service and of its changes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, name};
use serde_json::json;

use super::{HEADLESS, is_headless};
use crate::check;
use crate::metadata;
use crate::pool::Family;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const NOT_ONCE_SET: &str = "may not change once set";
/// Maximum duration of a client's session affinity, in seconds.
const MAX_AFFINITY_SECONDS: i32 = 86_400;

pub(super) fn validate(object: &core::Service) -> Vec<FieldError> {
    let Some(spec) = &object.spec else { return vec![FieldError::required(FieldPath::new("spec"), "")] };
    let (path, mut errors) = (FieldPath::new("spec"), Vec::new());
    let kind = spec.type_.as_deref();
    check::one_of(kind, TYPES, path.child("type"), &mut errors);
    validate_ports(spec, &path, &mut errors);
    check::one_of(spec.session_affinity.as_deref(), &["ClientIP", "None"], path.child("sessionAffinity"), &mut errors);
    affinity(spec, &path, &mut errors);
    if let Some(selector) = &spec.selector {
        metadata::labels(selector.iter(), &path.child("selector"), &mut errors);
    }
    match kind {
        Some("ExternalName") => external_name(spec, &path, &mut errors),
        _ => cluster_ips(spec, &path, &mut errors),
    }
    if matches!(kind, Some("LoadBalancer" | "NodePort")) && is_headless(spec) {
        let detail = format!("may not be set to 'None' for {} services", kind.unwrap_or_default());
        errors.push(FieldError::invalid(path.child("clusterIPs").index(0), HEADLESS, detail));
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

pub(super) fn validate_update(new: &core::Service, old: &core::Service) -> Vec<FieldError> {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return Vec::new() };
    let path = FieldPath::new("spec");
    let mut errors = Vec::new();
    let is_external = |spec: &core::ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
    let are_headless = is_headless(new) && is_headless(old);
    if !is_external(new) && !is_external(old) && !are_headless {
        cluster_ips_update(new, old, &path, &mut errors);
    }
    if checks_health(new) && checks_health(old) && new.health_check_node_port != old.health_check_node_port {
        let port = new.health_check_node_port.unwrap_or_default();
        errors.push(FieldError::invalid(path.child("healthCheckNodePort"), port, check::IMMUTABLE));
    }
    errors
}

/// Checks that the first address and family stay. A second one may be added, and removed when the policy allows it.
fn cluster_ips_update(
    new: &core::ServiceSpec,
    old: &core::ServiceSpec,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let list = |spec: &core::ServiceSpec| spec.cluster_ips.clone().unwrap_or_default();
    let (new_ips, old_ips) = (list(new), list(old));
    let is_single = new.ip_family_policy.as_deref() == Some("SingleStack");
    let ips_path = path.child("clusterIPs");
    if new_ips.is_empty() && !old_ips.is_empty() {
        let detail = "primary clusterIP can not be unset";
        errors.push(FieldError::invalid(ips_path.index(0), &new_ips, detail));
        return;
    }
    for (index, (new_ip, old_ip)) in new_ips.iter().zip(&old_ips).enumerate() {
        if new_ip != old_ip {
            errors.push(FieldError::invalid(ips_path.index(index), &new_ips, NOT_ONCE_SET));
        }
    }
    if new_ips.len() < old_ips.len() && !is_single {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.push(FieldError::invalid(path.child("ipFamilyPolicy"), &new.ip_family_policy, detail));
    }
    let families = |spec: &core::ServiceSpec| spec.ip_families.clone().unwrap_or_default();
    let (new_families, old_families) = (families(new), families(old));
    for (index, (new_family, old_family)) in new_families.iter().zip(&old_families).enumerate() {
        if new_family != old_family {
            errors.push(FieldError::invalid(path.child("ipFamilies").index(index), &new_families, NOT_ONCE_SET));
        }
    }
}

fn external_name(spec: &core::ServiceSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let detail = "may not be set when `type` is 'ExternalName'";
    let has_address = spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty());
    if has_address || spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        errors.push(FieldError::forbidden(path.child("clusterIPs"), detail));
    }
    if spec.ip_families.as_ref().is_some_and(|families| !families.is_empty()) {
        errors.push(FieldError::forbidden(path.child("ipFamilies"), detail));
    }
    if spec.ip_family_policy.is_some() {
        errors.push(FieldError::forbidden(path.child("ipFamilyPolicy"), detail));
    }
    let target = spec.external_name.as_deref().unwrap_or_default();
    let path = path.child("externalName");
    check::required_name(target.trim_end_matches('.'), name::dns1123_subdomain, &path, errors);
}

/// Checks that `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` agree.
pub(super) fn cluster_ips(spec: &core::ServiceSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let (ips_path, families_path) = (path.child("clusterIPs"), path.child("ipFamilies"));
    match spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(_) if ips.is_empty() => errors.push(FieldError::required(ips_path.clone(), "")),
        Some(ip) if ips.first().is_some_and(|first| first != ip) => {
            errors.push(FieldError::invalid(ips_path.clone(), ips, "first value must match `clusterIP`"));
        }
        None if !ips.is_empty() => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(ips_path.clone(), ips, detail));
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (index, family) in families.iter().enumerate() {
        if Family::parse(family).is_none() {
            errors.push(FieldError::not_supported(families_path.index(index), family, &["IPv4", "IPv6"]));
        }
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(families_path.index(index), family));
        }
    }
    if families.len() > 2 {
        errors.push(FieldError::invalid(families_path, families, "may only hold up to 2 values"));
    }
    let policy = spec.ip_family_policy.as_deref();
    check::one_of_if_set(policy, FAMILY_POLICIES, path.child("ipFamilyPolicy"), errors);
    addresses(ips, families, &ips_path, errors);
}

fn addresses(ips: &[String], families: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if ips.first().is_some_and(|ip| ip == HEADLESS) {
        if ips.len() > 1 {
            errors.push(FieldError::invalid(path.clone(), ips, "'None' must be the first and only value"));
        }
        return;
    }
    for (index, ip) in ips.iter().enumerate() {
        check::ip(ip, &path.index(index), errors);
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(path.clone(), ips, "may only hold up to 2 values"));
    }
    // Only the checks that need an invalid address are left out. Otherwise a known error, which does not count on an
    // update, would hide new ones.
    let found: Vec<Option<Family>> = ips.iter().map(|ip| ip.parse::<IpAddr>().ok().map(Family::of)).collect();
    if let [Some(first), Some(second)] = found.as_slice()
        && first == second
    {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path.clone(), ips, detail));
    }
    for (index, (ip, family)) in ips.iter().zip(families).enumerate() {
        if found.get(index).is_some_and(|found| found.is_some_and(|found| found.as_str() != family.as_str())) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(path.index(index), ip, detail));
        }
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
        } else if node_port != 0 && !node_ports.insert((node_port, port.protocol.as_deref())) {
            errors.push(FieldError::duplicate(path.child("nodePort"), node_port));
        }
        if !numbers.insert((port.port, port.protocol.as_deref())) {
            errors.push(FieldError::duplicate(path, json!({"port": port.port, "protocol": port.protocol})));
        }
    }
}

/// Returns whether a load balancer asks each node if it runs a pod of the service.
fn checks_health(spec: &core::ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Checks fields that only externally reachable services may have.
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
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        let path = path.child("healthCheckNodePort");
        if !checks_health(spec) {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(path, port, detail));
        } else {
            check::port_number(port, path, errors);
        }
    }
}

/// Checks the affinity's timeout, which requires session affinity.
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
