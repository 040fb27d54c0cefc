//! Service: a stable address for pods.

mod families;
mod pools;
mod printing;
mod update;
mod validation;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, name};
use serde_json::{Value, json};

use crate::descriptor::Column;
use crate::kind::Kind;
use crate::pool::Pooled;
use crate::value::{child, items, items_mut, set_default, set_default_text, text};

const HEADLESS: &str = "None";
/// Go's zero time. Kubernetes accepts a condition of a Service without a time, and shows null; typed clients require one.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

pub struct Service;

impl Kind for Service {
    type Object = core::Service;

    const HAS_STATUS: bool = true;

    fn columns() -> Vec<Column> {
        printing::columns()
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        printing::cells(object, now)
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
        } else if spec["sessionAffinity"] == "None" {
            remove(spec, "sessionAffinityConfig");
        }
        for port in items_mut(spec, "ports") {
            set_default_text(port, "protocol", "TCP");
            let target = &port["targetPort"];
            if target.is_null() || target == 0 || target == "" {
                port["targetPort"] = port["port"].clone();
            }
        }
        if is_reached_from_outside(spec) {
            set_default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        match text(&spec["type"]) {
            "LoadBalancer" => {
                set_default(spec, "allocateLoadBalancerNodePorts", true);
                set_default_text(spec, "internalTrafficPolicy", "Cluster");
            }
            "ClusterIP" | "NodePort" => set_default_text(spec, "internalTrafficPolicy", "Cluster"),
            _ => {}
        }
        if object["spec"]["type"] == "LoadBalancer" {
            let ingress = object.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
            for address in ingress.into_iter().flatten().filter(|address| !text(&address["ip"]).is_empty()) {
                set_default_text(address, "ipMode", "VIP");
            }
        }
        if let Some(status) = object.get_mut("status") {
            items_mut(status, "conditions").for_each(|condition| set_default(condition, "lastTransitionTime", NO_TIME));
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
        update::align_addresses(child(object, "spec"), None);
    }

    fn prepare_update(new: &mut Value, old: &Value) {
        if new["spec"]["type"] != "LoadBalancer" {
            child(new, "status")["loadBalancer"] = json!({});
        }
        let (old, new) = (&old["spec"], child(new, "spec"));
        update::keep_allocated(new, old);
        update::align_addresses(new, Some(old));
        update::drop_type_dependent_fields(new, old);
    }

    fn validate(object: &core::Service) -> Vec<FieldError> {
        validation::validate(object)
    }

    fn validate_update(new: &core::Service, old: &core::Service) -> Vec<FieldError> {
        validation::validate_update(new, old)
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let spec = &object["spec"];
        vec![("spec.clusterIP", text(&spec["clusterIP"]).to_owned()), ("spec.type", text(&spec["type"]).to_owned())]
    }

    fn pooled() -> Option<&'static dyn Pooled> {
        Some(&pools::ServicePools)
    }
}

fn is_headless(spec: &core::ServiceSpec) -> bool {
    spec.cluster_ips.as_ref().and_then(|ips| ips.first()).or(spec.cluster_ip.as_ref()).is_some_and(|ip| ip == HEADLESS)
}

/// Returns whether the service has a cluster IP, or would have one if it were not headless.
fn needs_cluster_ip(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(text(&spec["type"]), "NodePort" | "LoadBalancer")
}

/// Returns whether node ports are allocated for ports that name none.
fn allocates_node_ports(spec: &Value) -> bool {
    match text(&spec["type"]) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Returns whether a load balancer asks each node if it runs a pod of the service.
fn checks_health(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn is_reached_from_outside(spec: &Value) -> bool {
    has_node_ports(spec) || spec["type"] == "ClusterIP" && !items(&spec["externalIPs"]).is_empty()
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests;
