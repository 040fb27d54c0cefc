//! Endpoints: a Service's addresses in the older form.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, name};
use serde_json::Value;

use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{NONE, abbreviated, age_cell, column, name_cell, name_column};
use crate::value::{int, items, items_mut, set_default_text, text};

pub struct Endpoints;

impl Kind for Endpoints {
    type Object = core::Endpoints;

    fn columns() -> Vec<Column> {
        vec![name_column(), column("Endpoints"), column("Age")]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let mut list = Vec::new();
        for subset in items(&object["subsets"]) {
            let addresses = || items(&subset["addresses"]).iter().map(|address| text(&address["ip"]));
            if items(&subset["ports"]).is_empty() {
                list.extend(addresses().map(str::to_owned));
            }
            for port in items(&subset["ports"]) {
                list.extend(addresses().map(|ip| host_port(ip, int(&port["port"]))));
            }
        }
        vec![name_cell(object), Value::from(abbreviated(&list, NONE)), age_cell(object, now)]
    }

    fn default(object: &mut Value) {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                set_default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(object: &core::Endpoints) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (index, subset) in object.subsets.iter().flatten().enumerate() {
            let path = FieldPath::new("subsets").index(index);
            let ready = subset.addresses.as_deref().unwrap_or_default();
            let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
            if ready.is_empty() && not_ready.is_empty() {
                errors.push(FieldError::required(path.clone(), "must specify `addresses` or `notReadyAddresses`"));
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                for (index, address) in addresses.iter().enumerate() {
                    check::ip(&address.ip, &path.child(field).index(index).child("ip"), &mut errors);
                }
            }
            let ports = subset.ports.as_deref().unwrap_or_default();
            for (index, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(index);
                match port.name.as_deref().unwrap_or_default() {
                    "" if ports.len() > 1 => errors.push(FieldError::required(path.child("name"), "")),
                    "" => {}
                    port => check::named(port, name::dns1123_label, &path.child("name"), &mut errors),
                }
                check::port_number(port.port, path.child("port"), &mut errors);
                check::one_of(port.protocol.as_deref(), check::PROTOCOLS, path.child("protocol"), &mut errors);
            }
        }
        errors
    }
}

/// Formats an address as `10.1.2.3:80` or `[fd00::1]:80`.
fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}
