//! Priorities of pods, and the rules of priority classes (upstream's Priority).

use quorate_api::{GroupVersionResource, Status};
use quorate_registry::priority::SYSTEM_CLASSES;
use quorate_store::Consistency;
use serde::Deserialize;
use serde_json::Value;

use super::{Action, Attributes, is_pod, policies, refuse};
use crate::pipeline::Operation;

pub(crate) const PRIORITY_CLASSES: GroupVersionResource =
    GroupVersionResource::from_static("scheduling.k8s.io", "v1", "priorityclasses");
const PREEMPT: &str = "PreemptLowerPriority";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    metadata: Named,
    #[serde(default)]
    value: i64,
    #[serde(default)]
    global_default: bool,
    preemption_policy: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Sets the priority of a new pod from its class, or from the cluster's default class.
///
/// # Errors
/// `Forbidden` for an unknown class, or when the pod gives another priority than its class; errors of the store.
pub(super) async fn mutate(operation: &Operation, pod: &mut Value) -> Result<(), Status> {
    if !is_pod(operation) || !pod["spec"].is_object() {
        return Ok(());
    }
    let class = match pod["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty()) {
        None => default_class(operation, Consistency::Local).await?,
        Some(name) => match policies::find(operation.api.store(), &PRIORITY_CLASSES, name).await? {
            Some(class) => Some(class),
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(refuse(operation, pod, &why));
            }
        },
    };
    let (priority, policy) = match &class {
        Some(class) => (class.value, class.preemption_policy.as_deref()),
        None => (0, Some(PREEMPT)),
    };
    let spec = &pod["spec"];
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        );
        return Err(refuse(operation, pod, &why));
    }
    if let (Some(policy), Some(given)) = (policy, spec["preemptionPolicy"].as_str())
        && given != policy
    {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(refuse(operation, pod, &why));
    }
    let spec = &mut pod["spec"];
    spec["priority"] = priority.into();
    if let Some(policy) = policy {
        spec["preemptionPolicy"] = policy.into();
    }
    if let Some(class) = class {
        spec["priorityClassName"] = class.metadata.name.into();
    }
    Ok(())
}

/// Restores the priority of a changed pod, for clients that leave out the fields which this plugin has set.
pub(super) fn mutate_update(operation: &Operation, pod: &mut Value, old: &Value) {
    if !is_pod(operation) || !pod["spec"].is_object() {
        return;
    }
    for field in ["priority", "preemptionPolicy"] {
        if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
            pod["spec"][field] = old["spec"][field].clone();
        }
    }
}

/// Refuses a second default class, and the deletion of a built-in class.
///
/// # Errors
/// `Forbidden`; errors of the store.
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    if *attributes.resource() != PRIORITY_CLASSES || attributes.subresource().is_some() {
        return Ok(());
    }
    let name = attributes.name();
    if attributes.action == Action::Delete {
        if SYSTEM_CLASSES.iter().any(|class| class.name == name) {
            return Err(attributes.refuse("this is a system priority class and cannot be deleted"));
        }
        return Ok(());
    }
    if attributes.new["globalDefault"] != true {
        return Ok(());
    }
    match default_class(attributes.operation, Consistency::Linearizable).await? {
        Some(default) if attributes.action == Action::Create || default.metadata.name != name => {
            let default = default.metadata.name;
            let why = format!("PriorityClass {default} is already marked as default. Only one default can exist");
            Err(attributes.refuse(&why))
        }
        _ => Ok(()),
    }
}

/// Returns the default class. Should there be several, the one with the lowest priority counts.
async fn default_class(operation: &Operation, consistency: Consistency) -> Result<Option<Class>, Status> {
    let classes: Vec<Class> = policies::list(operation.api.store(), &PRIORITY_CLASSES, None, consistency).await?;
    Ok(classes.into_iter().filter(|class| class.global_default).min_by_key(|class| class.value))
}
