//! Dynamic resource allocation: devices, their classes, and claims on them.

use serde_json::Value;

use super::{Row, row};
use crate::table::{Cell, printed, printed_age, printed_name};
use crate::value::{at, child, items, items_mut, set_default, set_default_text, text};

pub(super) fn rows() -> Vec<Row> {
    let group = "resource.k8s.io";
    vec![
        row(group, "DeviceClass", "deviceclasses").cluster().generations().columns(vec![printed_name(), printed_age()]),
        row(group, "ResourceClaim", "resourceclaims")
            .status()
            .default(|object| default_requests(child(object, "spec")))
            .columns(vec![printed_name(), printed("State", Cell::Of(state)), printed_age()]),
        row(group, "ResourceClaimTemplate", "resourceclaimtemplates")
            .default(|object| default_requests(child(child(object, "spec"), "spec")))
            .immutable(&["spec"])
            .columns(vec![printed_name(), printed_age()]),
        row(group, "ResourceSlice", "resourceslices")
            .cluster()
            .generations()
            .immutable(&["spec.driver", "spec.nodeName", "spec.pool.name"])
            .selectable(&[("spec.driver", "spec.driver"), ("spec.nodeName", "spec.nodeName")])
            .columns(vec![
                printed_name(),
                printed("Node", Cell::FieldOr("spec.nodeName", "<unset>")),
                printed("Driver", Cell::Field("spec.driver")),
                printed("Pool", Cell::Field("spec.pool.name")),
                printed_age(),
            ]),
    ]
}

fn state(object: &Value) -> Value {
    let mut states = Vec::new();
    if at(object, "metadata.deletionTimestamp").is_string() {
        states.push("deleted");
    }
    states.push(if at(object, "status.allocation").is_object() { "allocated" } else { "pending" });
    if !items(at(object, "status.reservedFor")).is_empty() {
        states.push("reserved");
    }
    states.join(",").into()
}

fn default_requests(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            default_request(exactly);
        }
        items_mut(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    set_default_text(request, "allocationMode", "ExactCount");
    if text(&request["allocationMode"]) == "ExactCount" {
        set_default(request, "count", 1);
    }
}
