//! Tests of all kinds except Pod, through their strategies as the pipeline calls them.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Deletion, Descriptor, Strategy, Subresource};

const NOW: &str = "2026-01-01T01:00:00Z";
const BORN: &str = "2026-01-01T00:00:00Z";

fn row(kind: &str) -> Descriptor {
    crate::builtin().into_iter().find(|row| row.kind.kind == kind).expect("a built-in kind")
}

pub(super) fn strategy(kind: &str) -> Arc<dyn Strategy> {
    Arc::clone(&row(kind).strategy)
}

/// Returns the object that the pipeline would store on creation.
pub(super) fn created(kind: &str, object: &Value) -> Value {
    let (row, strategy) = (row(kind), strategy(kind));
    let mut object = row.schema.decode(object.clone()).expect("the shape of the kind").object;
    object["apiVersion"] = row.kind.api_version().into();
    object["kind"] = row.kind.kind.as_ref().into();
    strategy.default(&mut object);
    strategy.prepare_create(&mut object);
    object
}

pub(super) fn errors_of(kind: &str, object: &Value) -> Vec<String> {
    let (strategy, object) = (strategy(kind), created(kind, object));
    let mut errors = strategy.validate(&object);
    errors.extend(strategy.validate_create(&object));
    errors.iter().map(ToString::to_string).collect()
}

/// Returns the errors of an update of `old` with `changes` (a merge patch).
pub(super) fn update_errors(kind: &str, old: &Value, changes: &Value) -> Vec<String> {
    let strategy = strategy(kind);
    let old = created(kind, old);
    let mut new = old.clone();
    quorate_api::patch::merge::apply(&mut new, changes);
    strategy.default(&mut new);
    strategy.prepare_update(&mut new, &old);
    strategy.validate_update(&new, &old).iter().map(ToString::to_string).collect()
}

/// Returns the object and the errors after an update of `old` through a subresource with `changes` (a merge patch).
pub(super) fn changed(kind: &str, subresource: Subresource, old: &Value, changes: &Value) -> (Value, Vec<String>) {
    let (row, change) = (row(kind), subresource.change().expect("a subresource that changes a part"));
    let mut new = old.clone();
    quorate_api::patch::merge::apply(&mut new, changes);
    row.default(&mut new);
    (change.prepare)(&row, &mut new, old);
    let errors = row.validate_change(change, &new, old).iter().map(ToString::to_string).collect();
    (new, errors)
}

pub(super) fn cells(kind: &str, object: &Value) -> Vec<String> {
    let now: Timestamp = NOW.parse().expect("a time");
    let cells = strategy(kind).cells(object, now);
    cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect()
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "creationTimestamp": BORN},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1"}, {"name": "d", "image": "redis"}]},
            },
        },
    })
}

fn with(mut object: Value, patch: &Value) -> Value {
    quorate_api::patch::merge::apply(&mut object, patch);
    object
}

#[test]
fn a_deployment_gets_its_defaults() {
    let object = created("Deployment", &deployment());
    assert_eq!(
        object,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "creationTimestamp": BORN, "generation": 1},
            "spec": {
                "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "containers": [
                            {"name": "c", "image": "nginx:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"},
                            {"name": "d", "image": "redis", "imagePullPolicy": "Always", "resources": {},
                                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"},
                        ],
                        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                        "schedulerName": "default-scheduler", "securityContext": {},
                        "terminationGracePeriodSeconds": 30,
                    },
                },
            },
            "status": {},
        })
    );
    assert_eq!(errors_of("Deployment", &deployment()), Vec::<String>::new());
}

#[test]
fn templates_do_not_get_pod_defaults() {
    let template = json!({"spec": {"hostNetwork": true, "containers": [{
        "name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1500u", "memory": "1024Ki"}},
    }]}});
    for kind in ["Deployment", "ReplicaSet"] {
        let object = created(kind, &with(deployment(), &json!({"spec": {"template": template}})));
        let spec = &object["spec"]["template"]["spec"];
        assert_eq!(spec.get("enableServiceLinks"), None, "{kind}");
        assert_eq!(spec["containers"][0]["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]), "{kind}");
        assert_eq!(spec["containers"][0]["resources"], json!({"limits": {"cpu": "2m", "memory": "1Mi"}}), "{kind}");
    }
    let pod = created("Pod", &with(template, &json!({"metadata": {"name": "web"}})));
    let spec = &pod["spec"];
    assert_eq!(spec["enableServiceLinks"], true);
    assert_eq!(spec["containers"][0]["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
    let amounts = json!({"cpu": "2m", "memory": "1Mi"});
    assert_eq!(spec["containers"][0]["resources"], json!({"limits": amounts, "requests": amounts}));
}

#[test]
fn a_nodes_resources_are_rounded_and_canonical() {
    let node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "3.9999999", "memory": "1024Ki"}}});
    let amounts = json!({"cpu": "4", "memory": "1Mi"});
    assert_eq!(created("Node", &node)["status"], json!({"capacity": amounts, "allocatable": amounts}));
}

#[test]
fn a_deployments_status_write_leaves_its_labels_alone() {
    let old = created("Deployment", &with(deployment(), &json!({"metadata": {"labels": {"a": "b"}}})));
    let changes = json!({"metadata": {"labels": {"a": "c"}, "annotations": {"d": "e"}}, "spec": {"replicas": 7}});
    let mut new = with(old.clone(), &changes);
    strategy("Deployment").prepare_status_update(&mut new, &old);
    assert_eq!(new, with(old, &json!({"metadata": {"annotations": {"d": "e"}}})));
}

#[test]
fn deployments_are_checked() {
    for (patch, expected) in [
        (json!({"spec": {"replicas": -1}}), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            json!({"spec": {"template": {"metadata": {"labels": {"app": "api"}}}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"api\"}: `selector` does not match template `labels`",
        ),
        (
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            json!({"spec": {"strategy": {"type": "Fast"}}}),
            "spec.strategy.type: Unsupported value: \"Fast\": supported values: \"Recreate\", \"RollingUpdate\"",
        ),
        (
            json!({"spec": {"minReadySeconds": 600}}),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        (json!({"spec": {"template": {"spec": {"containers": []}}}}), "spec.template.spec.containers: Required value"),
    ] {
        assert_eq!(errors_of("Deployment", &with(deployment(), &patch)), [expected], "{patch}");
    }
    let unselective = with(deployment(), &json!({"spec": {"selector": null}}));
    let errors = errors_of("Deployment", &unselective);
    assert_eq!(errors[0], "spec.selector: Required value");
}

#[test]
fn generations_count_changes_of_the_desired_state() {
    let strategy = strategy("Deployment");
    let old = created("Deployment", &deployment());
    let generation = |patch: &Value| {
        let mut new = with(old.clone(), patch);
        strategy.prepare_update(&mut new, &old);
        assert_eq!(new["status"], old["status"], "the status is not written through the object");
        new["metadata"]["generation"].clone()
    };
    assert_eq!(generation(&json!({"metadata": {"labels": {"a": "b"}, "generation": 9}, "status": {"replicas": 3}})), 1);
    assert_eq!(generation(&json!({"spec": {"replicas": 2}})), 2);
    assert_eq!(generation(&json!({"metadata": {"annotations": {"a": "b"}}})), 2);

    let mut new = with(
        old.clone(),
        &json!({"spec": {"replicas": 9}, "status": {"replicas": 3}, "metadata": {"resourceVersion": "7"}}),
    );
    strategy.prepare_status_update(&mut new, &old);
    assert_eq!(new, with(old.clone(), &json!({"status": {"replicas": 3}, "metadata": {"resourceVersion": "7"}})));
}

#[test]
fn selectors_are_immutable_and_scales_change() {
    let errors =
        update_errors("Deployment", &deployment(), &json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}}));
    assert_eq!(errors, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"]);
    let strategy = strategy("Deployment");
    let mut object = created("Deployment", &deployment());
    strategy.set_scale(&mut object, 5);
    let scale = strategy.scale(&object).expect("deployments scale");
    assert_eq!((scale.spec_replicas, scale.status_replicas, scale.selector.as_str()), (5, 0, "app=web"));
}

#[test]
fn workloads_are_shown_in_tables() {
    let object = with(
        created("Deployment", &deployment()),
        &json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}}),
    );
    assert_eq!(cells("Deployment", &object), ["web", "2/3", "3", "1", "60m", "c,d", "nginx:1,redis", "app=web"]);
    let object = with(object, &json!({"status": {"replicas": 3}}));
    assert_eq!(cells("ReplicaSet", &object), ["web", "3", "3", "2", "60m", "c,d", "nginx:1,redis", "app=web"]);
}

#[test]
fn namespaces_become_active_and_terminate() {
    let strategy = strategy("Namespace");
    let mut object = created("Namespace", &json!({"metadata": {"name": "team", "creationTimestamp": BORN}}));
    assert_eq!(object["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "team"}));
    assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(cells("Namespace", &object), ["team", "Active", "60m"]);
    assert!(strategy.is_held(&object));
    strategy.prepare_delete(&mut object);
    assert_eq!(strategy.selectable_fields(&object), [("status.phase", "Terminating".to_owned())]);
    let mut emptied = with(object.clone(), &json!({"spec": {"finalizers": []}}));
    strategy.prepare_update(&mut emptied, &object);
    assert!(strategy.is_held(&emptied), "only the finalize subresource removes finalizers");
}

#[test]
fn secrets_fold_strings_into_data() {
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "YQ==", "b": "Yg=="}, "stringData": {"b": "hé"}});
    let object = created("Secret", &secret);
    assert_eq!(object["data"], json!({"a": "YQ==", "b": "aMOp"}));
    assert_eq!((&object["type"], object.get("stringData")), (&json!("Opaque"), None));
    assert_eq!(
        errors_of("Secret", &json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
        ["data[tls.key]: Required value"]
    );
    let errors = update_errors("Secret", &secret, &json!({"type": "other"}));
    assert_eq!(errors, ["type: Invalid value: \"other\": field is immutable"]);
}

#[test]
fn config_maps_have_keys_that_can_be_files() {
    let map =
        json!({"metadata": {"name": "m", "creationTimestamp": BORN}, "data": {"a": "1"}, "binaryData": {"b": ""}});
    assert_eq!(cells("ConfigMap", &map), ["m", "2", "60m"]);
    let errors = errors_of("ConfigMap", &with(map.clone(), &json!({"data": {"a/b": "", "..": "", "b": ""}})));
    assert!(errors[0].starts_with("data[..]: Invalid value: \"..\": must not be '..'"), "{errors:?}");
    assert!(
        errors[1].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must consist of"),
        "{errors:?}"
    );
    assert_eq!(errors[2], "data[b]: Invalid value: \"b\": duplicate of key present in binaryData");
    let big = with(map.clone(), &json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}}));
    assert_eq!(errors_of("ConfigMap", &big).len(), 1);
    let frozen = with(map, &json!({"immutable": true}));
    let errors = update_errors("ConfigMap", &frozen, &json!({"data": {"a": "2"}, "immutable": null}));
    assert_eq!(
        errors,
        [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set"
        ]
    );
    assert_eq!(strategy("ConfigMap").deletion(&frozen, Some(30)), Deletion::Immediate);
}

#[test]
fn nodes_are_shown_with_state_and_roles() {
    let node = json!({
        "metadata": {"name": "n1", "creationTimestamp": BORN, "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": true},
        "status": {
            "capacity": {"cpu": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"},
        },
    });
    assert_eq!(
        cells("Node", &node),
        [
            "n1",
            "Ready,SchedulingDisabled",
            "edge,worker",
            "60m",
            "v1.36.0",
            "10.1.0.1",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>"
        ]
    );
    let object = created("Node", &node);
    assert_eq!(object["status"]["allocatable"], json!({"cpu": "2"}), "nodes register with a status");
    assert_eq!(strategy("Node").selectable_fields(&object), [("spec.unschedulable", "true".to_owned())]);
    let taint = json!({"key": "a", "effect": "NoSchedule"});
    let errors =
        errors_of("Node", &with(node, &json!({"spec": {"taints": [taint, taint, {"key": "b", "effect": "No"}]}})));
    assert!(
        errors[0].starts_with("spec.taints[1]: Duplicate value: ")
            && errors[1].starts_with("spec.taints[2].effect: Unsupported value: \"No\""),
        "{errors:?}"
    );
}

#[test]
fn events_leases_and_endpoints_are_shown() {
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"}, "type": "Warning", "reason": "BackOff", "count": 4,
        "message": " pulling \n", "firstTimestamp": BORN, "lastTimestamp": "2026-01-01T00:59:00Z",
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "n1"},
    });
    assert_eq!(
        cells("Event", &event),
        ["60s", "Warning", "BackOff", "pod/web", "spec.containers{c}", "kubelet, n1", "pulling", "60m", "4", "e"]
    );
    assert_eq!(
        errors_of("Event", &with(event, &json!({"metadata": {"namespace": "other"}}))),
        ["involvedObject.namespace: Invalid value: \"default\": does not match event.namespace"]
    );
    let lease = json!({"metadata": {"name": "l", "creationTimestamp": BORN}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 0}});
    assert_eq!(cells("Lease", &lease), ["l", "n1", "60m"]);
    assert_eq!(errors_of("Lease", &lease), ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]);

    let address = |ip: &str| json!({ "ip": ip });
    let endpoints = json!({"metadata": {"name": "web", "creationTimestamp": BORN}, "subsets": [{
        "addresses": [address("10.0.0.1"), address("10.0.0.2")], "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
    }]});
    assert_eq!(cells("Endpoints", &endpoints), ["web", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...", "60m"]);
    assert_eq!(errors_of("Endpoints", &endpoints), Vec::<String>::new());

    let slice = json!({
        "metadata": {"name": "web-x", "creationTimestamp": BORN}, "addressType": "IPv4",
        "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["nope"]}],
    });
    assert_eq!(cells("EndpointSlice", &slice), ["web-x", "IPv4", "80", "10.0.0.1,nope", "60m"]);
    assert_eq!(
        errors_of("EndpointSlice", &slice),
        ["endpoints[1].addresses[0]: Invalid value: \"nope\": must be an IPv4 address"]
    );
    assert_eq!(created("EndpointSlice", &slice)["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
}
