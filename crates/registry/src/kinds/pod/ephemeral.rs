//! Ephemeral containers, which are added to a pod that exists, through a subresource of their own.

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};
use serde::Deserialize;
use serde_json::Value;

use super::is_static;
use crate::value::{carry_over, child};

/// Undoes every change except those of the ephemeral containers.
pub fn keep_only_ephemeral_containers(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    carry_over(child(&mut kept, "spec"), &new["spec"], "ephemeralContainers");
    *new = kept;
}

/// Checks that the containers were only added to. They run already, and are never restarted.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    if is_static(old) {
        let detail = "static pods do not support ephemeral containers";
        return vec![FieldError::forbidden(FieldPath::default(), detail)];
    }
    let path = FieldPath::new("spec").child("ephemeralContainers");
    let (new, old) = match (containers(new), containers(old)) {
        (Ok(new), Ok(old)) => (new, old),
        (Err(error), _) | (_, Err(error)) => return vec![FieldError::invalid(path, "", error.to_string())],
    };
    let mut errors = Vec::new();
    for container in &old {
        let problem = match new.iter().find(|other| other.name == container.name) {
            None => "removed",
            Some(same) if same != container => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers {:?} may not be {problem}", container.name);
        errors.push(FieldError::forbidden(path.clone(), detail));
    }
    errors
}

fn containers(pod: &Value) -> Result<Vec<core::EphemeralContainer>, serde_json::Error> {
    match &pod["spec"]["ephemeralContainers"] {
        Value::Null => Ok(Vec::new()),
        list => Vec::deserialize(list),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Subresource;
    use crate::kinds::tests::{changed, created, update_errors};
    use crate::value::equal;

    use super::*;

    fn pod() -> Value {
        created(
            "Pod",
            &json!({
                "metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {
                    "containers": [{"name": "c", "image": "nginx:1"}],
                    "initContainers": [{"name": "i", "image": "nginx:1"}],
                    "volumes": [{"name": "v"}],
                },
            }),
        )
    }

    /// Returns the pod and the errors after its ephemeral containers are replaced.
    fn with(old: &Value, containers: &Value) -> (Value, Vec<String>) {
        changed("Pod", Subresource::EphemeralContainers, old, &json!({"spec": {"ephemeralContainers": containers}}))
    }

    fn debugger(patch: &Value) -> Value {
        let mut container = json!({"name": "debug", "image": "busybox", "stdin": true, "tty": true});
        quorate_api::patch::merge::apply(&mut container, patch);
        container
    }

    #[test]
    fn an_update_changes_the_ephemeral_containers_alone() {
        let old = pod();
        let changes = json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [{"name": "c", "image": "nginx:2"}],
                "ephemeralContainers": [debugger(&json!({"targetContainerName": "c"}))],
            },
            "status": {"phase": "Running"},
        });
        let (new, errors) = changed("Pod", Subresource::EphemeralContainers, &old, &changes);
        assert_eq!(errors, Vec::<String>::new());
        let mut expected = old.clone();
        expected["metadata"]["generation"] = 2.into();
        expected["spec"]["ephemeralContainers"] = json!([{
            "name": "debug", "image": "busybox", "imagePullPolicy": "Always", "stdin": true, "tty": true,
            "targetContainerName": "c", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }]);
        assert_eq!(new, expected);
        let (same, errors) = with(&new, &new["spec"]["ephemeralContainers"]);
        assert!(equal(&same, &new) && errors.is_empty(), "{errors:?}");
        assert_eq!(
            update_errors("Pod", &pod(), &json!({"spec": {"ephemeralContainers": [debugger(&json!({}))]}})).len(),
            1,
            "they are not changed with the pod itself"
        );
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let (old, _) = with(&pod(), &json!([debugger(&json!({}))]));
        let other = debugger(&json!({"name": "other"}));
        let path = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\"";
        for (containers, problem) in [
            (json!([other, debugger(&json!({}))]), None),
            (json!([other]), Some("may not be removed")),
            (json!([]), Some("may not be removed")),
            (json!(null), Some("may not be removed")),
            (json!([debugger(&json!({"image": "alpine"}))]), Some("may not be changed")),
        ] {
            let expected: Vec<String> = problem.into_iter().map(|problem| format!("{path} {problem}")).collect();
            assert_eq!(with(&old, &containers).1, expected, "{containers}");
        }
    }

    #[test]
    fn static_pods_have_no_ephemeral_containers() {
        let mut old = pod();
        old["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        let errors = with(&old, &json!([debugger(&json!({}))])).1;
        assert_eq!(errors, [": Forbidden: static pods do not support ephemeral containers"]);
    }

    #[test]
    fn ephemeral_containers_are_checked() {
        let cannot = "cannot be set for an Ephemeral Container";
        for (patch, path, problem) in [
            (json!({"name": "c"}), "name", "Duplicate value: \"c\""),
            (json!({"name": "i"}), "name", "Duplicate value: \"i\""),
            (json!({"image": null}), "image", "Required value"),
            (json!({"targetContainerName": "none"}), "targetContainerName", "Not found: \"none\""),
            (json!({"targetContainerName": "debug"}), "targetContainerName", "Not found: \"debug\""),
            (json!({"ports": [{"containerPort": 80}]}), "ports", cannot),
            (json!({"resources": {"limits": {"cpu": "1"}}}), "resources", cannot),
            (json!({"livenessProbe": {"tcpSocket": {"port": 1}}}), "livenessProbe", cannot),
            (json!({"readinessProbe": {"tcpSocket": {"port": 1}}}), "readinessProbe", cannot),
            (json!({"startupProbe": {"tcpSocket": {"port": 1}}}), "startupProbe", cannot),
            (json!({"lifecycle": {"preStop": {"exec": {"command": ["a"]}}}}), "lifecycle", cannot),
            (json!({"restartPolicy": "Always"}), "restartPolicy", cannot),
            (
                json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}),
                "resizePolicy",
                cannot,
            ),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]}),
                "volumeMounts[0].subPath",
                cannot,
            ),
            (json!({"volumeMounts": [{"name": "w", "mountPath": "/v"}]}), "volumeMounts[0].name", "Not found: \"w\""),
        ] {
            let problem = if problem == cannot { format!("Forbidden: {cannot}") } else { problem.to_owned() };
            let expected = format!("spec.ephemeralContainers[0].{path}: {problem}");
            assert_eq!(with(&pod(), &json!([debugger(&patch)])).1, [expected], "{patch}");
        }
    }
}
