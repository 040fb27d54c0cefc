//! Event: a report about an object, stored in the object's namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, duration, name};
use serde_json::Value;

use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{column, name_cell, wide, wide_name};
use crate::value::{int, set_default_text, text};

/// Maximum size of a reporter's instance, an action and a reason, in bytes, as in Kubernetes.
const MAX_TEXT_BYTES: usize = 128;
/// Maximum size of the message of an event with an `eventTime`, in bytes, as in Kubernetes.
const MAX_NOTE_BYTES: usize = 1024;

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

    // The rules of Kubernetes' `legacyValidateEvent`. An event with an `eventTime` has the newer fields, which are checked
    // then. Its object may be cluster-scoped.
    fn validate(object: &core::Event) -> Vec<FieldError> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let about = object.involved_object.namespace.as_deref().unwrap_or_default();
        let is_new = object.event_time.is_some();
        let fits = match (about.is_empty(), is_new) {
            // Events of a cluster-scoped object belong to the default namespace.
            (true, false) => matches!(namespace, "" | "default"),
            (true, true) => matches!(namespace, "default" | "kube-system"),
            (false, false) => about == namespace,
            (false, true) => true,
        };
        let mut errors = Vec::new();
        if !fits {
            let path = FieldPath::new("involvedObject").child("namespace");
            errors.push(FieldError::invalid(path, about, "does not match event.namespace"));
        }
        if is_new {
            validate_report(object, &mut errors);
        }
        errors
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

/// Checks who reports an event with an `eventTime`, and what.
fn validate_report(event: &core::Event, errors: &mut Vec<FieldError>) {
    let controller = event.reporting_component.as_deref().unwrap_or_default();
    check::required_name(controller, name::qualified_name, &FieldPath::new("reportingController"), errors);
    let texts =
        [("reportingInstance", &event.reporting_instance), ("action", &event.action), ("reason", &event.reason)];
    for (field, given) in texts {
        let path = FieldPath::new(field);
        let length = given.as_deref().unwrap_or_default().len();
        if length == 0 {
            errors.push(FieldError::required(path, ""));
        } else if length > MAX_TEXT_BYTES {
            errors.push(FieldError::invalid(path, "", format!("can have at most {MAX_TEXT_BYTES} characters")));
        }
    }
    if event.message.as_deref().unwrap_or_default().len() > MAX_NOTE_BYTES {
        let detail = format!("can have at most {MAX_NOTE_BYTES} characters");
        errors.push(FieldError::invalid(FieldPath::new("message"), "", detail));
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
