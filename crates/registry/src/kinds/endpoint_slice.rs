//! EndpointSlice: a part of a Service's addresses.

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1 as discovery;
use quorate_api::{FieldError, FieldPath, name};
use serde_json::Value;

use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{abbreviated, age_cell, column, name_cell, name_column};
use crate::value::{equal, items, items_mut, set_default, set_default_text, text};

const UNSET: &str = "<unset>";
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 100;
const MAX_ADDRESSES: usize = 100;

pub struct EndpointSlice;

impl Kind for EndpointSlice {
    type Object = discovery::EndpointSlice;

    const COUNTS_GENERATIONS: bool = true;

    fn columns() -> Vec<Column> {
        vec![name_column(), column("AddressType"), column("Ports"), column("Endpoints"), column("Age")]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let port = |port: &Value| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        };
        let ports: Vec<String> = items(&object["ports"]).iter().map(port).collect();
        let addresses = items(&object["endpoints"]).iter().flat_map(|e| items(&e["addresses"]));
        let addresses: Vec<String> = addresses.map(|address| text(address).to_owned()).collect();
        vec![
            name_cell(object),
            object["addressType"].clone(),
            Value::from(abbreviated(&ports, UNSET)),
            Value::from(abbreviated(&addresses, UNSET)),
            age_cell(object, now),
        ]
    }

    fn default(object: &mut Value) {
        for port in items_mut(object, "ports") {
            set_default(port, "name", "");
            set_default_text(port, "protocol", "TCP");
        }
    }

    fn starts_new_generation(new: &Value, old: &Value) -> bool {
        ["endpoints", "ports"].iter().any(|field| !equal(&new[*field], &old[*field]))
            || !equal(&new["metadata"]["labels"], &old["metadata"]["labels"])
    }

    fn validate(object: &discovery::EndpointSlice) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let family = object.address_type.as_str();
        check::one_of(Some(family), &["FQDN", "IPv4", "IPv6"], FieldPath::new("addressType"), &mut errors);
        validate_endpoints(object.endpoints.as_deref().unwrap_or_default(), family, &mut errors);
        validate_ports(object.ports.as_deref().unwrap_or_default(), &mut errors);
        errors
    }

    fn validate_update(new: &discovery::EndpointSlice, old: &discovery::EndpointSlice) -> Vec<FieldError> {
        if new.address_type == old.address_type {
            return Vec::new();
        }
        vec![FieldError::invalid(FieldPath::new("addressType"), &new.address_type, check::IMMUTABLE)]
    }
}

fn validate_endpoints(endpoints: &[discovery::Endpoint], family: &str, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(check::too_many(path.clone(), endpoints.len(), MAX_ENDPOINTS));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index).child("addresses");
        if endpoint.addresses.is_empty() {
            errors.push(FieldError::required(path.clone(), "must contain at least 1 address"));
        }
        if endpoint.addresses.len() > MAX_ADDRESSES {
            errors.push(check::too_many(path.clone(), endpoint.addresses.len(), MAX_ADDRESSES));
        }
        for (index, address) in endpoint.addresses.iter().enumerate() {
            let path = path.index(index);
            match family {
                "FQDN" => check::named(address, name::dns1123_subdomain, &path, errors),
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                    errors.push(FieldError::invalid(path, address, "must be an IPv4 address"));
                }
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                    errors.push(FieldError::invalid(path, address, "must be an IPv6 address"));
                }
                _ => {}
            }
        }
    }
}

fn validate_ports(ports: &[discovery::EndpointPort], errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("ports");
    if ports.len() > MAX_PORTS {
        errors.push(check::too_many(path.clone(), ports.len(), MAX_PORTS));
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let port_name = port.name.as_deref().unwrap_or_default();
        if !port_name.is_empty() {
            check::named(port_name, name::dns1123_label, &path.child("name"), errors);
        }
        if !names.insert(port_name) {
            errors.push(FieldError::duplicate(path.child("name"), port_name));
        }
        if let Some(number) = port.port {
            check::port_number(number, path.child("port"), errors);
        }
        check::one_of(port.protocol.as_deref(), check::PROTOCOLS, path.child("protocol"), errors);
    }
}
