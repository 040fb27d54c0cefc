//! How many pods of a workload run: autoscalers and disruption budgets.

use quorate_api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::networking::selector;
use super::{Row, row};
use crate::check;
use crate::table::{Cell, number, printed, printed_age, printed_name};
use crate::value::{at, child, int, items, set_default, set_default_text, text};
use crate::versions::AUTOSCALING_V1;

const UNKNOWN: &str = "<unknown>";

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .version("v2")
            .also(AUTOSCALING_V1)
            .short(&["hpa"])
            .category(&["all"])
            .status()
            .default(default_autoscaler)
            .validate(autoscaler)
            .columns(vec![
                printed_name(),
                printed("Reference", Cell::Of(reference)),
                printed("Targets", Cell::Of(targets)),
                printed("MinPods", Cell::FieldOr("spec.minReplicas", "<unset>")),
                printed("MaxPods", Cell::Field("spec.maxReplicas")),
                printed("Replicas", Cell::Of(|object| int(at(object, "status.currentReplicas")).into())),
                printed_age(),
            ]),
        row("policy", "PodDisruptionBudget", "poddisruptionbudgets")
            .short(&["pdb"])
            .status()
            .generations()
            .validate(budget)
            .columns(vec![
                printed_name(),
                printed("Min Available", Cell::FieldOr("spec.minAvailable", "N/A")),
                printed("Max Unavailable", Cell::FieldOr("spec.maxUnavailable", "N/A")),
                number("Allowed Disruptions", Cell::Field("status.disruptionsAllowed")),
                printed_age(),
            ]),
    ]
}

fn reference(object: &Value) -> Value {
    let target = at(object, "spec.scaleTargetRef");
    format!("{}/{}", text(&target["kind"]), text(&target["name"])).into()
}

/// Formats current and target values of resource metrics, such as `cpu: 10%/80%`.
fn targets(object: &Value) -> Value {
    let current = items(at(object, "status.currentMetrics"));
    let shown = items(at(object, "spec.metrics")).iter().enumerate().map(|(index, metric)| {
        let is = current.get(index).map_or(&Value::Null, |current| at(current, "resource.current"));
        let wanted = at(metric, "resource.target");
        let name = text(at(metric, "resource.name"));
        match (wanted["averageUtilization"].as_i64(), is["averageUtilization"].as_i64()) {
            _ if metric["type"] != "Resource" => format!("{UNKNOWN}/{}", text(&metric["type"])),
            (Some(wanted), Some(is)) => format!("{name}: {is}%/{wanted}%"),
            (Some(wanted), None) => format!("{name}: {UNKNOWN}/{wanted}%"),
            (None, _) => {
                let is = is["averageValue"].as_str().unwrap_or(UNKNOWN);
                format!("{name}: {is}/{}", wanted["averageValue"].as_str().unwrap_or(UNKNOWN))
            }
        }
    });
    let shown: Vec<String> = shown.collect();
    crate::table::abbreviated(&shown, "<none>").into()
}

fn default_autoscaler(object: &mut Value) {
    let spec = child(object, "spec");
    set_default(spec, "minReplicas", 1);
    if items(&spec["metrics"]).is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) else { return };
    let policy = |kind: &str, value: i64, seconds: i64| json!({"type": kind, "value": value, "periodSeconds": seconds});
    let up = child(behavior, "scaleUp");
    set_default(up, "stabilizationWindowSeconds", 0);
    set_default_text(up, "selectPolicy", "Max");
    set_default(up, "policies", json!([policy("Pods", 4, 15), policy("Percent", 100, 15)]));
    let down = child(behavior, "scaleDown");
    set_default_text(down, "selectPolicy", "Max");
    set_default(down, "policies", json!([policy("Percent", 100, 15)]));
}

fn autoscaler(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let (min, max) = (spec["minReplicas"].as_i64(), int(&spec["maxReplicas"]));
    if let Some(min) = min.filter(|min| *min < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid(path.child("minReplicas"), min, detail));
    }
    if min.is_some_and(|min| max < min) && max > 0 {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(path.child("maxReplicas"), max, detail));
    }
    for field in ["kind", "name"] {
        let value = text(&spec["scaleTargetRef"][field]);
        check::required_name(value, super::rbac::path_segment, &path.child("scaleTargetRef").child(field), errors);
    }
    for (index, metric) in items(&spec["metrics"]).iter().enumerate() {
        let path = path.child("metrics").index(index);
        let kinds = [
            ("ContainerResource", "containerResource"),
            ("External", "external"),
            ("Object", "object"),
            ("Pods", "pods"),
            ("Resource", "resource"),
        ];
        let kind = text(&metric["type"]);
        match kinds.iter().find(|(name, _)| *name == kind) {
            None if kind.is_empty() => {
                errors.push(FieldError::required(path.child("type"), "must specify a metric source type"));
            }
            None => {
                errors.push(FieldError::not_supported(path.child("type"), kind, &kinds.map(|(name, _)| name)));
            }
            Some((_, field)) if metric[*field].is_null() => {
                let detail = "must populate information for the given metric source";
                errors.push(FieldError::required(path.child(field), detail));
            }
            Some(_) => {}
        }
    }
}

fn budget(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        errors.push(FieldError::invalid(path.clone(), spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let at = path.child(field);
        match &spec[field] {
            Value::Number(count) => check::non_negative(count.as_i64().unwrap_or_default(), at, errors),
            Value::String(given) => match given.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok()) {
                None => {
                    let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                    errors.push(FieldError::invalid(at, given, detail));
                }
                Some(percent) if percent > 100 => {
                    errors.push(FieldError::invalid(at, given, "must not be greater than 100%"));
                }
                Some(_) => {}
            },
            _ => {}
        }
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy = spec["unhealthyPodEvictionPolicy"].as_str();
    check::one_of_if_set(policy, &policies, path.child("unhealthyPodEvictionPolicy"), errors);
    selector(&spec["selector"], &path.child("selector"), errors);
}
