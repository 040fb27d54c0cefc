//! Resource quotas: what objects use, whether a new object fits, and the usage of a whole namespace. Admission charges
//! each write, and the controller recalculates, with the same functions. The rules and the wording are upstream's
//! (`pkg/quota/v1`, `plugin/resourcequota`).

mod names;
mod scopes;
mod usage;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use quorate_api::Quantity;

pub use names::{is_ignored, tracks};

use crate::pod_resources::{Amounts, Side, add, amounts};

/// The parts of an object that quotas count.
#[derive(Clone, Copy, Debug)]
pub enum Counted<'a> {
    Pod(&'a Pod),
    Service(&'a Service),
    Claim(&'a PersistentVolumeClaim),
    /// Only the number of these objects counts.
    Other,
}

/// An object with the kind that it is counted under.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub group: &'a str,
    pub resource: &'a str,
    pub object: Counted<'a>,
}

/// Charges a write to a quota. `old` is the object that the write replaces. Returns the quota's new usage, or `None` when
/// the write does not change it. A status write is charged even if it exceeds the quota, because it reports what is.
///
/// # Errors
/// The reason for which the quota refuses the write.
pub fn charge(
    quota: &ResourceQuota,
    new: Subject<'_>,
    old: Option<Counted<'_>>,
    is_status: bool,
    now: Timestamp,
) -> Result<Option<BTreeMap<String, Amount>>, String> {
    let (Some(spec), Some(status)) = (&quota.spec, &quota.status) else { return Ok(None) };
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let hard = amounts(status.hard.as_ref());
    let tracked = usage::tracked(new.group, new.resource, hard.keys());
    if tracked.is_empty() || !scopes::matches(spec, new.object) {
        return Ok(None);
    }
    if let Some(missing) = usage::missing(new, &tracked) {
        return Err(format!("failed quota: {name}: {missing}"));
    }
    let mut used = amounts(status.used.as_ref());
    if !tracked.iter().all(|name| used.contains_key(*name)) {
        return Err(format!("status unknown for quota: {name}, resources: {}", tracked.join(",")));
    }
    let mut requested = usage::usage(new, &tracked, now);
    if let Some(object) = old.filter(|old| scopes::matches(spec, *old)) {
        // What an update gives back is not credited here: the controller finds it.
        for (resource, before) in usage::usage(Subject { object, ..new }, &tracked, now) {
            let amount = requested.entry(resource).or_default();
            *amount = (*amount - before).max(Quantity::ZERO);
        }
    }
    requested.retain(|_, amount| !amount.is_zero());
    if requested.is_empty() {
        return Ok(None);
    }
    let before = used.clone();
    add(&mut used, requested.clone());
    let is_exceeded = |resource: &String| used.get(resource) > hard.get(resource);
    let exceeded: Vec<&String> = requested.keys().filter(|resource| !is_status && is_exceeded(resource)).collect();
    if !exceeded.is_empty() {
        let [requested, used, limited] = [&requested, &before, &hard].map(|amounts| print(amounts, &exceeded));
        return Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"));
    }
    Ok(Some(written(used)))
}

/// Returns the status that a quota should have when `objects` are all those of its namespace; `None` when it has that
/// status already.
#[must_use]
pub fn recalculate<'a>(
    quota: &ResourceQuota,
    objects: impl Iterator<Item = Subject<'a>>,
    now: Timestamp,
) -> Option<ResourceQuotaStatus> {
    let spec = quota.spec.clone().unwrap_or_default();
    let status = quota.status.clone().unwrap_or_default();
    let hard = amounts(spec.hard.as_ref());
    let mut used = amounts(status.used.as_ref());
    used.retain(|name, _| hard.contains_key(name));
    used.extend(hard.keys().filter(|name| names::is_measured(name)).map(|name| (name.clone(), Quantity::ZERO)));
    // Most objects of a namespace have one of few kinds, so the names of each kind are found once.
    let mut names: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for subject in objects {
        let kind = (subject.group, subject.resource);
        let tracked = names.entry(kind).or_insert_with(|| usage::tracked(kind.0, kind.1, hard.keys()));
        if !tracked.is_empty() && scopes::matches(&spec, subject.object) {
            add(&mut used, usage::usage(subject, tracked, now));
        }
    }
    let is_current = status.hard.is_some()
        && status.used.is_some()
        && amounts(status.hard.as_ref()) == hard
        && amounts(status.used.as_ref()) == used;
    (!is_current).then(|| ResourceQuotaStatus { hard: Some(written(hard)), used: Some(written(used)) })
}

/// Returns whether a quota's status is not yet that of its spec, so that its usage must be calculated.
#[must_use]
pub fn is_unmeasured(quota: &ResourceQuota) -> bool {
    let hard = amounts(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
    let Some(status) = &quota.status else { return true };
    let used = status.used.as_ref();
    let is_missing = |name: &String| names::is_measured(name) && used.is_none_or(|used| !used.contains_key(name));
    status.hard.is_none() || used.is_none() || amounts(status.hard.as_ref()) != hard || hard.keys().any(is_missing)
}

/// Returns whether a change of a stored object may change the usage of quotas in a way that admission did not charge.
#[must_use]
pub fn may_change(old: Counted<'_>, new: Counted<'_>) -> bool {
    match (old, new) {
        (Counted::Pod(old), Counted::Pod(new)) => {
            let deadline = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).is_some();
            let resources = |pod: &Pod| {
                let containers =
                    pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
                containers
                    .map(|c| [Side::Requests, Side::Limits].map(|s| s.of(c.resources.as_ref())))
                    .collect::<Vec<_>>()
            };
            usage::has_ended(old) != usage::has_ended(new)
                || deadline(old) != deadline(new)
                || resources(old) != resources(new)
        }
        (Counted::Service(old), Counted::Service(new)) => old.spec != new.spec,
        (Counted::Claim(old), Counted::Claim(new)) => {
            let allocated = |claim: &PersistentVolumeClaim| {
                amounts(claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()))
            };
            old.spec != new.spec
                || allocated(old) != allocated(new)
                || scopes::attribute_classes(old) != scopes::attribute_classes(new)
        }
        _ => false,
    }
}

fn written(amounts: Amounts) -> BTreeMap<String, Amount> {
    amounts.into_iter().map(|(name, amount)| (name, amount.into())).collect()
}

/// Formats some of the amounts as `name=amount,…`.
fn print(amounts: &Amounts, names: &[&String]) -> String {
    let listed: Vec<String> = names.iter().filter_map(|name| Some(format!("{name}={}", amounts.get(*name)?))).collect();
    listed.join(",")
}

#[cfg(test)]
mod tests;
