//! Completes an update: allocated values that the client left out stay, and fields that the new type cannot have are
//! dropped.
//!
//! Upstream's rules are in `pkg/registry/core/service` (`patchAllocatedValues`, `normalizeClusterIPs`,
//! `dropTypeDependentFields`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{allocates_node_ports, checks_health, has_node_ports, is_reached_from_outside, needs_cluster_ip, remove};
use crate::value::{carry_over, equal, int, items, items_mut, text};

/// Carries over allocated values, so that a client need not read an object before it replaces it.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(&new["clusterIP"]).is_empty() {
            carry_over(new, old, "clusterIP");
        }
        if items(&new["clusterIPs"]).is_empty() && new["clusterIP"] == old["clusterIP"] {
            carry_over(new, old, "clusterIPs");
        }
    }
    if allocates_node_ports(old) && allocates_node_ports(new) {
        keep_node_ports(new, old);
    }
    if checks_health(old) && checks_health(new) && int(&new["healthCheckNodePort"]) == 0 {
        carry_over(new, old, "healthCheckNodePort");
    }
}

/// Keeps each port's node port, by the port's name, unless another port asks for that number.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let used: BTreeSet<i64> = node_ports(old).intersection(&node_ports(new)).copied().collect();
    let by_name: BTreeMap<&str, i64> =
        items(&old["ports"]).iter().map(|port| (text(&port["name"]), int(&port["nodePort"]))).collect();
    for port in items_mut(new, "ports").filter(|port| int(&port["nodePort"]) == 0) {
        let before = by_name.get(text(&port["name"])).copied().unwrap_or_default();
        if before != 0 && !used.contains(&before) {
            port["nodePort"] = before.into();
        }
    }
}

fn node_ports(spec: &Value) -> BTreeSet<i64> {
    items(&spec["ports"]).iter().map(|port| int(&port["nodePort"])).filter(|port| *port != 0).collect()
}

/// Makes `clusterIPs` follow `clusterIP`, the only field that old clients know.
pub(super) fn align_addresses(new: &mut Value, old: Option<&Value>) {
    let ip = text(&new["clusterIP"]).to_owned();
    let Some(old) = old else {
        if !ip.is_empty() && items(&new["clusterIPs"]).is_empty() {
            new["clusterIPs"] = json!([ip]);
        }
        return;
    };
    let same_list = equal(&new["clusterIPs"], &old["clusterIPs"]);
    let old_ip = text(&old["clusterIP"]);
    if ip == old_ip {
        if items(&new["clusterIPs"]).is_empty() && !items(&old["clusterIPs"]).is_empty() {
            carry_over(new, old, "clusterIPs");
        }
    } else if ip.is_empty() && same_list {
        remove(new, "clusterIPs");
    } else if same_list || items(&new["clusterIPs"]).is_empty() {
        new["clusterIPs"] = json!([ip]);
    }
}

/// Drops fields that the old type had and the new one cannot have. A field that the client has changed stays, and
/// validation refuses it.
pub(super) fn drop_type_dependent_fields(new: &mut Value, old: &Value) {
    let is_same = |new: &Value, field: &str| equal(&new[field], &old[field]);
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if is_same(new, "clusterIP") && is_same(new, "clusterIPs") {
            remove(new, "clusterIP");
            remove(new, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if is_same(new, field) {
                remove(new, field);
            }
        }
    }
    if has_node_ports(old) && !has_node_ports(new) && node_ports(old).is_superset(&node_ports(new)) {
        for port in items_mut(new, "ports") {
            remove(port, "nodePort");
        }
    }
    let is_balanced = |spec: &Value| spec["type"] == "LoadBalancer";
    let dependent = [
        ("healthCheckNodePort", checks_health(old) && !checks_health(new)),
        ("allocateLoadBalancerNodePorts", is_balanced(old) && !is_balanced(new)),
        ("loadBalancerClass", is_balanced(old) && !is_balanced(new)),
        ("externalTrafficPolicy", is_reached_from_outside(old) && !is_reached_from_outside(new)),
    ];
    for (field, is_lost) in dependent {
        if is_lost && is_same(new, field) {
            remove(new, field);
        }
    }
}
