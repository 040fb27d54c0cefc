use serde_json::{Value, json};

use super::*;

fn stored(version: &Version, object: &Value) -> Value {
    let mut object = object.clone();
    (version.to_stored)(&mut object);
    object
}

fn shown(version: &Version, object: &Value) -> Value {
    let mut object = object.clone();
    (version.from_stored)(&mut object);
    object
}

#[test]
fn an_event_has_the_same_fields_under_other_names() {
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Pulled", "action": "Pulling",
        "regarding": {"kind": "Pod", "name": "web"}, "note": "done", "type": "Normal",
        "reportingController": "kubelet", "reportingInstance": "kubelet-1",
        "deprecatedSource": {"component": "kubelet"}, "deprecatedCount": 2,
        "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:00:01Z",
    });
    let old = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Pulled", "action": "Pulling",
        "involvedObject": {"kind": "Pod", "name": "web"}, "message": "done", "type": "Normal",
        "reportingComponent": "kubelet", "reportingInstance": "kubelet-1",
        "source": {"component": "kubelet"}, "count": 2,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z",
    });
    assert_eq!(stored(&EVENTS_V1[0], &event), old);
    assert_eq!(shown(&EVENTS_V1[0], &old), event);
}

fn autoscaler(metrics: Value, status: Value) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3, "metrics": metrics},
        "status": status,
    })
}

#[test]
fn an_autoscaler_with_one_target_for_cpu_needs_no_annotation() {
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {
        "type": "Utilization", "averageUtilization": 50,
    }}});
    let old = shown(&AUTOSCALING_V1[0], &autoscaler(json!([cpu]), json!({"desiredReplicas": 2})));
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!((old["spec"].get("metrics"), old["metadata"].get("annotations")), (None, None));
    assert_eq!(stored(&AUTOSCALING_V1[0], &old), autoscaler(json!([cpu]), json!({"desiredReplicas": 2})));
}

#[test]
fn an_autoscaler_survives_the_version_that_has_no_field_for_its_metrics() {
    let target = |kind: &str, field: &str, value: Value| json!({"type": kind, field: value});
    let selector = json!({"matchLabels": {"a": "b"}});
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "cpu", "target": target("Utilization", "averageUtilization", 50.into())}},
        {"type": "Resource", "resource": {"name": "memory", "target": target("AverageValue", "averageValue", "1Gi".into())}},
        {"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "main", "target": target("Utilization", "averageUtilization", 60.into()),
        }},
        {"type": "Pods", "pods": {
            "metric": {"name": "requests", "selector": selector}, "target": target("AverageValue", "averageValue", "5".into()),
        }},
        {"type": "Object", "object": {
            "describedObject": {"kind": "Ingress", "name": "front", "apiVersion": "networking.k8s.io/v1"},
            "metric": {"name": "requests"}, "target": target("Value", "value", "9".into()),
        }},
        {"type": "External", "external": {
            "metric": {"name": "queue", "selector": selector}, "target": target("Value", "value", "30".into()),
        }},
    ]);
    let status = json!({
        "desiredReplicas": 2, "currentReplicas": 1,
        "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10, "averageValue": "5m"}}},
            {"type": "External", "external": {"metric": {"name": "queue"}, "current": {"value": "3"}}},
            {"type": "Object", "object": {
                "describedObject": {"kind": "Ingress", "name": "front"}, "metric": {"name": "requests"},
                "current": {"value": "9", "averageValue": "3"},
            }},
        ],
        "conditions": [{"type": "AbleToScale", "status": "True"}],
    });
    let mut autoscaler = autoscaler(metrics, status);
    autoscaler["spec"]["behavior"] = json!({"scaleUp": {"stabilizationWindowSeconds": 5}});
    autoscaler["metadata"]["annotations"] = json!({"mine": "kept"});
    let old = shown(&AUTOSCALING_V1[0], &autoscaler);
    assert_eq!(
        old["spec"],
        json!({
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 50,
        })
    );
    assert_eq!(
        old["status"],
        json!({
            "desiredReplicas": 2, "currentReplicas": 1, "currentCPUUtilizationPercentage": 10,
        })
    );
    let annotation = old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str();
    let kept: Value = serde_json::from_str(annotation.expect("an annotation")).expect("JSON");
    // The form of Kubernetes' own annotation.
    assert_eq!(kept[0], json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}));
    assert_eq!(
        kept[2],
        json!({
            "type": "Pods", "pods": {"metricName": "requests", "selector": selector, "targetAverageValue": "5"},
        })
    );
    assert_eq!(kept[3]["object"]["target"]["kind"], "Ingress");
    assert_eq!(stored(&AUTOSCALING_V1[0], &old), autoscaler);
}

#[test]
fn an_annotation_of_another_form_is_dropped() {
    let wrong = [
        ("metrics", "{"),
        ("metrics", r#"[{"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": "x"}}]"#),
        ("metrics", r#"[{"type": "Resource", "resource": 5}]"#),
        ("behavior", r#"{"scaleUp": 5}"#),
        ("behavior", "[]"),
        ("conditions", r#"[{"type": 1}]"#),
        ("current-metrics", r#"{"a": 1}"#),
    ];
    for (name, text) in wrong {
        let mut old = autoscaler(Value::Null, json!({}));
        let name = format!("autoscaling.alpha.kubernetes.io/{name}");
        old["metadata"]["annotations"] = json!({ name: text, "mine": "kept" });
        let stored = stored(&AUTOSCALING_V1[0], &old);
        assert_eq!(stored["metadata"]["annotations"], json!({"mine": "kept"}), "{text}");
        assert_eq!((stored["spec"].get("behavior"), &stored["status"]), (None, &json!({})), "{text}");
    }
}

#[test]
fn an_annotation_that_was_stored_as_such_is_not_shown() {
    let mut object = autoscaler(json!([]), Value::Null);
    object["metadata"]["annotations"] = json!({"autoscaling.alpha.kubernetes.io/metrics": "[]", "mine": "kept"});
    assert_eq!(shown(&AUTOSCALING_V1[0], &object)["metadata"]["annotations"], json!({"mine": "kept"}));
}

#[test]
fn new_events_are_checked_more_strictly_than_old_ones() {
    let event = json!({
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "a",
        "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"},
    });
    assert_eq!((EVENTS_V1[0].validate_create)(&event), []);
    let fields = |errors: Vec<FieldError>| errors.iter().map(|e| e.path.as_str().to_owned()).collect::<Vec<_>>();
    let bad = json!({"type": "Other", "count": 1, "source": {"host": "a"}, "series": {"count": 1}});
    let expected = ["series.count", "series.lastObservedTime", "eventTime", "type", "count", "source"];
    assert_eq!(fields((EVENTS_V1[0].validate_create)(&bad)), expected);
    let mut changed = event.clone();
    changed["series"]["count"] = 3.into();
    assert_eq!((EVENTS_V1[0].validate_update)(&changed, &event), [], "the series changes");
    changed["reason"] = "b".into();
    assert_eq!(fields((EVENTS_V1[0].validate_update)(&changed, &event)), ["reason"]);
}
