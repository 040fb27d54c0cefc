//! ReplicaSet: keeps a number of pods of one template.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1 as apps;
use quorate_api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::workload;
use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::pod_template;
use crate::strategy::Scale;
use crate::table::{age_cell, column, integer, name_cell, name_column, wide, workload_cells};
use crate::value::{child, int, set_default};

pub struct ReplicaSet;

impl Kind for ReplicaSet {
    type Object = apps::ReplicaSet;

    const HAS_STATUS: bool = true;
    const COUNTS_GENERATIONS: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            name_column(),
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            column("Age"),
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let mut cells = vec![
            name_cell(object),
            Value::from(int(&spec["replicas"])),
            Value::from(int(&status["replicas"])),
            Value::from(int(&status["readyReplicas"])),
            age_cell(object, now),
        ];
        cells.extend(workload_cells(spec));
        cells
    }

    fn default(object: &mut Value) {
        let spec = child(object, "spec");
        set_default(spec, "replicas", 1);
        pod_template::default_template(child(spec, "template"));
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(object: &apps::ReplicaSet) -> Vec<FieldError> {
        let path = FieldPath::new("spec");
        let Some(spec) = &object.spec else { return vec![FieldError::required(path, "")] };
        let mut errors = Vec::new();
        let no_template = Default::default();
        let template = spec.template.as_ref().unwrap_or(&no_template);
        workload::validate(&workload::long_running("ReplicaSet"), spec.replicas, &spec.selector, template, &mut errors);
        if let Some(seconds) = spec.min_ready_seconds {
            check::non_negative(seconds, path.child("minReadySeconds"), &mut errors);
        }
        errors
    }

    fn validate_update(new: &apps::ReplicaSet, old: &apps::ReplicaSet) -> Vec<FieldError> {
        match (&new.spec, &old.spec) {
            (Some(new), Some(old)) => workload::immutable_selector(&new.selector, &old.selector),
            _ => Vec::new(),
        }
    }

    fn validate_status_update(new: &apps::ReplicaSet, _old: &apps::ReplicaSet) -> Vec<FieldError> {
        let (path, mut errors) = (FieldPath::new("status"), Vec::new());
        let Some(status) = &new.status else { return errors };
        let counts = [
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        check::non_negative(status.replicas, path.child("replicas"), &mut errors);
        for (field, count) in counts.into_iter().filter_map(|(field, count)| Some((field, count?))) {
            check::non_negative(count, path.child(field), &mut errors);
            if count > status.replicas {
                let detail = "cannot be greater than status.replicas";
                errors.push(FieldError::invalid(path.child(field), count, detail));
            }
        }
        errors
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", int(&object["status"]["replicas"]).to_string())]
    }

    fn scale(object: &Value) -> Option<Scale> {
        workload::scale(object)
    }

    fn set_scale(object: &mut Value, replicas: i32) {
        workload::set_scale(object, replicas);
    }
}
