use serde_json::json;

use super::*;
use crate::data::builtin;

fn errors(api_version: &str, kind: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let ty = builtin().kind(api_version, kind).expect("a kind");
    check(builtin(), ty, object, old).iter().map(ToString::to_string).collect()
}

#[test]
fn required_fields_may_not_be_empty() {
    for cron in [json!({}), json!({"spec": {}}), json!({"spec": {"schedule": ""}})] {
        assert_eq!(errors("batch/v1", "CronJob", &cron, None), ["spec.schedule: Required value"]);
    }
    assert_eq!(errors("batch/v1", "CronJob", &json!({"spec": {"schedule": "@daily"}}), None), Vec::<String>::new());
    let role = json!({"rules": [{"verbs": ["get"]}, {"verbs": []}, {}]});
    assert_eq!(
        errors("rbac.authorization.k8s.io/v1", "Role", &role, None),
        ["rules[1].verbs: Required value", "rules[2].verbs: Required value"]
    );
}

#[test]
fn numbers_and_lists_have_limits() {
    let scale = json!({"spec": {"replicas": -1}});
    assert_eq!(
        errors("autoscaling/v1", "Scale", &scale, None),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
    let requests = json!({"spec": {"devices": {"requests": vec![json!({"name": "a"}); 33]}}});
    assert_eq!(
        errors("resource.k8s.io/v1", "ResourceClaim", &requests, None),
        ["spec.devices.requests: Too many: 33: must have at most 32 items"]
    );
    let status =
        json!({"status": {"devices": [{"networkData": {"hardwareAddress": "x".repeat(129), "ips": ["a", "a"]}}]}});
    assert_eq!(
        errors("resource.k8s.io/v1", "ResourceClaim", &status, None),
        [
            "status.devices[0].networkData.hardwareAddress: Too long: may not be more than 128 bytes",
            "status.devices[0].networkData.ips[1]: Duplicate value: \"a\"",
        ]
    );
}

#[test]
fn immutable_fields_keep_their_value() {
    let class = |handler: &str| json!({"handler": handler});
    assert_eq!(errors("node.k8s.io/v1", "RuntimeClass", &class("a"), Some(&class("a"))), Vec::<String>::new());
    assert_eq!(
        errors("node.k8s.io/v1", "RuntimeClass", &class("b"), Some(&class("a"))),
        ["handler: Invalid value: \"b\": field is immutable"]
    );
    let empty = json!({"provisioner": "p", "parameters": {}});
    assert_eq!(
        errors("storage.k8s.io/v1", "StorageClass", &empty, Some(&json!({"provisioner": "p"}))),
        Vec::<String>::new()
    );
}

#[test]
fn names_have_formats() {
    let class = json!({"spec": {"extendedResourceName": "requests.kubernetes.io/a"}});
    assert_eq!(
        errors("resource.k8s.io/v1", "DeviceClass", &class, None),
        [
            "spec.extendedResourceName: Invalid value: \"requests.kubernetes.io/a\": must not have \"kubernetes.io/\" domain",
            "spec.extendedResourceName: Invalid value: \"requests.kubernetes.io/a\": must not have \"requests.\" prefix",
        ]
    );
    let path = FieldPath::new("f");
    for (format, good, bad) in [
        ("k8s-short-name", "a-b", "a.b"),
        ("k8s-long-name", "a.b", "A.b"),
        ("k8s-long-name-caseless", "A.b", "A_b"),
        ("k8s-label-key", "a.b/C", "a b"),
        ("k8s-uuid", "01234567-89ab-cdef-0123-456789abcdef", "01234567-89AB-cdef-0123-456789abcdef"),
        ("k8s-resource-pool-name", "a/b.c", "a//b"),
        ("k8s-resource-fully-qualified-name", "a.b/c_d", "c_d"),
        ("k8s-extended-resource-name", "example.com/gpu", "gpu"),
    ] {
        assert_eq!(format::check(format, good, &path), [], "{format}");
        assert!(!format::check(format, bad, &path).is_empty(), "{format}");
    }
}

#[test]
fn every_format_of_the_data_is_known() {
    for (_, ty) in builtin().types() {
        for field in &ty.fields {
            let format = field.shape.rules.as_ref().and_then(|rules| rules.format.as_deref());
            assert!(format.is_none_or(format::is_known), "{} {}", ty.qualified_name(), field.name);
        }
    }
}
