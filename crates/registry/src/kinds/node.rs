//! Node: registered by its agent together with an initial status.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, Quantity, name};
use serde_json::Value;

use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::pod_template;
use crate::table::{age_cell, column, name_cell, name_column, or_none, wide};
use crate::value::{child, items, text};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const UNKNOWN: &str = "<unknown>";
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];

pub struct Node;

impl Kind for Node {
    type Object = core::Node;

    const HAS_STATUS: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            name_column(),
            column("Status"),
            column("Roles"),
            column("Age"),
            column("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let info = &object["status"]["nodeInfo"];
        let address = |kind: &str| {
            let found = items(&object["status"]["addresses"]).iter().find(|address| address["type"] == kind);
            or_none(found.map_or("", |address| text(&address["address"])))
        };
        let known = |field: &str| {
            Value::from(match text(&info[field]) {
                "" => UNKNOWN,
                known => known,
            })
        };
        vec![
            name_cell(object),
            Value::from(status(object)),
            or_none(&roles(object)),
            age_cell(object, now),
            Value::from(text(&info["kubeletVersion"])),
            address("InternalIP"),
            address("ExternalIP"),
            known("osImage"),
            known("kernelVersion"),
            known("containerRuntimeVersion"),
        ]
    }

    fn default(object: &mut Value) {
        let status = child(object, "status");
        if status["allocatable"].is_null() && status["capacity"].is_object() {
            status["allocatable"] = status["capacity"].clone();
        }
        for amounts in ["capacity", "allocatable"] {
            pod_template::round(object["status"].get_mut(amounts));
        }
        child(object, "spec");
    }

    fn validate(object: &core::Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(spec) = &object.spec {
            taints(spec.taints.as_deref().unwrap_or_default(), &mut errors);
        }
        if let Some(status) = &object.status {
            let path = FieldPath::new("status");
            resources(status.capacity.as_ref(), &path.child("capacity"), &mut errors);
            resources(status.allocatable.as_ref(), &path.child("allocatable"), &mut errors);
        }
        errors
    }

    fn validate_update(new: &core::Node, old: &core::Node) -> Vec<FieldError> {
        let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let path = FieldPath::new("spec");
        let mut errors = Vec::new();
        let changed = |new: &Option<String>, old: &Option<String>| old.is_some() && new != old;
        if changed(&new.pod_cidr, &old.pod_cidr) {
            errors.push(FieldError::forbidden(
                path.child("podCIDR"),
                "node updates may not change podCIDR except from \"\" to valid",
            ));
        }
        if changed(&new.provider_id, &old.provider_id) {
            errors.push(FieldError::forbidden(
                path.child("providerID"),
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
        errors
    }

    fn validate_status_update(new: &core::Node, _old: &core::Node) -> Vec<FieldError> {
        Node::validate(new)
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let unschedulable = object["spec"]["unschedulable"] == true;
        vec![("spec.unschedulable", unschedulable.to_string())]
    }
}

/// Returns `Ready`, `NotReady` or `Unknown`, followed by `,SchedulingDisabled` for a cordoned node.
fn status(object: &Value) -> String {
    let ready = items(&object["status"]["conditions"]).iter().find(|condition| condition["type"] == "Ready");
    let status = match ready.map(|condition| text(&condition["status"])) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    match object["spec"]["unschedulable"] == true {
        true => format!("{status},SchedulingDisabled"),
        false => status.to_owned(),
    }
}

fn roles(object: &Value) -> String {
    let labels = object["metadata"]["labels"].as_object();
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn taints(taints: &[core::Taint], errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        check::required_name(&taint.key, name::qualified_name, &path.child("key"), errors);
        check::named(taint.value.as_deref().unwrap_or_default(), name::label_value, &path.child("value"), errors);
        check::one_of(Some(&taint.effect), EFFECTS, path.child("effect"), errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            errors.push(FieldError {
                detail: "taints must be unique by key and effect pair".to_owned(),
                ..FieldError::duplicate(path, taint)
            });
        }
    }
}

type Resources = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn resources(resources: Option<&Resources>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (resource, quantity) in resources.into_iter().flatten() {
        let path = path.key(resource);
        match Quantity::try_from(quantity) {
            Err(error) => errors.push(FieldError::invalid(path, &quantity.0, error.to_string())),
            Ok(amount) if amount.is_negative() => {
                errors.push(FieldError::invalid(path, &quantity.0, check::NON_NEGATIVE));
            }
            Ok(_) => {}
        }
    }
}
