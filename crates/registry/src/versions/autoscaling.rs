//! `autoscaling/v1 HorizontalPodAutoscaler`: one target for CPU. An annotation keeps everything that this version has no
//! field for, so that an object survives being read and written through it.

use serde_json::{Map, Value, json};

use super::{Version, put, take};
use crate::schema::Schema;
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

/// The part of an object that a metric is in.
#[derive(Clone, Copy)]
enum Part {
    Spec,
    Status,
}

impl Source {
    /// Returns the paths of the same values in `v1` and in `v2`.
    fn paths(&self, part: Part) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.both.iter().chain(match part {
            Part::Spec => self.spec,
            Part::Status => self.status,
        })
    }
}

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
    // A client may have written such an annotation through the stored version, where it means nothing.
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS].iter().for_each(|name| drop(annotations.remove(*name)));
    }
    if let Some(spec) = object.get_mut("spec") {
        let metrics = take(spec, "metrics").unwrap_or_default();
        let (cpu, others) = split_cpu(&metrics, "target");
        if let Some(target) = cpu {
            spec[CPU_TARGET] = target;
        }
        if !others.is_empty() {
            kept.insert(
                METRICS.to_owned(),
                encoded(&others.into_iter().map(|metric| metric_in_v1(metric, Part::Spec)).collect()),
            );
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
            let current = items(&metrics).iter().map(|metric| metric_in_v1(metric, Part::Status));
            kept.insert(CURRENT_METRICS.to_owned(), encoded(&current.collect()));
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
        // This conversion did not write an annotation that does not parse.
        serde_json::from_str::<Value>(text.as_str()?).ok()
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
        let others = metrics.map(|metrics| items(&metrics).iter().map(|m| metric_in_v2(m, Part::Spec)).collect());
        let others = others.and_then(|others| typed("spec", "metrics", others));
        let metrics: Vec<Value> = cpu.into_iter().chain(others.iter().flat_map(items).cloned()).collect();
        if !metrics.is_empty() {
            spec["metrics"] = metrics.into();
        }
        if let Some(behavior) = behavior.and_then(|behavior| typed("spec", "behavior", behavior)) {
            spec["behavior"] = behavior;
        }
    }
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        let cpu = take(status, CPU_CURRENT).filter(|current| !current.is_null()).map(|current| {
            let current = json!({ "averageUtilization": current });
            json!([{ "type": "Resource", "resource": { "name": "cpu", "current": current } }])
        });
        let current = current.filter(Value::is_array);
        let current = current.map(|metrics| items(&metrics).iter().map(|m| metric_in_v2(m, Part::Status)).collect());
        if let Some(metrics) = current.and_then(|current| typed("status", "currentMetrics", current)).or(cpu) {
            status["currentMetrics"] = metrics;
        }
        if let Some(conditions) = conditions.and_then(|conditions| typed("status", "conditions", conditions)) {
            status["conditions"] = conditions;
        }
    }
}

/// Returns a field of an annotation in the shape that the stored version's schema gives it. `None` if it has another type:
/// a client may have written the annotation.
fn typed(part: &str, field: &str, value: Value) -> Option<Value> {
    let schema = Schema::named("autoscaling/v2", "HorizontalPodAutoscaler")?;
    let mut object = schema.decode(json!({ part: { field: value } })).ok()?.object;
    take(object.get_mut(part)?, field)
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

fn metric_in_v1(metric: &Value, part: Part) -> Value {
    let mut metric = metric.clone();
    for kind in &SOURCES {
        let Some(source) = metric.get_mut(kind.field).filter(|source| source.is_object()) else { continue };
        take(source, "target.type");
        // An object's `target` means something else in each version.
        let mut converted = Value::Object(Map::new());
        for (in_v1, in_v2) in kind.paths(part) {
            if let Some(value) = take(source, in_v2) {
                put(&mut converted, in_v1, value);
            }
        }
        merge(source, converted);
    }
    metric
}

fn metric_in_v2(metric: &Value, part: Part) -> Value {
    let mut metric = metric.clone();
    for kind in &SOURCES {
        let Some(source) = metric.get_mut(kind.field).filter(|source| source.is_object()) else { continue };
        let mut converted = Value::Object(Map::new());
        for (in_v1, in_v2) in kind.paths(part) {
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
