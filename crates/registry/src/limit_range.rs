//! Limit ranges: the defaults that they give to new pods, and the limits that pods and claims must keep (upstream's
//! LimitRanger, whose wording the messages have).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use quorate_api::Quantity;
use serde_json::Value;

use crate::pod_resources::{Amounts, Overhead, Side, amounts, total};
use crate::value::{child, items_mut, text};

/// The annotation that lists the defaults which a pod got.
pub const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const CONTAINER: &str = "Container";
const POD: &str = "Pod";
const CLAIM: &str = "PersistentVolumeClaim";

/// Gives the containers of a new pod the requests and limits that they leave out.
pub fn apply_defaults(range: &LimitRange, pod: &mut Value) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for item in items(range).filter(|item| item.type_ == CONTAINER) {
        requests.extend(item.default_request.iter().flatten());
        limits.extend(item.default.iter().flatten());
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    let spec = child(pod, "spec");
    for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
        for container in items_mut(spec, list) {
            let name = text(&container["name"]).to_owned();
            for (field, side, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {side} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        child(child(pod, "metadata"), "annotations")[ANNOTATION] = note.into();
    }
}

/// Sets the amounts that are missing in a container's list, and returns the names of their resources.
fn fill<'a>(container: &mut Value, field: &str, defaults: &BTreeMap<&'a String, &Amount>) -> Vec<&'a str> {
    let mut set = Vec::new();
    for (resource, amount) in defaults {
        if container["resources"][field].get(resource.as_str()).is_some_and(|given| !given.is_null()) {
            continue;
        }
        let amount = Quantity::try_from(*amount).map_or_else(|_| amount.0.clone(), |amount| amount.to_string());
        child(child(container, "resources"), field)[resource.as_str()] = amount.into();
        set.push(resource.as_str());
    }
    set
}

/// Returns the reason for which a limit range refuses a pod.
#[must_use]
pub fn refuses_pod(range: &LimitRange, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let mut problems = Vec::new();
    for item in items(range) {
        let mut check = |requests: &Amounts, limits: &Amounts| {
            check_all(item.min.as_ref(), &mut problems, |resource, min| minimum(item, resource, min, requests, limits));
            check_all(item.max.as_ref(), &mut problems, |resource, max| maximum(item, resource, max, requests, limits));
            let ratios = item.max_limit_request_ratio.as_ref();
            check_all(ratios, &mut problems, |resource, most| ratio(item, resource, most, requests, limits));
        };
        match item.type_.as_str() {
            CONTAINER => {
                let of = |side: Side, container: &Container| side.of(container.resources.as_ref());
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    check(&of(Side::Requests, container), &of(Side::Limits, container));
                }
            }
            POD => {
                let of = |side| total(spec, side, Overhead::Ignored);
                check(&of(Side::Requests), &of(Side::Limits));
            }
            _ => {}
        }
    }
    join(problems)
}

/// Returns the reason for which a limit range refuses a claim. Only the requests of a claim count.
#[must_use]
pub fn refuses_claim(range: &LimitRange, claim: &PersistentVolumeClaim) -> Option<String> {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
    let mut problems = Vec::new();
    for item in items(range).filter(|item| item.type_ == CLAIM) {
        let none = Amounts::new();
        check_all(item.min.as_ref(), &mut problems, |resource, min| minimum(item, resource, min, &requests, &none));
        check_all(item.max.as_ref(), &mut problems, |resource, max| match requests.get(resource) {
            None => Some(format!("maximum {resource} usage per {CLAIM} is {max}.  No request is specified")),
            Some(request) if *request > max => {
                Some(format!("maximum {resource} usage per {CLAIM} is {max}, but request is {request}"))
            }
            Some(_) => None,
        });
    }
    join(problems)
}

fn items(range: &LimitRange) -> impl Iterator<Item = &LimitRangeItem> {
    range.spec.iter().flat_map(|spec| &spec.limits)
}

/// Adds the problems that `check` finds with the amounts of a list.
fn check_all(
    list: Option<&BTreeMap<String, Amount>>,
    problems: &mut Vec<String>,
    check: impl Fn(&str, Quantity) -> Option<String>,
) {
    problems.extend(amounts(list).iter().filter_map(|(resource, amount)| check(resource, *amount)));
}

fn minimum(
    item: &LimitRangeItem,
    resource: &str,
    min: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let rule = format!("minimum {resource} usage per {} is {min}", item.type_);
    match (requests.get(resource), limits.get(resource)) {
        (None, _) => Some(format!("{rule}.  No request is specified")),
        (Some(request), _) if *request < min => Some(format!("{rule}, but request is {request}")),
        (_, Some(limit)) if *limit < min => Some(format!("{rule}, but limit is {limit}")),
        _ => None,
    }
}

fn maximum(
    item: &LimitRangeItem,
    resource: &str,
    max: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let rule = format!("maximum {resource} usage per {} is {max}", item.type_);
    match (requests.get(resource), limits.get(resource)) {
        (_, None) => Some(format!("{rule}.  No limit is specified")),
        (_, Some(limit)) if *limit > max => Some(format!("{rule}, but limit is {limit}")),
        (Some(request), _) if *request > max => Some(format!("{rule}, but request is {request}")),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "upstream compares and prints the ratio as a floating-point number")]
fn ratio(
    item: &LimitRangeItem,
    resource: &str,
    most: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let rule = format!("{resource} max limit to request ratio per {} is {most}", item.type_);
    let given = |amounts: &Amounts| amounts.get(resource).filter(|amount| !amount.is_zero()).copied();
    let Some(request) = given(requests) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = given(limits) else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let actual = limit.milli_value() as f64 / request.milli_value() as f64;
    (actual * 1000.0 > most.milli_value() as f64).then(|| format!("{rule}, but provided ratio is {actual:.6}"))
}

/// Joins problems as apimachinery aggregates errors: each once, and several in brackets.
fn join(problems: Vec<String>) -> Option<String> {
    let mut different: Vec<String> = Vec::new();
    for problem in problems {
        if !different.contains(&problem) {
            different.push(problem);
        }
    }
    match different.len() {
        0 | 1 => different.pop(),
        _ => Some(format!("[{}]", different.join(", "))),
    }
}

#[cfg(test)]
#[path = "limit_range/tests.rs"]
mod tests;
