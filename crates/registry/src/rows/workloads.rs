//! Workloads: StatefulSet, DaemonSet, ReplicationController, and what they consist of.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use quorate_api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::{Row, row};
use crate::check;
use crate::kinds::workload;
use crate::pod_template;
use crate::strategy::Scale;
use crate::table::{Cell, number, or_none, printed, printed_age, printed_name, printed_workload};
use crate::value::{at, child, equal, int, items_mut, set_default, set_default_text, text, typed};

const ALL: &[&str] = &["all"];
const ROLLING_UPDATE: &str = "RollingUpdate";
const ON_DELETE: &str = "OnDelete";
/// Fields of a StatefulSet's spec that may change.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn rows() -> Vec<Row> {
    let [containers, images, selector] = printed_workload();
    let daemon_sets = vec![
        printed_name(),
        number("Desired", Cell::Field("status.desiredNumberScheduled")),
        number("Current", Cell::Field("status.currentNumberScheduled")),
        number("Ready", Cell::Field("status.numberReady")),
        number("Up-to-date", Cell::Field("status.updatedNumberScheduled")),
        number("Available", Cell::Field("status.numberAvailable")),
        printed("Node Selector", Cell::Of(|object| labels(at(object, "spec.template.spec.nodeSelector")))),
        printed_age(),
        containers,
        images,
        selector,
    ];
    let [containers, images, _] = printed_workload();
    let stateful_sets = vec![printed_name(), printed("Ready", Cell::Of(ready)), printed_age(), containers, images];
    let [containers, images, _] = printed_workload();
    let controllers = vec![
        printed_name(),
        number("Desired", Cell::Field("spec.replicas")),
        number("Current", Cell::Field("status.replicas")),
        number("Ready", Cell::Field("status.readyReplicas")),
        printed_age(),
        containers,
        images,
        printed("Selector", Cell::Of(|object| labels(at(object, "spec.selector")))).wide(),
    ];
    vec![
        row("apps", "ControllerRevision", "controllerrevisions").immutable(&["data"]).validate(revision).columns(vec![
            printed_name(),
            printed("Controller", Cell::Of(controller)),
            printed("Revision", Cell::Field("revision")),
            printed_age(),
        ]),
        row("apps", "DaemonSet", "daemonsets")
            .short(&["ds"])
            .category(ALL)
            .status()
            .generations()
            .default(default_daemon_set)
            .validate(daemon_set)
            .immutable(&["spec.selector"])
            .columns(daemon_sets),
        row("apps", "StatefulSet", "statefulsets")
            .short(&["sts"])
            .category(ALL)
            .status()
            .scale(workload::scale)
            .generations()
            .starts_as(|| json!({"replicas": 0}))
            .named_by(quorate_api::name::dns1123_label)
            .default(default_stateful_set)
            .validate(stateful_set)
            .validate_update(stateful_set_update)
            .columns(stateful_sets),
        row("", "ReplicationController", "replicationcontrollers")
            .short(&["rc"])
            .category(ALL)
            .status()
            .scale(scale_of_labels)
            .generations()
            .starts_as(|| json!({"replicas": 0}))
            .default(default_controller)
            .validate(replication_controller)
            .selectable(&[("status.replicas", "status.replicas")])
            .columns(controllers),
        row("", "PodTemplate", "podtemplates")
            .generations()
            .returns_deleted()
            .default(|object| pod_template::default_template(child(object, "template")))
            .validate(|object, errors| {
                let always = workload::any_policy("PodTemplate");
                validate_template(&object["template"], &always, &FieldPath::new("template"), errors);
            })
            .columns(vec![
                printed_name(),
                printed("Containers", Cell::Of(|object| crate::table::workload_cells(object)[0].clone())),
                printed("Images", Cell::Of(|object| crate::table::workload_cells(object)[1].clone())),
                printed("Pod Labels", Cell::Of(|object| labels(at(object, "template.metadata.labels")))),
            ]),
    ]
}

/// Formats labels as `a=1,b=2`.
pub fn labels(labels: &Value) -> Value {
    let pairs = labels.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value)));
    or_none(&pairs.collect::<Vec<_>>().join(","))
}

fn ready(object: &Value) -> Value {
    format!("{}/{}", int(at(object, "status.readyReplicas")), int(at(object, "spec.replicas"))).into()
}

/// Returns the controlling owner, such as `statefulset.apps/web`.
fn controller(object: &Value) -> Value {
    let owners = crate::value::items(at(object, "metadata.ownerReferences"));
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else { return or_none("") };
    let group = text(&owner["apiVersion"]).rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{}{group}/{}", text(&owner["kind"]).to_lowercase(), text(&owner["name"])).into()
}

fn revision(object: &Value, errors: &mut Vec<FieldError>) {
    if object["data"].is_null() {
        errors.push(FieldError::required(FieldPath::new("data"), "data is mandatory"));
    }
    check::non_negative(int(&object["revision"]), FieldPath::new("revision"), errors);
}

fn default_daemon_set(object: &mut Value) {
    let spec = child(object, "spec");
    set_default(spec, "revisionHistoryLimit", 10);
    let strategy = child(spec, "updateStrategy");
    set_default_text(strategy, "type", ROLLING_UPDATE);
    if strategy["type"] == ROLLING_UPDATE {
        let rolling = child(strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
    pod_template::default_template(child(spec, "template"));
}

fn daemon_set(object: &Value, errors: &mut Vec<FieldError>) {
    validate_workload("DaemonSet", object, errors);
    let path = FieldPath::new("spec");
    let strategy = at(object, "spec.updateStrategy.type").as_str();
    check::one_of(strategy, &[ON_DELETE, ROLLING_UPDATE], path.child("updateStrategy").child("type"), errors);
}

fn default_stateful_set(object: &mut Value) {
    let spec = child(object, "spec");
    set_default_text(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    let strategy = child(spec, "updateStrategy");
    set_default_text(strategy, "type", ROLLING_UPDATE);
    if strategy["type"] == ROLLING_UPDATE {
        set_default(child(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = child(spec, "persistentVolumeClaimRetentionPolicy");
    set_default_text(retention, "whenDeleted", "Retain");
    set_default_text(retention, "whenScaled", "Retain");
    pod_template::default_template(child(spec, "template"));
    for claim in items_mut(spec, "volumeClaimTemplates") {
        set_default_text(claim, "apiVersion", "v1");
        set_default_text(claim, "kind", "PersistentVolumeClaim");
        super::storage::default_claim(claim);
    }
}

fn stateful_set(object: &Value, errors: &mut Vec<FieldError>) {
    validate_workload("StatefulSet", object, errors);
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let policy = spec["podManagementPolicy"].as_str();
    check::one_of(policy, &["OrderedReady", "Parallel"], path.child("podManagementPolicy"), errors);
    let at = path.child("updateStrategy");
    let strategy = &spec["updateStrategy"];
    check::one_of(strategy["type"].as_str(), &[ON_DELETE, ROLLING_UPDATE], at.child("type"), errors);
    let partition = int(&strategy["rollingUpdate"]["partition"]);
    check::non_negative(partition, at.child("rollingUpdate").child("partition"), errors);
    let at = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = spec["persistentVolumeClaimRetentionPolicy"][field].as_str();
        check::one_of(policy, &["Delete", "Retain"], at.child(field), errors);
    }
    check::non_negative(int(&spec["ordinals"]["start"]), path.child("ordinals").child("start"), errors);
}

fn stateful_set_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let fixed = |object: &Value| {
        let mut spec = object["spec"].clone();
        if let Value::Object(fields) = &mut spec {
            fields.retain(|name, _| !MUTABLE.contains(&name.as_str()));
        }
        spec
    };
    if !equal(&fixed(new), &fixed(old)) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(FieldPath::new("spec"), detail));
    }
}

/// Checks the selector, template and counts of a workload whose pods run until they are deleted.
fn validate_workload(kind: &'static str, object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let selector: LabelSelector = typed(&spec["selector"]).unwrap_or_default();
    let replicas = spec["replicas"].as_i64().and_then(|replicas| i32::try_from(replicas).ok());
    workload::validate(&workload::long_running(kind), replicas, &selector, &template_of(&spec["template"]), errors);
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        check::non_negative(int(&spec[field]), path.child(field), errors);
    }
}

fn template_of(template: &Value) -> PodTemplateSpec {
    typed(template).unwrap_or_default()
}

/// Checks a pod template under its owner's rules.
pub fn validate_template(
    template: &Value,
    owner: &pod_template::TemplateOwner,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    pod_template::validate_template(&template_of(template), owner, path, errors);
}

fn default_controller(object: &mut Value) {
    let spec = child(object, "spec");
    set_default(spec, "replicas", 1);
    pod_template::default_template(child(spec, "template"));
    let labels = spec["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        set_default(spec, "selector", labels.clone());
        set_default(child(object, "metadata"), "labels", labels);
    }
}

fn replication_controller(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    check::non_negative(int(&spec["replicas"]), path.child("replicas"), errors);
    let selector: BTreeMap<String, String> = typed(&spec["selector"]).unwrap_or_default();
    let template = template_of(&spec["template"]);
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    if selector.is_empty() {
        errors.push(FieldError::required(path.child("selector"), ""));
    } else if selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
        let at = path.child("template").child("metadata").child("labels");
        errors.push(FieldError::invalid(at, &labels, "`selector` does not match template `labels`"));
    }
    let owner = workload::long_running("ReplicationController");
    pod_template::validate_template(&template, &owner, &path.child("template"), errors);
}

fn scale_of_labels(object: &Value) -> Option<Scale> {
    let selector = labels(at(object, "spec.selector"));
    let selector = selector.as_str().filter(|text| *text != crate::table::NONE).unwrap_or_default().to_owned();
    workload::scale(object).map(|scale| Scale { selector, ..scale })
}
