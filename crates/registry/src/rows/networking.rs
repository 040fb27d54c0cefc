//! Ingresses, network policies, and the allocation objects of services.

use std::net::IpAddr;

use quorate_api::{FieldError, FieldPath, LabelSelector, name};
use serde_json::{Value, json};

use super::{Row, row};
use crate::check;
use crate::table::{Cell, NONE, or_none, printed, printed_age, printed_name, selector_text};
use crate::value::{at, child, items, items_mut, set_default, set_default_text, text, typed};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

pub(super) fn rows() -> Vec<Row> {
    let group = "networking.k8s.io";
    vec![
        row(group, "Ingress", "ingresses").short(&["ing"]).status().generations().validate(ingress).columns(vec![
            printed_name(),
            printed("Class", Cell::FieldOr("spec.ingressClassName", NONE)),
            printed("Hosts", Cell::Of(hosts)),
            printed("Address", Cell::Of(addresses)),
            printed(
                "Ports",
                Cell::Of(|object| if items(at(object, "spec.tls")).is_empty() { "80" } else { "80, 443" }.into()),
            ),
            printed_age(),
        ]),
        row(group, "IngressClass", "ingressclasses")
            .cluster()
            .generations()
            .default(|object| {
                if let Some(parameters) = child(object, "spec").get_mut("parameters").filter(|value| value.is_object())
                {
                    set_default(parameters, "scope", "Cluster");
                }
            })
            .validate(ingress_class)
            .immutable(&["spec.controller"])
            .columns(vec![
                printed_name(),
                printed("Controller", Cell::Field("spec.controller")),
                printed("Parameters", Cell::Of(parameters)),
                printed_age(),
            ]),
        row(group, "IPAddress", "ipaddresses").short(&["ip"]).cluster().named_by(address_name).columns(vec![
            printed_name(),
            printed("ParentRef", Cell::Of(parent)),
            printed_age(),
        ]),
        row(group, "NetworkPolicy", "networkpolicies")
            .short(&["netpol"])
            .generations()
            .default(default_policy)
            .validate(policy)
            .columns(vec![
                printed_name(),
                printed("Pod-Selector", Cell::Of(|object| or_none(&selector_text(at(object, "spec.podSelector"))))),
                printed_age(),
            ]),
        row(group, "ServiceCIDR", "servicecidrs")
            .cluster()
            .status()
            .validate(service_cidr)
            .immutable(&["spec.cidrs"])
            .columns(vec![printed_name(), printed("CIDRs", Cell::Of(cidrs)), printed_age()]),
    ]
}

fn hosts(object: &Value) -> Value {
    let hosts: Vec<String> = items(at(object, "spec.rules"))
        .iter()
        .map(|rule| text(&rule["host"]).to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    crate::table::abbreviated(&hosts, "*").into()
}

fn addresses(object: &Value) -> Value {
    let points = items(at(object, "status.loadBalancer.ingress")).iter();
    let named = points.map(|point| text(if point["ip"].is_string() { &point["ip"] } else { &point["hostname"] }));
    named.collect::<Vec<_>>().join(",").into()
}

fn parameters(object: &Value) -> Value {
    let reference = at(object, "spec.parameters");
    if reference.is_null() {
        return NONE.into();
    }
    let group = text(&reference["apiGroup"]);
    let kind = text(&reference["kind"]);
    let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    format!("{kind}/{}", text(&reference["name"])).into()
}

fn parent(object: &Value) -> Value {
    let parent = at(object, "spec.parentRef");
    let parts = ["resource", "group", "namespace", "name"].map(|field| text(&parent[field]));
    let [resource, group, namespace, name] = parts;
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    [resource.as_str(), namespace, name]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/")
        .into()
}

fn cidrs(object: &Value) -> Value {
    items(at(object, "spec.cidrs")).iter().map(text).collect::<Vec<_>>().join(",").into()
}

fn ingress(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let rules = items(&spec["rules"]);
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(path, spec, detail));
        return;
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], &path.child("defaultBackend"), errors);
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        check::named(class, name::dns1123_subdomain, &path.child("ingressClassName"), errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        host(text(&rule["host"]), &path.child("host"), errors);
        if rule["http"].is_null() {
            continue;
        }
        let path = path.child("http").child("paths");
        let paths = items(at(rule, "http.paths"));
        if paths.is_empty() {
            errors.push(FieldError::required(path.clone(), ""));
        }
        for (index, one) in paths.iter().enumerate() {
            http_path(one, &path.index(index), errors);
        }
    }
    for (index, tls) in items(&spec["tls"]).iter().enumerate() {
        for (nth, name) in items(&tls["hosts"]).iter().enumerate() {
            host(text(name), &path.child("tls").index(index).child("hosts").index(nth), errors);
        }
    }
}

fn host(host: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path.clone(), host, "must be a DNS name, not an IP address"));
        return;
    }
    check::named(host.strip_prefix("*.").unwrap_or(host), name::dns1123_subdomain, path, errors);
}

fn http_path(one: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let kind = one["pathType"].as_str();
    match kind {
        None => errors.push(FieldError::required(path.child("pathType"), "pathType must be specified")),
        Some(kind) => check::one_of(Some(kind), PATH_TYPES, path.child("pathType"), errors),
    }
    let given = text(&one["path"]);
    let is_free = kind == Some("ImplementationSpecific") && given.is_empty();
    if !is_free && !given.starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), given, "must be an absolute path"));
    }
    if kind != Some("ImplementationSpecific") {
        for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| given.contains(part)) {
            errors.push(FieldError::invalid(path.child("path"), given, format!("must not contain '{part}'")));
        }
    }
    backend(&one["backend"], &path.child("backend"), errors);
}

fn backend(backend: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let service = &backend["service"];
    match (service.is_object(), backend["resource"].is_object()) {
        (true, true) => {
            errors.push(FieldError::invalid(path.clone(), "", "cannot set both resource and service backends"));
        }
        (false, false) => errors.push(FieldError::required(path.clone(), "port name or number is required")),
        (false, true) => {}
        (true, false) => {
            let path = path.child("service");
            check::required_name(text(&service["name"]), name::dns1035_label, &path.child("name"), errors);
            let (port, at) = (&service["port"], path.child("port"));
            let (name, number) = (text(&port["name"]), port["number"].as_i64().unwrap_or_default());
            match (name.is_empty(), number) {
                (true, 0) => errors.push(FieldError::required(path, "port name or number is required")),
                (true, number) => check::port_number(number, at.child("number"), errors),
                (false, 0) => check::named(name, check::port_name, &at.child("name"), errors),
                (false, _) => {
                    errors.push(FieldError::invalid(path, "", "cannot set both port name & port number"));
                }
            }
        }
    }
}

fn ingress_class(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("controller");
    let controller = text(at(object, "spec.controller"));
    if controller.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !controller.contains('/') {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, controller, detail));
    }
}

fn address_name(name: &str) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        Ok(address) => vec![format!("must be in canonical form (\"{address}\")")],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

fn default_policy(object: &mut Value) {
    let spec = child(object, "spec");
    child(spec, "podSelector");
    if items(&spec["policyTypes"]).is_empty() {
        let egress = !items(&spec["egress"]).is_empty();
        spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
    for direction in ["ingress", "egress"] {
        for rule in items_mut(spec, direction) {
            for port in items_mut(rule, "ports") {
                set_default_text(port, "protocol", "TCP");
            }
        }
    }
}

fn policy(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    selector(&spec["podSelector"], &path.child("podSelector"), errors);
    let types = items(&spec["policyTypes"]);
    if types.len() > 2 {
        errors.push(check::too_many(path.child("policyTypes"), types.len(), 2));
    }
    for (index, kind) in types.iter().enumerate() {
        check::one_of(kind.as_str(), &["Egress", "Ingress"], path.child("policyTypes").index(index), errors);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(&spec[direction]).iter().enumerate() {
            let path = path.child(direction).index(index);
            for (index, port) in items(&rule["ports"]).iter().enumerate() {
                policy_port(port, &path.child("ports").index(index), errors);
            }
            for (index, peer) in items(&rule[peers]).iter().enumerate() {
                policy_peer(peer, &path.child(peers).index(index), errors);
            }
        }
    }
}

fn policy_port(port: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    check::one_of_if_set(port["protocol"].as_str(), check::PROTOCOLS, path.child("protocol"), errors);
    if let Some(number) = typed(&port["port"]) {
        check::port(&number, &path.child("port"), errors);
    }
    if let Some(end) = port["endPort"].as_i64() {
        let at = path.child("endPort");
        match port["port"].as_i64() {
            Some(start) if end < start => {
                errors.push(FieldError::invalid(at, end, "must be greater than or equal to `port`"));
            }
            Some(_) => check::port_number(end, at, errors),
            None => errors
                .push(FieldError::required(at, "may not be specified when `port` is not specified or non-numeric")),
        }
    }
}

fn policy_peer(peer: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let has = |field: &str| peer[field].is_object();
    if has("ipBlock") {
        if has("podSelector") || has("namespaceSelector") {
            errors.push(FieldError::forbidden(path.clone(), "may not specify both ipBlock and another peer"));
        }
        let at = path.child("ipBlock").child("cidr");
        let cidr = text(&peer["ipBlock"]["cidr"]);
        if !cidr.is_empty() && !is_cidr(cidr) {
            errors.push(not_a_cidr(at, cidr));
        }
        for (index, except) in items(&peer["ipBlock"]["except"]).iter().map(text).enumerate() {
            if !is_cidr(except) {
                errors.push(not_a_cidr(path.child("ipBlock").child("except").index(index), except));
            }
        }
    } else if !has("podSelector") && !has("namespaceSelector") {
        errors.push(FieldError::required(path.clone(), "must specify a peer"));
    }
    for field in ["podSelector", "namespaceSelector"] {
        selector(&peer[field], &path.child(field), errors);
    }
}

fn not_a_cidr(path: FieldPath, cidr: &str) -> FieldError {
    FieldError::invalid(path, cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= max)
}

/// Checks a label selector.
pub fn selector(selector: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(parsed) = typed(selector)
        && let Err(error) = LabelSelector::from_object(&parsed)
    {
        errors.push(FieldError::invalid(path.clone(), selector, error.to_string()));
    }
}

fn service_cidr(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("cidrs");
    let cidrs = items(at(object, "spec.cidrs"));
    if cidrs.is_empty() {
        errors.push(FieldError::required(path.clone(), "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        errors.push(FieldError::invalid(path.clone(), cidrs, "may only hold up to 2 values"));
    }
    for (index, cidr) in cidrs.iter().map(text).enumerate().filter(|(_, cidr)| !is_cidr(cidr)) {
        errors.push(not_a_cidr(path.index(index), cidr));
    }
    if let [first, second] = cidrs
        && text(first).contains(':') == text(second).contains(':')
    {
        errors.push(FieldError::invalid(
            path,
            cidrs,
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ));
    }
}
