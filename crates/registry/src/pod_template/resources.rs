//! Checks of requests and limits.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use quorate_api::{FieldError, FieldPath, Quantity, name};

use crate::check;

/// Kubernetes' own container resources.
const STANDARD: &[&str] = &["cpu", "ephemeral-storage", "memory"];

/// Resources that a resize of a running container may change.
const RESIZABLE: &[&str] = &["cpu", "memory"];
const RESIZE_POLICIES: &[&str] = &["NotRequired", "RestartContainer"];

pub fn validate(resources: &ResourceRequirements, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let limits = amounts(resources.limits.as_ref(), &path.child("limits"), errors);
    let requests = amounts(resources.requests.as_ref(), &path.child("requests"), errors);
    for (resource, request) in requests {
        let path = path.child("requests");
        match limits.get(resource) {
            Some(limit) if request > *limit => {
                let detail = format!("must be less than or equal to {resource} limit of {limit}");
                errors.push(FieldError::invalid(path, request, detail));
            }
            Some(limit) if is_extended(resource) && request != *limit => {
                let detail = format!("must be equal to {resource} limit of {limit}");
                errors.push(FieldError::invalid(path, request, detail));
            }
            None if is_extended(resource) => {
                errors.push(FieldError::required(path.clone(), "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
}

/// Checks which changes of a running container's resources restart it.
pub fn resize_policy(spec: &PodSpec, container: &Container, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        if !seen.insert(&policy.resource_name) {
            errors.push(FieldError::duplicate(path.index(index), &policy.resource_name));
        }
        check::one_of(Some(&policy.resource_name), RESIZABLE, path.clone(), errors);
        check::one_of(Some(&policy.restart_policy), RESIZE_POLICIES, path.clone(), errors);
        if spec.restart_policy.as_deref() == Some("Never") && policy.restart_policy == "RestartContainer" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path.clone(), &policy.restart_policy, detail));
        }
    }
}

fn amounts<'a>(
    list: Option<&'a BTreeMap<String, Amount>>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) -> BTreeMap<&'a str, Quantity> {
    let mut amounts = BTreeMap::new();
    for (resource, amount) in list.into_iter().flatten() {
        let path = path.key(resource);
        check::named(resource, name::qualified_name, &path, errors);
        if !resource.contains('/') && !STANDARD.contains(&resource.as_str()) && !resource.starts_with("hugepages-") {
            errors.push(FieldError::invalid(path.clone(), resource, "must be a standard resource for containers"));
        }
        match Quantity::try_from(amount) {
            Err(error) => errors.push(FieldError::invalid(path, &amount.0, error.to_string())),
            Ok(quantity) => {
                if quantity.is_negative() {
                    errors.push(FieldError::invalid(path.clone(), &amount.0, check::NON_NEGATIVE));
                }
                if is_extended(resource) && !quantity.is_integer() {
                    errors.push(FieldError::invalid(path, &amount.0, "must be an integer"));
                }
                amounts.insert(resource.as_str(), quantity);
            }
        }
    }
    amounts
}

/// Returns whether a resource is an extended one, such as a device, which cannot be overcommitted.
fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/") || resource.starts_with("hugepages-")
}
