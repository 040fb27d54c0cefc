//! The metadata at the top of a description: name, labels, annotations and owner.

use serde_json::Value;

use super::{field, items, line, scalar, text};
use crate::three_way::LAST_APPLIED;

pub fn name(object: &Value, out: &mut String) {
    field(out, 0, "Name", text(&object["metadata"]["name"]));
    if let Some(namespace) = object["metadata"]["namespace"].as_str() {
        field(out, 0, "Namespace", namespace);
    }
}

pub fn labels_and_annotations(object: &Value, out: &mut String) {
    labels(out, 0, "Labels", &object["metadata"]["labels"]);
    annotations(out, 0, &object["metadata"]["annotations"]);
}

/// Prints a map as `key=value` lines under one title.
pub fn labels(out: &mut String, level: usize, title: &str, map: &Value) {
    pairs(out, level, title, map, "=", |_| true);
}

/// Prints annotations, except the manifest that `apply` keeps there.
pub fn annotations(out: &mut String, level: usize, map: &Value) {
    pairs(out, level, "Annotations", map, ": ", |key| key != LAST_APPLIED);
}

fn pairs(out: &mut String, level: usize, title: &str, map: &Value, separator: &str, shown: impl Fn(&str) -> bool) {
    /// Maximum length of a value beside its key. A longer value, or one of several lines, is printed below the key.
    const LONGEST: usize = 140;
    let mut first = true;
    for (key, value) in map.as_object().into_iter().flatten().filter(|(key, _)| shown(key)) {
        let value = scalar(value);
        let value = value.strip_suffix('\n').unwrap_or(&value);
        let start = if first { format!("{title}:") } else { String::new() };
        if value.contains('\n') || (separator == ": " && key.len() + value.len() + 2 > LONGEST) {
            line(out, level, &format!("{start}\t{key}:"));
            for part in value.split('\n') {
                let shown: String = part.chars().take(LONGEST - 2).collect();
                let more = if shown.len() < part.len() { "..." } else { "" };
                line(out, level, &format!("\t  {shown}{more}"));
            }
        } else {
            line(out, level, &format!("{start}\t{key}{separator}{value}"));
        }
        first = false;
    }
    if first {
        field(out, level, title, "<none>");
    }
}

/// Returns the controller of the object: `ReplicaSet/web-5d8`.
pub fn controller(object: &Value) -> Option<String> {
    items(&object["metadata"]["ownerReferences"])
        .find(|owner| owner["controller"] == true)
        .map(|owner| format!("{}/{}", text(&owner["kind"]), text(&owner["name"])))
}

/// Formats a label selector on one line.
pub fn selector(value: &Value) -> String {
    let labels = value.get("matchLabels").unwrap_or(value).as_object();
    let mut terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter(|(_, value)| value.is_string())
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    for expression in items(&value["matchExpressions"]) {
        let values: Vec<&str> = items(&expression["values"]).map(text).collect();
        let key = text(&expression["key"]);
        terms.push(match text(&expression["operator"]) {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({})", operator.to_lowercase(), values.join(",")),
        });
    }
    if terms.is_empty() { "<none>".to_owned() } else { terms.join(",") }
}
