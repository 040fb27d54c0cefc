//! Event: a report about an object, stored in the object's namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, duration};
use serde_json::Value;

use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{column, name_cell, wide, wide_name};
use crate::value::{int, set_default_text, text};

pub struct Event;

impl Kind for Event {
    type Object = core::Event;

    fn columns() -> Vec<Column> {
        vec![
            column("Last Seen"),
            column("Type"),
            column("Reason"),
            column("Object"),
            wide("Subobject"),
            wide("Source"),
            column("Message"),
            wide("First Seen"),
            wide("Count"),
            wide_name("Name"),
        ]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let time = |value: &Value| value.as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let first = time(&object["firstTimestamp"]).or_else(|| time(&object["eventTime"]));
        let series = &object["series"];
        let (last, count) = if series.is_object() {
            (time(&series["lastObservedTime"]), int(&series["count"]))
        } else {
            (time(&object["lastTimestamp"]).or(first), int(&object["count"]).max(1))
        };
        let about = &object["involvedObject"];
        let kind = text(&about["kind"]).to_lowercase();
        let name = text(&about["name"]);
        vec![
            Value::from(duration::age(last, now)),
            object["type"].clone(),
            object["reason"].clone(),
            Value::from(if name.is_empty() { kind } else { format!("{kind}/{name}") }),
            Value::from(text(&about["fieldPath"])),
            Value::from(source(object)),
            Value::from(text(&object["message"]).trim()),
            Value::from(duration::age(first, now)),
            Value::from(count),
            name_cell(object),
        ]
    }

    fn default(object: &mut Value) {
        set_default_text(object, "type", "Normal");
    }

    fn validate(object: &core::Event) -> Vec<FieldError> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let about = object.involved_object.namespace.as_deref().unwrap_or_default();
        // Events of a cluster-scoped object belong to the default namespace.
        let fits = if about.is_empty() { matches!(namespace, "" | "default") } else { about == namespace };
        if fits {
            return Vec::new();
        }
        let path = FieldPath::new("involvedObject").child("namespace");
        vec![FieldError::invalid(path, about, "does not match event.namespace")]
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let about = &object["involvedObject"];
        let component = text(&object["source"]["component"]);
        let reporter = text(&object["reportingComponent"]);
        let source = if component.is_empty() { reporter } else { component };
        [
            ("involvedObject.kind", text(&about["kind"])),
            ("involvedObject.namespace", text(&about["namespace"])),
            ("involvedObject.name", text(&about["name"])),
            ("involvedObject.uid", text(&about["uid"])),
            ("involvedObject.apiVersion", text(&about["apiVersion"])),
            ("involvedObject.resourceVersion", text(&about["resourceVersion"])),
            ("involvedObject.fieldPath", text(&about["fieldPath"])),
            ("reason", text(&object["reason"])),
            ("reportingComponent", reporter),
            ("source", source),
            ("type", text(&object["type"])),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }
}

/// Formats the source, such as `kubelet, worker-1`.
fn source(object: &Value) -> String {
    let either = |a: &Value, b: &Value| text(if text(a).is_empty() { b } else { a }).to_owned();
    let component = either(&object["source"]["component"], &object["reportingComponent"]);
    match either(&object["source"]["host"], &object["reportingInstance"]) {
        host if host.is_empty() => component,
        host => format!("{component}, {host}"),
    }
}
