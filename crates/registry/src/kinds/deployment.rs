//! Deployment: rolls pods from one template to the next.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::workload;
use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::pod_template;
use crate::strategy::Scale;
use crate::table::{age_cell, column, name_cell, name_column, wide, workload_cells};
use crate::value::{child, equal, int, set_default, set_default_text};

const ROLLING_UPDATE: &str = "RollingUpdate";
const RECREATE: &str = "Recreate";

pub struct Deployment;

impl Kind for Deployment {
    type Object = apps::Deployment;

    const HAS_STATUS: bool = true;
    const COUNTS_GENERATIONS: bool = true;
    const STATUS_KEEPS: &'static [&'static str] = &["labels"];

    fn columns() -> Vec<Column> {
        vec![
            name_column(),
            column("Ready"),
            column("Up-to-date"),
            column("Available"),
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
            Value::from(format!("{}/{}", int(&status["readyReplicas"]), int(&spec["replicas"]))),
            Value::from(int(&status["updatedReplicas"])),
            Value::from(int(&status["availableReplicas"])),
            age_cell(object, now),
        ];
        cells.extend(workload_cells(spec));
        cells
    }

    fn default(object: &mut Value) {
        let spec = child(object, "spec");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let strategy = child(spec, "strategy");
        set_default_text(strategy, "type", ROLLING_UPDATE);
        if strategy["type"] == ROLLING_UPDATE {
            let rolling = child(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
        pod_template::default_template(child(spec, "template"));
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({});
    }

    fn starts_new_generation(new: &Value, old: &Value) -> bool {
        // A Deployment's annotations are copied to its ReplicaSets, so they count as desired state.
        !equal(&new["spec"], &old["spec"]) || !equal(&new["metadata"]["annotations"], &old["metadata"]["annotations"])
    }

    fn validate(object: &apps::Deployment) -> Vec<FieldError> {
        let path = FieldPath::new("spec");
        let Some(spec) = &object.spec else { return vec![FieldError::required(path, "")] };
        let mut errors = Vec::new();
        workload::validate(
            &workload::long_running("Deployment"),
            spec.replicas,
            &spec.selector,
            &spec.template,
            &mut errors,
        );
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        check::non_negative(min_ready, path.child("minReadySeconds"), &mut errors);
        if let Some(limit) = spec.revision_history_limit {
            check::non_negative(limit, path.child("revisionHistoryLimit"), &mut errors);
        }
        if let Some(deadline) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            check::non_negative(deadline, path.clone(), &mut errors);
            if deadline <= min_ready {
                errors.push(FieldError::invalid(path, deadline, "must be greater than minReadySeconds"));
            }
        }
        if let Some(strategy) = &spec.strategy {
            validate_strategy(strategy, &path.child("strategy"), &mut errors);
        }
        errors
    }

    fn validate_update(new: &apps::Deployment, old: &apps::Deployment) -> Vec<FieldError> {
        match (&new.spec, &old.spec) {
            (Some(new), Some(old)) => workload::immutable_selector(&new.selector, &old.selector),
            _ => Vec::new(),
        }
    }

    fn validate_status_update(new: &apps::Deployment, _old: &apps::Deployment) -> Vec<FieldError> {
        let (path, mut errors) = (FieldPath::new("status"), Vec::new());
        let Some(status) = &new.status else { return errors };
        let replicas = status.replicas.unwrap_or_default();
        let counts = [
            ("replicas", status.replicas),
            ("updatedReplicas", status.updated_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
            ("unavailableReplicas", status.unavailable_replicas),
        ];
        for (field, count) in counts.into_iter().filter_map(|(field, count)| Some((field, count?))) {
            check::non_negative(count, path.child(field), &mut errors);
            if count > replicas && field != "unavailableReplicas" {
                let detail = "cannot be greater than status.replicas";
                errors.push(FieldError::invalid(path.child(field), count, detail));
            }
        }
        errors
    }

    fn scale(object: &Value) -> Option<Scale> {
        workload::scale(object)
    }

    fn set_scale(object: &mut Value, replicas: i32) {
        workload::set_scale(object, replicas);
    }
}

fn validate_strategy(strategy: &apps::DeploymentStrategy, path: &FieldPath, errors: &mut Vec<FieldError>) {
    check::one_of(strategy.type_.as_deref(), &[RECREATE, ROLLING_UPDATE], path.child("type"), errors);
    let path = path.child("rollingUpdate");
    let Some(rolling) = &strategy.rolling_update else { return };
    if strategy.type_.as_deref() == Some(RECREATE) {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden(path, detail));
        return;
    }
    let unavailable = count_or_percent(rolling.max_unavailable.as_ref(), &path.child("maxUnavailable"), errors);
    let surge = count_or_percent(rolling.max_surge.as_ref(), &path.child("maxSurge"), errors);
    if unavailable == Some(0) && surge == Some(0) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(path.child("maxUnavailable"), &rolling.max_unavailable, detail));
    }
    if let Some(IntOrString::String(_)) = rolling.max_unavailable
        && unavailable.is_some_and(|percent| percent > 100)
    {
        let detail = "must not be greater than 100%";
        errors.push(FieldError::invalid(path.child("maxUnavailable"), &rolling.max_unavailable, detail));
    }
}

/// Returns the number of an integer or percentage; `None` when the value is absent, or is neither, which is reported.
fn count_or_percent(value: Option<&IntOrString>, path: &FieldPath, errors: &mut Vec<FieldError>) -> Option<i64> {
    match value? {
        IntOrString::Int(count) => {
            check::non_negative(*count, path.clone(), errors);
            Some(i64::from(*count))
        }
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok());
            if percent.is_none() {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(path.clone(), text, detail));
            }
            percent
        }
    }
}
