//! Services, ConfigMaps, Secrets, Namespaces, and all kinds without a specific description.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Related, field, items, line, metadata, or_none, scalar, text};

pub fn service(object: &Value, related: &Related, out: &mut String) {
    let spec = &object["spec"];
    metadata::name(object, out);
    metadata::labels_and_annotations(object, out);
    field(out, 0, "Selector", metadata::selector(&spec["selector"]));
    field(out, 0, "Type", text(&spec["type"]));
    let joined = |name: &str| items(&spec[name]).map(text).collect::<Vec<_>>().join(",");
    if let Some(policy) = spec["ipFamilyPolicy"].as_str() {
        field(out, 0, "IP Family Policy", policy);
    }
    if spec["ipFamilies"].is_array() {
        field(out, 0, "IP Families", joined("ipFamilies"));
    }
    field(out, 0, "IP", text(&spec["clusterIP"]));
    field(out, 0, "IPs", or_none(&joined("clusterIPs")));
    if let Some(name) = spec["externalName"].as_str().filter(|name| !name.is_empty()) {
        field(out, 0, "External Name", name);
    }
    for port in items(&spec["ports"]) {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let name = port["name"].as_str().unwrap_or("<unset>");
        field(out, 0, "Port", format!("{name}\t{}/{protocol}", scalar(&port["port"])));
        field(out, 0, "TargetPort", format!("{}/{protocol}", scalar(&port["targetPort"])));
        if let Some(node_port) = port["nodePort"].as_i64() {
            field(out, 0, "NodePort", format!("{name}\t{node_port}/{protocol}"));
        }
        field(out, 0, "Endpoints", endpoints(&related.endpoint_slices, port));
    }
    field(out, 0, "Session Affinity", text(&spec["sessionAffinity"]));
    if let Some(policy) = spec["internalTrafficPolicy"].as_str() {
        field(out, 0, "Internal Traffic Policy", policy);
    }
}

/// Formats the ready addresses of a port: three of them, and the number of the others.
fn endpoints(slices: &[Value], port: &Value) -> String {
    const SHOWN: usize = 3;
    let mut addresses = Vec::new();
    for slice in slices {
        let same = |known: &&Value| text(&known["name"]) == text(&port["name"]);
        let Some(number) = items(&slice["ports"]).find(same).and_then(|known| known["port"].as_i64()) else { continue };
        for endpoint in items(&slice["endpoints"]).filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            addresses.extend(items(&endpoint["addresses"]).map(|address| format!("{}:{number}", text(address))));
        }
    }
    let more = addresses.len().saturating_sub(SHOWN);
    addresses.truncate(SHOWN);
    let shown = addresses.join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

pub fn config_map(object: &Value, out: &mut String) {
    metadata::name(object, out);
    metadata::labels_and_annotations(object, out);
    line(out, 0, "\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        line(out, 0, &format!("{key}:\n----\n{}\n", text(value)));
    }
    line(out, 0, "\nBinaryData\n====");
    for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
        line(out, 0, &format!("{key}: {} bytes", decoded_length(value)));
    }
    line(out, 0, "");
}

/// Describes a Secret by the sizes of its values, because a description must not reveal them.
pub fn secret(object: &Value, out: &mut String) {
    metadata::name(object, out);
    metadata::labels_and_annotations(object, out);
    line(out, 0, "");
    field(out, 0, "Type", text(&object["type"]));
    line(out, 0, "\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        field(out, 0, key, format!("{} bytes", decoded_length(value)));
    }
}

fn decoded_length(value: &Value) -> usize {
    STANDARD.decode(text(value)).map_or(0, |bytes| bytes.len())
}

pub fn service_account(object: &Value, out: &mut String) {
    metadata::name(object, out);
    metadata::labels_and_annotations(object, out);
    for (title, list) in [("Image pull secrets", "imagePullSecrets"), ("Mountable secrets", "secrets")] {
        let names = items(&object[list]).map(|secret| text(&secret["name"])).collect::<Vec<_>>();
        // Each name is on its own line.
        field(out, 0, title, or_none(&names.join("\n\t")));
    }
    // Tokens are requested when needed and are not stored in Secrets.
    field(out, 0, "Tokens", "<none>");
}

pub fn namespace(object: &Value, out: &mut String) {
    field(out, 0, "Name", text(&object["metadata"]["name"]));
    metadata::labels_and_annotations(object, out);
    field(out, 0, "Status", text(&object["status"]["phase"]));
    for condition in items(&object["status"]["conditions"]) {
        field(out, 1, text(&condition["type"]), text(&condition["message"]));
    }
}

/// Describes any object by all its fields, with readable names.
pub fn any(object: &Value, out: &mut String) {
    field(out, 0, "Name", text(&object["metadata"]["name"]));
    field(out, 0, "Namespace", text(&object["metadata"]["namespace"]));
    metadata::labels_and_annotations(object, out);
    field(out, 0, "API Version", text(&object["apiVersion"]));
    field(out, 0, "Kind", text(&object["kind"]));
    let mut rest = object.clone();
    if let Some(fields) = rest.as_object_mut() {
        ["apiVersion", "kind"].iter().for_each(|name| {
            fields.remove(*name);
        });
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            ["name", "namespace", "labels", "annotations", "managedFields"].iter().for_each(|name| {
                metadata.remove(*name);
            });
        }
    }
    tree(out, 0, &rest);
}

fn tree(out: &mut String, level: usize, value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let title = readable(key);
        match value {
            Value::Object(_) => {
                line(out, level, &format!("{title}:"));
                tree(out, level + 1, value);
            }
            Value::Array(list) => {
                line(out, level, &format!("{title}:"));
                for item in list {
                    if item.is_object() {
                        tree(out, level + 1, item);
                    } else {
                        line(out, level + 1, &scalar(item));
                    }
                }
            }
            other => field(out, level, &title, or_none(&scalar(other))),
        }
    }
}

/// Makes a field name readable: `creationTimestamp` becomes `Creation Timestamp`. A key that is not a plain name stays.
fn readable(key: &str) -> String {
    if !key.chars().all(char::is_alphanumeric) {
        return key.to_owned();
    }
    let mut words = String::new();
    let mut previous = ' ';
    for character in key.chars() {
        if words.is_empty() {
            words.extend(character.to_uppercase());
        } else {
            if character.is_uppercase() && !previous.is_uppercase() {
                words.push(' ');
            }
            words.push(character);
        }
        previous = character;
    }
    words
}
