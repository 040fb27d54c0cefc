//! Checks of the fields that determine where a pod may run.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath, LabelSelector, name};

use crate::check;
use crate::metadata;

const EFFECTS: &[&str] = &["", "NoExecute", "NoSchedule", "PreferNoSchedule"];
const NODE_OPERATORS: &[&str] = &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"];

pub fn validate(spec: &core::PodSpec, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(selector) = &spec.node_selector {
        metadata::labels(selector.iter(), &path.child("nodeSelector"), errors);
    }
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        validate_toleration(toleration, &path.child("tolerations").index(index), errors);
    }
    if let Some(affinity) = &spec.affinity {
        validate_affinity(affinity, &path.child("affinity"), errors);
    }
    let mut gates = BTreeSet::new();
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = path.child("schedulingGates").index(index);
        check::named(&gate.name, name::qualified_name, &path, errors);
        if !gates.insert(&gate.name) {
            errors.push(FieldError::duplicate(path, &gate.name));
        }
    }
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        check::positive(constraint.max_skew, path.child("maxSkew"), errors);
        if constraint.topology_key.is_empty() {
            errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        }
        let supported = &["DoNotSchedule", "ScheduleAnyway"];
        check::one_of(Some(&constraint.when_unsatisfiable), supported, path.child("whenUnsatisfiable"), errors);
        label_selector(constraint.label_selector.as_ref(), &path.child("labelSelector"), errors);
    }
}

fn validate_toleration(toleration: &core::Toleration, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let key = toleration.key.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    if !key.is_empty() {
        check::named(key, name::qualified_name, &path.child("key"), errors);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(path.child("operator"), operator, detail));
    }
    if toleration.toleration_seconds.is_some() && toleration.effect.as_deref() != Some("NoExecute") {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(path.child("effect"), &toleration.effect, detail));
    }
    match operator {
        "" | "Equal" => check::named(value, name::label_value, &path.child("operator"), errors),
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(path.child("operator"), toleration, detail));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(path.child("operator"), other, &["Equal", "Exists"])),
    }
    check::one_of_if_set(toleration.effect.as_deref(), EFFECTS, path.child("effect"), errors);
}

fn validate_affinity(affinity: &core::Affinity, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                errors.push(FieldError::required(path.clone(), "must have at least one node selector term"));
            }
            for (index, term) in required.node_selector_terms.iter().enumerate() {
                node_term(term, &path.index(index), errors);
            }
        }
        for (index, term) in node.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
            weight(term.weight, &path, errors);
            node_term(&term.preference, &path.child("preference"), errors);
        }
    }
    let pod = affinity.pod_affinity.as_ref().map(|pods| {
        (
            "podAffinity",
            pods.required_during_scheduling_ignored_during_execution.as_deref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_deref(),
        )
    });
    let anti = affinity.pod_anti_affinity.as_ref().map(|pods| {
        (
            "podAntiAffinity",
            pods.required_during_scheduling_ignored_during_execution.as_deref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_deref(),
        )
    });
    for (field, required, preferred) in [pod, anti].into_iter().flatten() {
        let path = path.child(field);
        for (index, term) in required.unwrap_or_default().iter().enumerate() {
            pod_term(term, &path.child("requiredDuringSchedulingIgnoredDuringExecution").index(index), errors);
        }
        for (index, term) in preferred.unwrap_or_default().iter().enumerate() {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
            weight(term.weight, &path, errors);
            pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: i32, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn node_term(term: &core::NodeSelectorTerm, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (field, requirements) in [("matchExpressions", &term.match_expressions), ("matchFields", &term.match_fields)] {
        for (index, requirement) in requirements.iter().flatten().enumerate() {
            let path = path.child(field).index(index);
            let values = requirement.values.as_deref().unwrap_or_default();
            match requirement.operator.as_str() {
                "In" | "NotIn" if values.is_empty() => {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(FieldError::required(path.child("values"), detail));
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(FieldError::forbidden(path.child("values"), detail));
                }
                "Gt" | "Lt" if values.len() != 1 => {
                    let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    errors.push(FieldError::required(path.child("values"), detail));
                }
                operator if !NODE_OPERATORS.contains(&operator) => {
                    errors.push(FieldError::invalid(path.child("operator"), operator, "not a valid selector operator"));
                }
                _ => {}
            }
            check::named(&requirement.key, name::qualified_name, &path.child("key"), errors);
        }
    }
}

fn pod_term(term: &core::PodAffinityTerm, path: &FieldPath, errors: &mut Vec<FieldError>) {
    label_selector(term.label_selector.as_ref(), &path.child("labelSelector"), errors);
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    } else {
        check::named(&term.topology_key, name::qualified_name, &path.child("topologyKey"), errors);
    }
}

fn label_selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let Some(selector) = selector else { return };
    if let Err(error) = LabelSelector::from_object(selector) {
        errors.push(FieldError::invalid(path.clone(), selector, error.to_string()));
    }
}
