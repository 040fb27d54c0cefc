use serde_json::json;

use super::*;

fn range(limits: Value) -> LimitRange {
    serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})).expect("a limit range")
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

#[test]
fn containers_get_the_defaults_that_they_leave_out() {
    let range = range(json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1024Mi"},
        "defaultRequest": {"cpu": "100m"}}]));
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "a"}, container("b", json!({"cpu": "1"}), json!({"cpu": "2"}))],
        "initContainers": [container("i", json!({"cpu": "1"}), json!({"cpu": "2", "memory": "1Gi"}))],
    }});
    apply_defaults(&range, &mut pod);
    let resources = |list: &str, index: usize| pod["spec"][list][index]["resources"].clone();
    let given = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}});
    assert_eq!(resources("containers", 0), given);
    let kept = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}});
    assert_eq!((resources("containers", 1), resources("initContainers", 0)), (kept.clone(), kept));
    let note = "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; \
                memory limit for container b";
    assert_eq!(pod["metadata"]["annotations"][ANNOTATION], note);
    let before = pod.clone();
    apply_defaults(&range, &mut pod);
    assert_eq!(pod, before, "nothing is left to set");
}

#[test]
fn a_pod_that_keeps_the_limits_passes() {
    let range = range(json!([
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}},
        {"type": "Pod", "max": {"cpu": "2"}},
    ]));
    let two = [1, 2].map(|n| container(&format!("c{n}"), json!({"cpu": "500m"}), json!({"cpu": "1"})));
    assert_eq!(refuses_pod(&range, &pod(json!({"containers": two}))), None);
}

#[test]
fn refusals_name_the_limit_and_the_amount() {
    let one = |requests: Value, limits: Value| json!({"containers": [container("c", requests, limits)]});
    let two = json!({"containers": [container("a", json!({"cpu": "1"}), json!({"cpu": "1"})),
        container("b", json!({"cpu": "1"}), json!({"cpu": "1500m"}))]});
    let cases = [
        (
            json!({"type": "Container", "min": {"cpu": "100m"}}),
            one(json!({"cpu": "50m"}), json!({})),
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            json!({"type": "Container", "min": {"cpu": "100m"}}),
            one(json!({}), json!({})),
            "minimum cpu usage per Container is 100m.  No request is specified",
        ),
        (
            json!({"type": "Container", "max": {"memory": "1Gi"}}),
            one(json!({"memory": "1Mi"}), json!({})),
            "maximum memory usage per Container is 1Gi.  No limit is specified",
        ),
        (
            json!({"type": "Container", "max": {"memory": "1Gi"}}),
            one(json!({"memory": "1Mi"}), json!({"memory": "2048Mi"})),
            "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
            one(json!({"cpu": "100m"}), json!({"cpu": "500m"})),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
            one(json!({"cpu": "0"}), json!({"cpu": "500m"})),
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        (json!({"type": "Pod", "max": {"cpu": "2"}}), two, "maximum cpu usage per Pod is 2, but limit is 2500m"),
        (
            json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}}),
            one(json!({"cpu": "500m"}), json!({"cpu": "3"})),
            "[minimum cpu usage per Container is 1, but request is 500m, \
             maximum cpu usage per Container is 2, but limit is 3]",
        ),
    ];
    for (limit, spec, expected) in cases {
        assert_eq!(refuses_pod(&range(json!([limit])), &pod(spec)).as_deref(), Some(expected), "{limit}");
    }
}

#[test]
fn claims_are_held_to_the_storage_that_they_request() {
    let range = range(json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]));
    let claim = |storage: &str| -> PersistentVolumeClaim {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}});
        serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": spec})).expect("a claim")
    };
    assert_eq!(refuses_claim(&range, &claim("1Gi")), None);
    let less = "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi";
    assert_eq!(refuses_claim(&range, &claim("512Mi")).as_deref(), Some(less));
    let more = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
    assert_eq!(refuses_claim(&range, &claim("3Gi")).as_deref(), Some(more));
}
