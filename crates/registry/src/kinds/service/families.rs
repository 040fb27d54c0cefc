//! Fills in `ipFamilyPolicy` and `ipFamilies` from the cluster's families (upstream's `initIPFamilyFields`).

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{HEADLESS, needs_cluster_ip, validation};
use crate::pool::{Family, Pools};
use crate::value::{equal, items, text};

const SINGLE: &str = "SingleStack";
const REQUIRE: &str = "RequireDualStack";
const PREFER: &str = "PreferDualStack";

/// Completes the families of a service that has addresses.
pub(super) fn complete(spec: &mut Value, old: Option<&Value>, pools: &Pools) -> Vec<FieldError> {
    if !needs_cluster_ip(spec) || old.is_some_and(|old| keeps_preference(spec, old)) {
        return Vec::new();
    }
    default_policy(spec, old);
    let mut errors = address_errors(spec);
    if errors.is_empty() {
        errors = release_secondary_family(spec, old);
        errors.extend(infer_families(spec, pools));
    }
    if !errors.is_empty() {
        return errors;
    }
    let is_single = text(&spec["ipFamilyPolicy"]) == SINGLE;
    // A headless service without a selector gets its endpoints from outside, so its families may be ones that the
    // cluster does not have.
    if spec["clusterIP"] == HEADLESS && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty) {
        let mut families = families(spec);
        if families.is_empty() {
            families.push(pools.default_family());
        }
        if families.len() == 1 && !is_single {
            families.push(families[0].other());
        }
        set_families(spec, &families);
        return Vec::new();
    }
    let errors = unavailable(spec, pools);
    if !errors.is_empty() {
        return errors;
    }
    let mut families = families(spec);
    if families.is_empty() {
        families.push(pools.default_family());
    }
    if families.len() == 1 && !is_single && pools.families().count() == 2 {
        families.push(families[0].other());
    }
    set_families(spec, &families);
    Vec::new()
}

/// Returns whether a service that prefers two families keeps its present ones, even if the cluster has others by now.
fn keeps_preference(spec: &mut Value, old: &Value) -> bool {
    let fields = ["clusterIP", "clusterIPs", "ipFamilies"];
    let prefers = |spec: &Value| spec["ipFamilyPolicy"] == PREFER;
    needs_cluster_ip(old)
        && prefers(spec)
        && prefers(old)
        && !items(&old["ipFamilies"]).is_empty()
        && fields.iter().all(|field| equal(&spec[*field], &old[*field]))
}

fn default_policy(spec: &mut Value, old: Option<&Value>) {
    if !text(&spec["ipFamilyPolicy"]).is_empty() {
        return;
    }
    let before = old.map(|old| text(&old["ipFamilyPolicy"])).filter(|policy| !policy.is_empty());
    let has_no_selector = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let policy = match before {
        Some(policy) => policy,
        None if spec["clusterIP"] == HEADLESS && has_no_selector => REQUIRE,
        None => SINGLE,
    };
    spec["ipFamilyPolicy"] = policy.into();
}

/// Runs the validation of the addresses early, because the following steps rely on well-formed fields.
fn address_errors(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Ok(spec) = core::ServiceSpec::deserialize(spec) {
        validation::cluster_ips(&spec, &FieldPath::new("spec"), &mut errors);
    }
    errors
}

/// Releases the second family when the policy changes to `SingleStack`, and refuses its release otherwise.
fn release_secondary_family(spec: &mut Value, old: Option<&Value>) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("ipFamilyPolicy");
    let policy = text(&spec["ipFamilyPolicy"]).to_owned();
    let mut errors = Vec::new();
    if let Some(old) = old.filter(|old| needs_cluster_ip(old)) {
        for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
            if policy == SINGLE {
                let is_same = equal(&spec[field], &old[field]);
                if let Some(list) = spec[field].as_array_mut().filter(|list| is_same && list.len() > 1) {
                    list.truncate(1);
                }
            } else if (1..items(&old[field]).len()).contains(&items(&spec[field]).len()) {
                let detail = format!("must be 'SingleStack' to release the secondary {what}");
                errors.push(FieldError::invalid(path.clone(), &policy, detail));
            }
        }
    }
    if policy == SINGLE {
        for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if items(&spec[field]).len() == 2 {
                let detail =
                    format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                errors.push(FieldError::invalid(path.clone(), &policy, detail));
            }
        }
    }
    errors
}

/// Derives families from the addresses that the client asks for.
fn infer_families(spec: &mut Value, pools: &Pools) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut found = families(spec);
    for (index, ip) in items(&spec["clusterIPs"]).iter().enumerate() {
        let Ok(address) = text(ip).parse() else { break };
        if index < found.len() {
            continue;
        }
        let family = Family::of(address);
        if pools.families().any(|known| known == family) {
            found.push(family);
        } else {
            let path = FieldPath::new("spec").child("clusterIPs").index(index);
            let detail = format!("{} is not configured on this cluster", family.as_str());
            errors.push(FieldError::invalid(path, &spec["clusterIPs"], detail));
        }
    }
    if !found.is_empty() {
        set_families(spec, &found);
    }
    errors
}

fn unavailable(spec: &Value, pools: &Pools) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let mut errors = Vec::new();
    if spec["ipFamilyPolicy"] == REQUIRE && pools.families().count() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(path.child("ipFamilyPolicy"), REQUIRE, detail));
    }
    for (index, family) in families(spec).into_iter().enumerate() {
        if !pools.families().any(|known| known == family) {
            let path = path.child("ipFamilies").index(index);
            errors.push(FieldError::invalid(path, family.as_str(), "not configured on this cluster"));
        }
    }
    errors
}

pub(super) fn families(spec: &Value) -> Vec<Family> {
    items(&spec["ipFamilies"]).iter().filter_map(|family| Family::parse(text(family))).collect()
}

fn set_families(spec: &mut Value, families: &[Family]) {
    spec["ipFamilies"] = json!(families.iter().map(|family| family.as_str()).collect::<Vec<_>>());
}
