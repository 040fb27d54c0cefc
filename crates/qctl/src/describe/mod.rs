//! Descriptions of objects in kubectl's layout. Pure: turns an object and its related objects into text.

mod metadata;
mod node;
mod plain;
mod pod;
mod volumes;
mod workload;

use jiff::Timestamp;
use serde_json::Value;

use crate::events;
use crate::output::{align, parse_time};

pub use pod::pod_template;

/// The related objects that a description shows.
#[derive(Debug, Default)]
pub struct Related {
    pub events: Vec<Value>,
    pub show_events: bool,
    pub pods: Vec<Value>,
    pub replica_sets: Vec<Value>,
    pub endpoint_slices: Vec<Value>,
    pub lease: Option<Value>,
}

/// Describes one object, with aligned columns.
#[must_use]
pub fn describe(object: &Value, related: &Related, now: Timestamp) -> String {
    let mut out = String::new();
    let group = object["apiVersion"].as_str().unwrap_or_default().rsplit_once('/').map_or("", |(group, _)| group);
    match (group, object["kind"].as_str().unwrap_or_default()) {
        ("", "Pod") => pod::describe(object, &mut out, now),
        ("", "Node") => node::describe(object, related, &mut out, now),
        ("", "Service") => plain::service(object, related, &mut out),
        ("", "ConfigMap") => plain::config_map(object, &mut out),
        ("", "Secret") => plain::secret(object, &mut out),
        ("", "ServiceAccount") => plain::service_account(object, &mut out),
        ("", "Namespace") => plain::namespace(object, &mut out),
        ("apps", "Deployment") => workload::deployment(object, related, &mut out),
        ("apps", "ReplicaSet") => workload::replica_set(object, related, &mut out),
        _ => plain::any(object, &mut out),
    }
    let has_events = !matches!((group, text(&object["kind"])), ("", "Secret" | "Namespace"));
    if related.show_events && has_events {
        events_table(&related.events, &mut out, now);
    }
    align(&out, 2)
}

fn events_table(list: &[Value], out: &mut String, now: Timestamp) {
    if list.is_empty() {
        line(out, 0, "Events:\t<none>");
        return;
    }
    line(out, 0, "Events:");
    line(out, 1, "Type\tReason\tAge\tFrom\tMessage");
    line(out, 1, "----\t------\t----\t----\t-------");
    for event in list {
        let row = format!(
            "{}\t{}\t{}\t{}\t{}",
            text(&event["type"]),
            text(&event["reason"]),
            events::interval(event, now),
            events::reporter(event),
            text(&event["message"]).trim(),
        );
        line(out, 1, &row);
    }
}

/// Prints one line, indented by two spaces for each level.
fn line(out: &mut String, level: usize, content: &str) {
    for _ in 0..level {
        out.push_str("  ");
    }
    out.push_str(content);
    out.push('\n');
}

/// Prints `Key:` and its value.
fn field(out: &mut String, level: usize, key: &str, value: impl std::fmt::Display) {
    line(out, level, &format!("{key}:\t{value}"));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// Formats a number or string.
fn scalar(value: &Value) -> String {
    crate::jsonpath::text_of(value)
}

/// Formats a time of the API for descriptions.
fn long_time(value: &Value) -> String {
    match value.as_str().and_then(parse_time) {
        Some(time) => time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        None => "<unset>".to_owned(),
    }
}

#[cfg(test)]
mod tests;
