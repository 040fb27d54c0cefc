//! The addresses and node ports that a Service takes from the cluster's pools.

use std::collections::BTreeSet;
use std::net::IpAddr;

use quorate_api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::{HEADLESS, allocates_node_ports, checks_health, families, has_node_ports, needs_cluster_ip};
use crate::pool::{Claim, Item, Pool, PoolName, Pooled, Pools, Refusal, Slot, Unmet};
use crate::value::{child, int, items, text};

const PORT_TAKEN: &str = "provided port is already allocated";

pub(super) struct ServicePools;

impl Pooled for ServicePools {
    fn fit(&self, object: &mut Value, old: Option<&Value>, pools: &Pools) -> Vec<FieldError> {
        let mut errors = families::complete(child(object, "spec"), old.map(|old| &old["spec"]), pools);
        if errors.is_empty() {
            errors = outside(object, &self.claims(object, old), pools);
        }
        errors
    }

    fn claims(&self, object: &Value, old: Option<&Value>) -> Vec<Claim> {
        let held = old.map(|old| self.holds(old)).unwrap_or_default();
        let (spec, old) = (&object["spec"], old.map(|old| &old["spec"]));
        let mut claims = Vec::new();
        address_claims(spec, old, &held, &mut claims);
        if has_node_ports(spec) {
            port_claims(spec, old, &held, &mut claims);
        }
        if checks_health(spec) {
            let slots = vec![Slot::HealthCheckNodePort];
            match port(&spec["healthCheckNodePort"]) {
                Some(wanted) if held.contains(&Item::Port(wanted)) => {}
                wanted => claims.push(Claim { pool: PoolName::Ports, wanted: wanted.map(Item::Port), slots }),
            }
        }
        claims
    }

    fn assign(&self, object: &mut Value, claim: &Claim, item: Item) {
        let spec = child(object, "spec");
        for slot in &claim.slots {
            match (slot, item) {
                (Slot::ClusterIp(index), Item::Address(address)) => assign_address(spec, *index, address),
                (Slot::NodePort(index), Item::Port(port)) => spec["ports"][*index]["nodePort"] = port.into(),
                (Slot::HealthCheckNodePort, Item::Port(port)) => spec["healthCheckNodePort"] = port.into(),
                _ => {}
            }
        }
    }

    fn holds(&self, object: &Value) -> Vec<Item> {
        let spec = &object["spec"];
        let mut held = BTreeSet::new();
        if needs_cluster_ip(spec) {
            let listed = items(&spec["clusterIPs"]).iter();
            let addresses = listed.chain([&spec["clusterIP"]]).filter_map(|ip| text(ip).parse().ok());
            held.extend(addresses.map(Item::Address));
        }
        if has_node_ports(spec) {
            held.extend(items(&spec["ports"]).iter().filter_map(|p| port(&p["nodePort"])).map(Item::Port));
        }
        if checks_health(spec) {
            held.extend(port(&spec["healthCheckNodePort"]).map(Item::Port));
        }
        held.into_iter().collect()
    }

    fn refusal(&self, object: &Value, claim: &Claim, unmet: Unmet) -> Refusal {
        let spec = &object["spec"];
        let path = FieldPath::new("spec");
        let full = "range is full";
        match (claim.slots.first(), claim.wanted.filter(|_| unmet == Unmet::Taken)) {
            (Some(Slot::NodePort(_)), None) => Refusal::Internal(format!("failed to allocate a nodePort: {full}")),
            (Some(Slot::NodePort(index)), Some(wanted)) => {
                let path = path.child("ports").index(*index).child("nodePort");
                Refusal::Invalid(FieldError::invalid(path, number(wanted), PORT_TAKEN))
            }
            (Some(Slot::HealthCheckNodePort), None) => {
                Refusal::Internal(format!("failed to allocate a HealthCheck NodePort: {full}"))
            }
            (Some(Slot::HealthCheckNodePort), Some(wanted)) => {
                let detail = format!("failed to allocate requested HealthCheck NodePort {wanted}: {PORT_TAKEN}");
                Refusal::Invalid(FieldError::invalid(path.child("healthCheckNodePort"), number(wanted), detail))
            }
            (_, None) => Refusal::Internal(format!("failed to allocate a serviceIP: {full}")),
            (_, Some(wanted)) => {
                let detail = format!("failed to allocate IP {wanted}: provided IP is already allocated");
                Refusal::Invalid(FieldError::invalid(path.child("clusterIPs"), &spec["clusterIPs"], detail))
            }
        }
    }
}

/// Returns errors for requested items that no pool contains.
fn outside(object: &Value, claims: &[Claim], pools: &Pools) -> Vec<FieldError> {
    let spec = &object["spec"];
    let path = FieldPath::new("spec");
    let mut errors = Vec::new();
    // A number that is no valid port has no item.
    for (index, number) in items(&spec["ports"]).iter().map(|port| int(&port["nodePort"])).enumerate() {
        if has_node_ports(spec) && number != 0 && u16::try_from(number).is_err() {
            let path = path.child("ports").index(index).child("nodePort");
            errors.push(FieldError::invalid(path, number, ports_allowed(pools)));
        }
    }
    for claim in claims {
        let Some(wanted) = claim.wanted.filter(|wanted| !pools.contains(*wanted)) else { continue };
        errors.push(match (claim.slots.first(), pools.pool(claim.pool)) {
            (Some(Slot::NodePort(index)), _) => {
                let path = path.child("ports").index(*index).child("nodePort");
                FieldError::invalid(path, number(wanted), ports_allowed(pools))
            }
            (Some(Slot::HealthCheckNodePort), _) => {
                FieldError::invalid(path.child("healthCheckNodePort"), number(wanted), ports_allowed(pools))
            }
            (_, pool) => {
                let mut detail =
                    format!("failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range");
                if let Some(Pool::Addresses(block)) = pool {
                    detail.push_str(&format!(". The range of valid IPs is {block}"));
                }
                FieldError::invalid(path.child("clusterIPs"), &spec["clusterIPs"], detail)
            }
        });
    }
    errors
}

fn ports_allowed(pools: &Pools) -> String {
    let ports = pools.node_ports();
    let (first, last) = (ports.start(), ports.end());
    format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
}

fn address_claims(spec: &Value, old: Option<&Value>, held: &[Item], claims: &mut Vec<Claim>) {
    let headless = |spec: &Value| needs_cluster_ip(spec) && spec["clusterIP"] == HEADLESS;
    // Validation keeps a headless service headless.
    if !needs_cluster_ip(spec) || headless(spec) || old.is_some_and(headless) {
        return;
    }
    let has_one = |index: usize| {
        let old = old.filter(|old| needs_cluster_ip(old));
        old.is_some_and(|old| !text(&old["clusterIPs"][index]).is_empty())
    };
    for (index, family) in families::families(spec).into_iter().enumerate() {
        // Validation also keeps an address from changing.
        if has_one(index) {
            continue;
        }
        let wanted = text(&spec["clusterIPs"][index]).parse().ok().map(Item::Address);
        if wanted.is_none_or(|wanted| !held.contains(&wanted)) {
            claims.push(Claim { pool: PoolName::Addresses(family), wanted, slots: vec![Slot::ClusterIp(index)] });
        }
    }
}

fn port_claims(spec: &Value, old: Option<&Value>, held: &[Item], claims: &mut Vec<Claim>) {
    let first = claims.len();
    let ports = items(&spec["ports"]);
    for (index, wanted) in ports.iter().enumerate().filter_map(|(i, p)| Some((i, port(&p["nodePort"])?))) {
        let wanted = Item::Port(wanted);
        // Ports of two protocols may share a number.
        let is_claimed = claims[first..].iter().any(|claim| claim.wanted == Some(wanted));
        if !held.contains(&wanted) && !is_claimed {
            claims.push(Claim { pool: PoolName::Ports, wanted: Some(wanted), slots: vec![Slot::NodePort(index)] });
        }
    }
    if !allocates_node_ports(spec) {
        return;
    }
    for (index, this) in ports.iter().enumerate().filter(|(_, p)| port(&p["nodePort"]).is_none()) {
        // A new service gets one number for a port that it has in two protocols.
        let shares = |claim: &&mut Claim| {
            let is_same = |slot: &Slot| matches!(slot, Slot::NodePort(other) if ports[*other]["port"] == this["port"]);
            old.is_none() && claim.slots.iter().any(is_same)
        };
        match claims[first..].iter_mut().find(shares) {
            Some(claim) => claim.slots.push(Slot::NodePort(index)),
            None => claims.push(Claim { pool: PoolName::Ports, wanted: None, slots: vec![Slot::NodePort(index)] }),
        }
    }
}

fn assign_address(spec: &mut Value, index: usize, address: IpAddr) {
    let address = address.to_string();
    if !spec["clusterIPs"].is_array() {
        spec["clusterIPs"] = json!([]);
    }
    if let Some(list) = spec["clusterIPs"].as_array_mut() {
        match list.get_mut(index) {
            Some(place) => *place = address.clone().into(),
            None => list.push(address.clone().into()),
        }
    }
    if index == 0 {
        spec["clusterIP"] = address.into();
    }
}

fn port(value: &Value) -> Option<u16> {
    u16::try_from(int(value)).ok().filter(|port| *port != 0)
}

fn number(item: Item) -> Value {
    match item {
        Item::Port(port) => port.into(),
        Item::Address(address) => address.to_string().into(),
    }
}
