//! The columns and cells of a Service.

use jiff::Timestamp;
use serde_json::Value;

use crate::descriptor::Column;
use crate::table::{NONE, age_cell, column, name_cell, name_column, or_none, wide};
use crate::value::{int, items, text};

pub(super) fn columns() -> Vec<Column> {
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

pub(super) fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
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
