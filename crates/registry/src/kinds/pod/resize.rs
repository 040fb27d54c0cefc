//! The resize of a running pod: a change of the CPU and memory of its containers, through a subresource of its own.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use quorate_api::{FieldError, FieldPath};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use super::{is_static, qos};
use crate::value::{carry_over, child, items, items_mut, text};

const LISTS: [&str; 2] = ["containers", "initContainers"];
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Undoes every change except those of the containers' resources. A list with other containers stays as it is, because
/// validation refuses it.
pub fn keep_only_resources(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let spec = child(&mut kept, "spec");
    for list in LISTS {
        if names(new, list) == names(old, list) {
            for (container, given) in items_mut(spec, list).zip(items(&new["spec"][list])) {
                carry_over(container, given, "resources");
                carry_over(container, given, "resizePolicy");
            }
        } else {
            carry_over(spec, &new["spec"], list);
        }
    }
    carry_over(spec, &new["spec"], "resources");
    *new = kept;
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    items(&pod["spec"][list]).iter().map(|container| text(&container["name"])).collect()
}

/// Checks a resize.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let refused = |detail: &str| vec![FieldError::forbidden(FieldPath::default(), detail)];
    if has_resources(old) || has_resources(new) {
        return refused("pods with pod-level resources cannot be resized");
    }
    if is_static(old) {
        return refused("static pods cannot be resized");
    }
    if old["spec"]["os"]["name"] == "windows" {
        return refused("windows pods cannot be resized");
    }
    let path = FieldPath::new("spec");
    let mut errors = Vec::new();
    for list in LISTS.into_iter().filter(|list| names(new, list) != names(old, list)) {
        let detail = "a resize may not add, remove, rename or reorder containers";
        errors.push(FieldError::forbidden(path.child(list), detail));
    }
    if !errors.is_empty() {
        return errors;
    }
    if qos::class(&new["spec"]) != qos::class(&old["spec"]) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(path.clone(), &old["status"]["qosClass"], detail));
    }
    if !is_supported(old) {
        errors.push(FieldError::forbidden(path.clone(), "Pod running on node without support for resize"));
    }
    for list in LISTS {
        let both = items(&new["spec"][list]).iter().zip(items(&old["spec"][list]));
        for (index, (new, old)) in both.enumerate() {
            match (core::Container::deserialize(new), core::Container::deserialize(old)) {
                (Ok(new), Ok(old)) => container(list, &new, &old, &path.child(list).index(index), &mut errors),
                (Err(error), _) | (_, Err(error)) => {
                    errors.push(FieldError::invalid(path.child(list).index(index), "", error.to_string()));
                }
            }
        }
    }
    errors
}

fn has_resources(pod: &Value) -> bool {
    let resources = &pod["spec"]["resources"];
    ["limits", "requests"].iter().any(|list| resources[*list].as_object().is_some_and(|amounts| !amounts.is_empty()))
}

/// Returns whether the pod's node reports the resources of running containers, so that it can change them.
fn is_supported(pod: &Value) -> bool {
    let statuses = items(&pod["status"]["containerStatuses"]);
    let running = statuses.iter().find(|status| !status["state"]["running"].is_null());
    running.is_none_or(|status| !status["resources"].is_null())
}

fn container(list: &str, new: &core::Container, old: &core::Container, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let is_sidecar = old.restart_policy.as_deref() == Some("Always");
    if list == "initContainers" && !is_sidecar {
        if new != old {
            let detail = "resources for non-sidecar init containers are immutable";
            errors.push(FieldError::forbidden(path.clone(), detail));
        }
        return;
    }
    let resources = |container: &core::Container| container.resources.clone().unwrap_or_default();
    let (wanted, before) = (resources(new), resources(old));
    for (name, new, old) in
        [("requests", &wanted.requests, &before.requests), ("limits", &wanted.limits, &before.limits)]
    {
        let has = |name: &String| new.as_ref().is_some_and(|new| new.contains_key(name));
        if old.iter().flatten().any(|(resource, _)| !has(resource)) {
            let detail = format!("resource {name} cannot be removed");
            errors.push(FieldError::forbidden(path.child("resources").child(name), detail));
        }
    }
    let mut rest = new.clone();
    rest.resources = Some(core::ResourceRequirements {
        requests: with_old_amounts(&wanted.requests, &before.requests),
        limits: with_old_amounts(&wanted.limits, &before.limits),
        claims: wanted.claims,
    });
    let mut expected = old.clone();
    expected.resources = Some(core::ResourceRequirements {
        requests: with_old_amounts(&before.requests, &before.requests),
        limits: with_old_amounts(&before.limits, &before.limits),
        claims: before.claims,
    });
    if rest != expected {
        let what = if is_sidecar && list == "initContainers" { " for sidecar containers" } else { "" };
        let detail = format!("only cpu and memory resources{what} are mutable");
        errors.push(FieldError::forbidden(path.clone(), detail));
    }
}

type Amounts = Option<BTreeMap<String, Amount>>;

/// Gives a list the old amounts of the resources that a resize may change.
fn with_old_amounts(new: &Amounts, old: &Amounts) -> Amounts {
    let mut amounts = new.clone().unwrap_or_default();
    for resource in RESIZABLE {
        amounts.remove(resource);
        if let Some(amount) = old.as_ref().and_then(|old| old.get(resource)) {
            amounts.insert(resource.to_owned(), amount.clone());
        }
    }
    (!amounts.is_empty()).then_some(amounts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Subresource;
    use crate::kinds::tests::{changed, created, errors_of, update_errors};

    fn container(name: &str, cpu: &str, memory: &str) -> Value {
        json!({"name": name, "image": "i:1", "resources": {
            "requests": {"cpu": cpu, "memory": memory, "example.com/gpu": "1"},
            "limits": {"cpu": "2", "memory": memory, "example.com/gpu": "1"},
        }})
    }

    fn given() -> Value {
        let mut sidecar = container("side", "100m", "64Mi");
        sidecar["restartPolicy"] = json!("Always");
        json!({
            "metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "containers": [container("c", "100m", "64Mi"), {"name": "d", "image": "i:1"}],
                "initContainers": [container("init", "100m", "64Mi"), sidecar],
            },
        })
    }

    fn resized(old: &Value, change: impl FnOnce(&mut Value)) -> (Value, Vec<String>) {
        let mut new = old.clone();
        change(&mut new);
        let spec = json!({"spec": {"containers": new["spec"]["containers"],
            "initContainers": new["spec"]["initContainers"], "resources": new["spec"]["resources"]}});
        changed("Pod", Subresource::Resize, old, &spec)
    }

    #[test]
    fn a_resize_changes_cpu_and_memory_alone() {
        let old = created("Pod", &given());
        let (new, errors) = resized(&old, |pod| {
            let containers = &mut pod["spec"]["containers"];
            containers[0]["resources"]["requests"] = json!({"cpu": "200m", "memory": "32Mi", "example.com/gpu": "1"});
            containers[0]["resources"]["limits"]["memory"] = json!("48Mi");
            containers[0]["image"] = json!("i:2");
            containers[1]["resources"] = json!({"requests": {"cpu": "10m"}, "limits": {"memory": "1Gi"}});
            pod["spec"]["initContainers"][1]["resources"]["requests"]["cpu"] = json!("50m");
        });
        assert_eq!(errors, Vec::<String>::new(), "limits may be added, and lowered");
        let mut expected = old.clone();
        expected["metadata"]["generation"] = 2.into();
        let containers = &mut expected["spec"]["containers"];
        containers[0]["resources"]["requests"] = json!({"cpu": "200m", "memory": "32Mi", "example.com/gpu": "1"});
        containers[0]["resources"]["limits"]["memory"] = json!("48Mi");
        containers[1]["resources"] = json!({"requests": {"cpu": "10m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}});
        expected["spec"]["initContainers"][1]["resources"]["requests"]["cpu"] = json!("50m");
        assert_eq!(new, expected);
        let changes = json!({"spec": {"containers": expected["spec"]["containers"]}});
        assert_eq!(update_errors("Pod", &given(), &changes).len(), 1, "resources are not changed with the pod itself");
    }

    #[test]
    fn other_changes_are_refused() {
        let old = created("Pod", &given());
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 8] = [
            (
                |spec| {
                    spec["containers"][0]["resources"]["requests"] = json!({"memory": "64Mi", "example.com/gpu": "1"})
                },
                "", // The limit becomes the request.
            ),
            (
                |spec| spec["containers"][0]["resources"]["limits"] = json!({"memory": "64Mi", "example.com/gpu": "1"}),
                "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
            ),
            (
                |spec| {
                    for list in ["limits", "requests"] {
                        spec["containers"][0]["resources"][list]["example.com/gpu"] = json!("2");
                    }
                },
                "spec.containers[0]: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                |spec| {
                    spec["containers"][0]["resizePolicy"] =
                        json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}])
                },
                "spec.containers[0]: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                |spec| spec["initContainers"][0]["resources"]["requests"]["cpu"] = json!("50m"),
                "spec.initContainers[0]: Forbidden: resources for non-sidecar init containers are immutable",
            ),
            (
                |spec| spec["containers"].as_array_mut().expect("a list").reverse(),
                "spec.containers: Forbidden: a resize may not add, remove, rename or reorder containers",
            ),
            (
                |spec| drop(spec["containers"].as_array_mut().and_then(Vec::pop)),
                "spec.containers: Forbidden: a resize may not add, remove, rename or reorder containers",
            ),
            (
                |spec| spec["resources"] = json!({"requests": {"cpu": "1"}}),
                ": Forbidden: pods with pod-level resources cannot be resized",
            ),
        ];
        for (change, expected) in cases {
            let errors = resized(&old, |pod| change(&mut pod["spec"])).1;
            let expected: Vec<&str> = Some(expected).filter(|text| !text.is_empty()).into_iter().collect();
            assert_eq!(errors, expected);
        }
    }

    #[test]
    fn the_class_stays_the_same() {
        let amounts = json!({"cpu": "1", "memory": "1Gi"});
        let mut pod = given();
        pod["spec"]["containers"] =
            json!([{"name": "c", "image": "i:1", "resources": {"requests": amounts, "limits": amounts}}]);
        pod["spec"]["initContainers"] = json!([]);
        let old = created("Pod", &pod);
        let errors = resized(&old, |pod| {
            pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("2");
        });
        let expected = "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing";
        assert_eq!(errors.1, [expected]);
    }

    #[test]
    fn pods_that_cannot_be_resized_are_refused() {
        let refused = |change: fn(&mut Value)| {
            let mut old = created("Pod", &given());
            change(&mut old);
            resized(&old, |_| {}).1
        };
        assert_eq!(
            refused(|pod| pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"})),
            [": Forbidden: static pods cannot be resized"]
        );
        assert_eq!(
            refused(|pod| pod["spec"]["os"] = json!({"name": "windows"})),
            [": Forbidden: windows pods cannot be resized"]
        );
        let running = json!({"name": "c", "image": "i:1", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}});
        let mut old = created("Pod", &given());
        old["status"]["containerStatuses"] = json!([running]);
        assert_eq!(resized(&old, |_| {}).1, ["spec: Forbidden: Pod running on node without support for resize"]);
        old["status"]["containerStatuses"][0]["resources"] = json!({});
        assert_eq!(resized(&old, |_| {}).1, Vec::<String>::new());
    }

    #[test]
    fn resize_policies_are_checked() {
        let of = |policy: &str, policies: Value| {
            let mut pod = given();
            pod["spec"]["restartPolicy"] = json!(policy);
            pod["spec"]["containers"][0]["resizePolicy"] = policies;
            errors_of("Pod", &pod)
        };
        let policy = |resource: &str, restart: &str| json!({"resourceName": resource, "restartPolicy": restart});
        let both = json!([policy("cpu", "NotRequired"), policy("memory", "RestartContainer")]);
        assert_eq!(of("Always", both.clone()), Vec::<String>::new());
        let path = "spec.containers[0].resizePolicy";
        assert_eq!(
            of("Never", both),
            [format!(
                "{path}: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'"
            )]
        );
        let twice = json!([policy("cpu", "NotRequired"), policy("cpu", "NotRequired")]);
        assert_eq!(of("Always", twice), [format!("{path}[1]: Duplicate value: \"cpu\"")]);
        assert_eq!(
            of("Always", json!([policy("disk", "Sometimes")])),
            [
                format!("{path}: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\""),
                format!(
                    "{path}: Unsupported value: \"Sometimes\": supported values: \"NotRequired\", \"RestartContainer\""
                ),
            ]
        );
    }
}
