//! The changes that a pod allows. There are few, because its containers already run.

use std::collections::HashSet;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};
use serde_json::Value;

use super::fence;
use crate::value::equal;

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn validate(new: &core::Pod, old: &core::Pod) -> Vec<FieldError> {
    let mut errors = fence::validate_update(new, old);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
    let path = FieldPath::new("spec");
    if new.containers.len() != old.containers.len() {
        errors.push(FieldError::forbidden(path.child("containers"), "pod updates may not add or remove containers"));
    }
    let count = |list: &Option<Vec<core::Container>>| list.as_ref().map_or(0, Vec::len);
    if count(&new.init_containers) != count(&old.init_containers) {
        errors
            .push(FieldError::forbidden(path.child("initContainers"), "pod updates may not add or remove containers"));
    }
    if !errors.is_empty() {
        return errors;
    }
    active_deadline(new, old, &path, &mut errors);
    tolerations(new, old, &path, &mut errors);
    gates(new, old, &path, &mut errors);
    if is_gated(old) {
        placement(new, old, &path, &mut errors);
    }

    let mut rest = new.clone();
    hide_mutable_fields(&mut rest, old);
    match (serde_json::to_value(&rest), serde_json::to_value(old)) {
        (Ok(rest), Ok(old)) if equal(&rest, &old) => {}
        (Ok(rest), Ok(old)) => {
            let changed = changed_fields(&rest, &old, "spec");
            let detail = format!("{ONLY}\nchanged: {}", changed.join(", "));
            errors.push(FieldError::forbidden(path, detail));
        }
        (Err(error), _) | (_, Err(error)) => errors.push(FieldError::invalid(path, "", error.to_string())),
    }
    errors
}

/// Checks a status update: a container that ended permanently stays ended, and the fence does not change. A container
/// ends permanently under `restartPolicy: Never`, or under `OnFailure` with exit code 0.
pub fn validate_status(new: &core::Pod, old: &core::Pod) -> Vec<FieldError> {
    let mut errors = fence::validate_update(new, old);
    let (Some(new_status), Some(old_status)) = (&new.status, &old.status) else { return errors };
    let policy = old.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_default();
    let path = FieldPath::new("status");
    let (new, old) = (&new_status.container_statuses, &old_status.container_statuses);
    ended_stay_ended(new, old, policy, &path.child("containerStatuses"), &mut errors);
    // Ephemeral containers are never restarted.
    let (new, old) = (&new_status.ephemeral_container_statuses, &old_status.ephemeral_container_statuses);
    ended_stay_ended(new, old, "Never", &path.child("ephemeralContainerStatuses"), &mut errors);
    errors
}

type Statuses = Option<Vec<core::ContainerStatus>>;

fn ended_stay_ended(new: &Statuses, old: &Statuses, policy: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if policy == "Always" {
        return;
    }
    let ended = |status: &core::ContainerStatus| {
        let terminated = status.state.as_ref().and_then(|state| state.terminated.as_ref())?;
        Some(terminated.exit_code)
    };
    for before in old.iter().flatten() {
        let Some(exit_code) = ended(before) else { continue };
        if policy == "OnFailure" && exit_code != 0 {
            continue;
        }
        let after = new.iter().flatten().enumerate().find(|(_, after)| after.name == before.name);
        if let Some((index, _)) = after.filter(|(_, after)| ended(after).is_none()) {
            errors.push(FieldError::forbidden(
                path.index(index).child("state"),
                "may not be transitioned to non-terminated state",
            ));
        }
    }
}

fn active_deadline(new: &core::PodSpec, old: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child("activeDeadlineSeconds");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if new < 0 => {
            errors.push(FieldError::invalid(path, new, "must be between 0 and 2147483647, inclusive"));
        }
        (Some(new), Some(old)) if new > old => {
            let detail = format!("must be less than or equal to previous value {old}");
            errors.push(FieldError::invalid(path, new, detail));
        }
        (None, Some(old)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, old, detail));
        }
        _ => {}
    }
}

fn tolerations(new: &core::PodSpec, old: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    // Only the tolerated time may change; node lifecycle changes it.
    fn tolerated(spec: &core::PodSpec) -> HashSet<[Option<&str>; 4]> {
        let tolerations = spec.tolerations.iter().flatten();
        tolerations.map(|t| [&t.key, &t.operator, &t.value, &t.effect].map(Option::as_deref)).collect()
    }
    if !tolerated(old).is_subset(&tolerated(new)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path.child("tolerations"), detail));
    }
}

fn gates(new: &core::PodSpec, old: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let before: HashSet<&str> = old.scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect();
    let gates = new.scheduling_gates.iter().flatten().enumerate();
    for (index, gate) in gates.filter(|(_, gate)| !before.contains(gate.name.as_str())) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.push(FieldError::forbidden(path.child("schedulingGates").index(index).child("name"), detail));
    }
}

fn is_gated(spec: &core::PodSpec) -> bool {
    spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
}

/// Checks the placement of a gated pod. The pod is not being scheduled yet, so its placement may be narrowed, but not
/// widened.
fn placement(new: &core::PodSpec, old: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let selector = |spec: &core::PodSpec| spec.node_selector.clone().unwrap_or_default();
    let (narrowed, before) = (selector(new), selector(old));
    if before.iter().any(|(key, value)| narrowed.get(key) != Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(path.child("nodeSelector"), narrowed, detail));
    }

    let (narrowed, before) = (required_terms(new), required_terms(old));
    let path = path
        .child("affinity")
        .child("nodeAffinity")
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms");
    if before.is_empty() {
        return;
    }
    // The pod matches a node if one of the terms does, so another term would widen the placement.
    if narrowed.len() != before.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, narrowed, detail));
        return;
    }
    for (index, (narrowed, before)) in narrowed.iter().zip(before).enumerate() {
        if !only_adds_requirements(narrowed, before) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(path.index(index), narrowed, detail));
        }
    }
}

fn required_terms(spec: &core::PodSpec) -> &[core::NodeSelectorTerm] {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(&[], |required| required.node_selector_terms.as_slice())
}

fn only_adds_requirements(new: &core::NodeSelectorTerm, old: &core::NodeSelectorTerm) -> bool {
    let lists = |term: &core::NodeSelectorTerm| {
        [&term.match_expressions, &term.match_fields].map(|list| list.clone().unwrap_or_default())
    };
    let (new, old) = (lists(new), lists(old));
    // An empty term matches no node, so any addition would widen the placement.
    if old.iter().all(Vec::is_empty) {
        return new.iter().all(Vec::is_empty);
    }
    new.iter().zip(&old).all(|(new, old)| new.starts_with(old))
}

/// Gives `spec` the old values of all fields that an update may change.
fn hide_mutable_fields(spec: &mut core::PodSpec, old: &core::PodSpec) {
    for (container, old) in spec.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&old.image);
    }
    let init_containers = spec.init_containers.iter_mut().flatten();
    for (container, old) in init_containers.zip(old.init_containers.iter().flatten()) {
        container.image.clone_from(&old.image);
    }
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.tolerations.clone_from(&old.tolerations);
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    if spec.termination_grace_period_seconds == Some(1)
        && old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
    {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if is_gated(old) {
        spec.node_selector.clone_from(&old.node_selector);
        hide_node_affinity(spec, old);
    }
}

/// Hides the node affinity of a gated pod. Pod affinity is fixed even there.
fn hide_node_affinity(spec: &mut core::PodSpec, old: &core::PodSpec) {
    let before = old.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let affinity = spec.affinity.get_or_insert_default();
    affinity.node_affinity = before;
    if old.affinity.is_none() && affinity.pod_affinity.is_none() && affinity.pod_anti_affinity.is_none() {
        spec.affinity = None;
    }
}

/// Lists the innermost fields that differ.
fn changed_fields(new: &Value, old: &Value, path: &str) -> Vec<String> {
    match (new, old) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter()
                .filter(|key| !equal(&new[key.as_str()], &old[key.as_str()]))
                .flat_map(|key| changed_fields(&new[key.as_str()], &old[key.as_str()], &format!("{path}.{key}")))
                .collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .filter(|(_, (a, b))| !equal(a, b))
            .flat_map(|(index, (a, b))| changed_fields(a, b, &format!("{path}[{index}]")))
            .collect(),
        _ => vec![path.to_owned()],
    }
}
