//! `autoscaling/v1 HorizontalPodAutoscaler`: one target for CPU. An annotation keeps everything that this version has no
//! field for, so that an object survives being read and written through it.

use serde_json::{Map, Value, json};

use super::{Version, put, take};
use crate::value::{child, items, text};

/// `HorizontalPodAutoscaler` of `autoscaling/v1`, stored as `v2`.
pub const AUTOSCALING_V1: &[Version] =
    &[Version::new("autoscaling", "v1", "HorizontalPodAutoscaler", to_stored, from_stored)];

const CPU_TARGET: &str = "targetCPUUtilizationPercentage";
const CPU_CURRENT: &str = "currentCPUUtilizationPercentage";

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// A kind of metric: where `v1` and `v2` have the same value, in the specification and in the status.
struct Source {
    field: &'static str,
    both: &'static [(&'static str, &'static str)],
    spec: &'static [(&'static str, &'static str)],
    status: &'static [(&'static str, &'static str)],
}

const UTILIZATION: [(&str, &str); 2] =
    [("targetAverageUtilization", "target.averageUtilization"), ("targetAverageValue", "target.averageValue")];
const CURRENT_UTILIZATION: [(&str, &str); 2] =
    [("currentAverageUtilization", "current.averageUtilization"), ("currentAverageValue", "current.averageValue")];

const SOURCES: [Source; 5] = [
    Source {
        field: "object",
        both: &[("target", "describedObject"), ("metricName", "metric.name"), ("selector", "metric.selector")],
        spec: &[("targetValue", "target.value"), ("averageValue", "target.averageValue")],
        status: &[("currentValue", "current.value"), ("averageValue", "current.averageValue")],
    },
    Source {
        field: "pods",
        both: &[("metricName", "metric.name"), ("selector", "metric.selector")],
        spec: &[("targetAverageValue", "target.averageValue")],
        status: &[("currentAverageValue", "current.averageValue")],
    },
    Source { field: "resource", both: &[], spec: &UTILIZATION, status: &CURRENT_UTILIZATION },
    Source { field: "containerResource", both: &[], spec: &UTILIZATION, status: &CURRENT_UTILIZATION },
    Source {
        field: "external",
        both: &[("metricName", "metric.name"), ("metricSelector", "metric.selector")],
        spec: &[("targetValue", "target.value"), ("targetAverageValue", "target.averageValue")],
        status: &[("currentValue", "current.value"), ("currentAverageValue", "current.averageValue")],
    },
];

fn from_stored(object: &mut Value) {
    let mut kept = Map::new();
    if let Some(spec) = object.get_mut("spec") {
        let metrics = take(spec, "metrics").unwrap_or_default();
        let (cpu, others) = split_cpu(&metrics, "target");
        if let Some(target) = cpu {
            spec[CPU_TARGET] = target;
        }
        if !others.is_empty() {
            kept.insert(METRICS.to_owned(), encoded(&others.into_iter().map(metric_in_v1).collect()));
        }
        if let Some(behavior) = take(spec, "behavior").filter(|behavior| !behavior.is_null()) {
            kept.insert(BEHAVIOR.to_owned(), encoded(&behavior));
        }
    }
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        let metrics = take(status, "currentMetrics").unwrap_or_default();
        if let (Some(current), _) = split_cpu(&metrics, "current") {
            status[CPU_CURRENT] = current;
        }
        // The field has no place for the average value, so the annotation repeats the metric.
        if !items(&metrics).is_empty() {
            kept.insert(CURRENT_METRICS.to_owned(), encoded(&items(&metrics).iter().map(metric_in_v1).collect()));
        }
        let conditions = take(status, "conditions").unwrap_or_default();
        if !items(&conditions).is_empty() {
            kept.insert(CONDITIONS.to_owned(), encoded(&conditions));
        }
    }
    if !kept.is_empty() {
        let annotations = child(child(object, "metadata"), "annotations");
        kept.into_iter().for_each(|(name, value)| annotations[name] = value);
    }
}

fn to_stored(object: &mut Value) {
    let mut kept = |name: &str| -> Option<Value> {
        let annotations = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
        let text = annotations.remove(name)?;
        // A text that does not parse is not what this version has written.
        serde_json::from_str(text.as_str()?).ok()
    };
    let [metrics, behavior, current, conditions] = [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS].map(&mut kept);
    if let Some(annotations) = object["metadata"].get("annotations").and_then(Value::as_object)
        && annotations.is_empty()
    {
        take(object, "metadata.annotations");
    }
    if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
        let cpu = take(spec, CPU_TARGET).filter(|target| !target.is_null()).map(|target| {
            let target = json!({ "type": "Utilization", "averageUtilization": target });
            json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } })
        });
        let others = metrics.iter().flat_map(items).map(metric_in_v2);
        let metrics: Vec<Value> = cpu.into_iter().chain(others).collect();
        if !metrics.is_empty() {
            spec["metrics"] = metrics.into();
        }
        if let Some(behavior) = behavior.filter(Value::is_object) {
            spec["behavior"] = behavior;
        }
    }
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        let cpu = take(status, CPU_CURRENT).filter(|current| !current.is_null()).map(|current| {
            let current = json!({ "averageUtilization": current });
            json!([{ "type": "Resource", "resource": { "name": "cpu", "current": current } }])
        });
        let current = current.map(|current| items(&current).iter().map(metric_in_v2).collect::<Value>());
        if let Some(metrics) = current.or(cpu) {
            status["currentMetrics"] = metrics;
        }
        if let Some(conditions) = conditions.filter(Value::is_array) {
            status["conditions"] = conditions;
        }
    }
}

/// Returns the average utilization of the first metric of CPU that has one, and the other metrics.
fn split_cpu<'a>(metrics: &'a Value, value: &str) -> (Option<Value>, Vec<&'a Value>) {
    let utilization = |metric: &Value| {
        let is_cpu = metric["type"] == "Resource" && text(&metric["resource"]["name"]) == "cpu";
        metric["resource"][value].get("averageUtilization").filter(|given| is_cpu && !given.is_null()).cloned()
    };
    let found = items(metrics).iter().position(|metric| utilization(metric).is_some());
    let others = items(metrics).iter().enumerate().filter(|(index, _)| Some(*index) != found);
    (found.and_then(|index| utilization(&metrics[index])), others.map(|(_, metric)| metric).collect())
}

fn metric_in_v1(metric: &Value) -> Value {
    let mut metric = metric.clone();
    for Source { field, both, spec, status } in &SOURCES {
        let Some(source) = metric.get_mut(field).filter(|source| source.is_object()) else { continue };
        take(source, "target.type");
        // An object's `target` means something else in each version.
        let mut converted = Value::Object(Map::new());
        for (in_v1, in_v2) in [*both, *spec, *status].concat() {
            if let Some(value) = take(source, in_v2) {
                put(&mut converted, in_v1, value);
            }
        }
        merge(source, converted);
    }
    metric
}

fn metric_in_v2(metric: &Value) -> Value {
    let mut metric = metric.clone();
    for Source { field, both, spec, status } in &SOURCES {
        let Some(source) = metric.get_mut(field).filter(|source| source.is_object()) else { continue };
        let mut converted = Value::Object(Map::new());
        for (in_v1, in_v2) in [*both, *spec, *status].concat() {
            if let Some(value) = take(source, in_v1) {
                put(&mut converted, in_v2, value);
            }
        }
        let target = &converted["target"];
        let kinds = [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
        if let Some((_, kind)) = kinds.iter().find(|(name, _)| !target[name].is_null()) {
            put(&mut converted, "target.type", (*kind).into());
        }
        merge(source, converted);
    }
    metric
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from.into_iter().filter(|(_, value)| !value.is_null()));
    }
}

fn encoded(value: &Value) -> Value {
    value.to_string().into()
}
