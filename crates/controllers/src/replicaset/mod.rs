//! Keeps the number of pods that a ReplicaSet or a ReplicationController asks for: adopts and releases pods by selector, creates or deletes the
//! difference, and reports the observed state.

mod backoff;
mod pod_set;
mod rank;
mod status;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::{Map, Value, json};

use crate::cache::{Cache, CachedKind, Change, Object};
use crate::controller::{Controller, Input, WorkKey, Writes};
use crate::naming::suffixed_many;
use crate::ownership::{claim, controller_of, controller_reference};
use crate::plan::{Action, EventType, Failure, Plan, Verb};
use crate::pod_state::{is_active, is_terminal, is_terminating};
use crate::resource::{
    PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, batch, delete, event, name, namespace, reported, target, to_json, uid,
};
use backoff::Replacement;
use pod_set::PodSet;
use status::Refusal;

/// Maximum number of pods that one pass creates or deletes.
const BURST: usize = 500;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "replicaset",
    reads: &[CachedKind::ReplicaSet, CachedKind::Pod, CachedKind::Namespace],
    writes: Writes::Only(&[REPLICA_SETS, PODS]),
    triggers: triggers::<ReplicaSet>,
    all_keys: all_keys::<ReplicaSet>,
    reconcile: reconcile::<ReplicaSet>,
    resync: None,
};

/// The controller of the kind that ReplicaSets have replaced.
pub(crate) const REPLICATION_CONTROLLER: Controller = Controller {
    name: "replication-controller",
    reads: &[CachedKind::ReplicationController, CachedKind::Pod, CachedKind::Namespace],
    writes: Writes::Only(&[REPLICATION_CONTROLLERS, PODS]),
    triggers: triggers::<ReplicationController>,
    all_keys: all_keys::<ReplicationController>,
    reconcile: reconcile::<ReplicationController>,
    resync: None,
};

fn all_keys<S: PodSet>(cache: &Cache) -> Vec<WorkKey> {
    S::table(cache).iter().map(|set| key_of(&**set)).collect()
}

fn triggers<S: PodSet>(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    let mut keys = Vec::new();
    for side in change.sides() {
        if let Some(set) = S::of(&side.object) {
            keys.push(key_of(&**set));
        } else if let Object::Pod(pod) = &side.object {
            keys.extend(managers_of::<S>(cache, pod));
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Returns the replica set that controls the pod, or the replica sets that could adopt it.
fn managers_of<S: PodSet>(cache: &Cache, pod: &Pod) -> Vec<WorkKey> {
    let namespace = namespace(&pod.metadata);
    if let Some(owner) = controller_of(&pod.metadata) {
        let set = S::table(cache).get(namespace, &owner.name);
        return set.filter(|set| uid(set.metadata()) == owner.uid).map(|set| key_of(&**set)).into_iter().collect();
    }
    if !is_active(pod) {
        return Vec::new();
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let matches = |set: &&Arc<S>| set.selector().is_some_and(|selector| selector.matches(&labels));
    S::table(cache).in_namespace(namespace).filter(matches).map(|set| key_of(&**set)).collect()
}

fn key_of<S: PodSet>(set: &S) -> WorkKey {
    WorkKey::namespaced(namespace(set.metadata()), name(set.metadata()))
}

fn reconcile<S: PodSet>(Input { cache, now, failure, settings, .. }: Input<'_>, key: &WorkKey) -> Plan {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let Some(set) = S::table(cache).get(namespace, &key.name) else { return Plan::default() };
    let Some(selector) = set.selector() else { return Plan::default() };

    let owned = cache.controlled_pods(uid(set.metadata()));
    let adoptable = cache.pods().uncontrolled(namespace).filter(|pod| is_active(pod));
    let claims = claim(&**set, &selector, &PODS, owned, adoptable);
    if !claims.is_empty() {
        return Plan { actions: batch(claims).into_iter().collect(), requeue_after: None };
    }

    let owned: Vec<&Arc<Pod>> = cache.controlled_pods(uid(set.metadata())).collect();
    let active: Vec<&Arc<Pod>> = owned.iter().copied().filter(|pod| is_active(pod)).collect();
    let terminating = owned.iter().filter(|pod| is_terminating(pod) && !is_terminal(pod)).count();
    let difference = Difference::between(set.replicas().unwrap_or(1), active.len());
    let refusal = failure.and_then(refusal);
    let conditions = status::conditions(&**set, difference == Difference::None, refusal.as_ref(), now);
    let observed = status::observe(&**set, &active, terminating, conditions, now);

    let is_terminating = set.metadata().deletion_timestamp.is_some();
    let mut requeue_after = observed.next_change;
    let mut explanation = None;
    let mut actions = match difference {
        _ if is_terminating => Vec::new(),
        // The API refuses to create pods in a terminating namespace.
        Difference::Missing(_) if cache.is_namespace_terminating(namespace) => Vec::new(),
        Difference::Missing(count) => match backoff::replacement(&owned, now) {
            Replacement::Unlimited => create_pods(cache, &**set, count.min(BURST)),
            Replacement::AtMost { pods, rounds } => {
                explanation = Some(held_back(&**set, count.min(pods), count, rounds));
                create_pods(cache, &**set, count.min(pods).min(BURST))
            }
            Replacement::After(wait) => {
                requeue_after = Some(requeue_after.map_or(wait, |next| next.min(wait)));
                Vec::new()
            }
        },
        Difference::Surplus(count) => delete_pods(cache, &**set, &active, count.min(BURST), now),
        Difference::None => Vec::new(),
    };
    if let Some(update) = observed.update {
        // The status goes with the first wave, so an unwritable status does not keep pods from starting, and refused
        // pods do not keep the status from being written.
        match actions.first_mut() {
            Some(Action::Batch(first)) => first.push(update),
            Some(first) => {
                let alone = std::mem::replace(first, Action::Batch(Vec::new()));
                *first = Action::Batch(vec![alone, update]);
            }
            None => actions.push(update),
        }
    }
    if !is_terminating {
        let superfluous =
            backoff::superfluous(&owned, settings.failed_pods_per_replica_set, now).into_iter().take(BURST);
        let deletions = superfluous.map(|pod| delete(target(PODS, &pod.metadata), pod.metadata.uid.as_deref()));
        actions.extend(batch(deletions.collect()));
    }
    actions.splice(0..0, explanation);
    if let Some(Refusal { reason, what, message }) = refusal {
        actions.insert(0, event(&**set, EventType::Warning, reason, format!("{what}: {message}")));
    }
    Plan { actions, requeue_after }
}

/// Difference between the desired and the active pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    None,
    Missing(usize),
    Surplus(usize),
}

impl Difference {
    fn between(replicas: i32, active: usize) -> Self {
        let wanted = usize::try_from(replicas).unwrap_or(0);
        match wanted.abs_diff(active) {
            0 => Difference::None,
            missing if active < wanted => Difference::Missing(missing),
            surplus => Difference::Surplus(surplus),
        }
    }
}

/// Returns the refusal of the last plan, if it was the creation or deletion of a pod.
fn refusal(failure: &Failure) -> Option<Refusal> {
    let (reason, what) = if failure.is_of(Verb::Create, &PODS) {
        ("FailedCreate", "Error creating")
    } else if failure.is_of(Verb::Delete, &PODS) {
        ("FailedDelete", "Error deleting")
    } else {
        return None;
    };
    Some(Refusal { reason, what, message: failure.message.clone() })
}

/// Returns the event that explains why fewer pods are created than are missing. It goes with the attempt, so there is one
/// for each round.
fn held_back<S: PodSet>(set: &S, created: usize, missing: usize, rounds: usize) -> Action {
    let delay = backoff::delay(rounds + 1).as_secs();
    let message = format!(
        "The pods of {rounds} attempts failed before a container started; creating {created} of {missing} missing pods. If \
         that fails too, the next attempt follows after {delay} s"
    );
    event(set, EventType::Warning, "ReplacementHeldBack", message)
}

/// Creates pods in waves of 1, 2, 4, and so on. If no pod can be created, a single attempt shows it instead of
/// hundreds.
fn create_pods<S: PodSet>(cache: &Cache, set: &S, count: usize) -> Vec<Action> {
    let namespace = namespace(set.metadata());
    let base = format!("{}-", name(set.metadata()));
    let seed =
        [uid(set.metadata()).as_bytes(), set.metadata().resource_version.as_deref().unwrap_or_default().as_bytes()];
    let names = suffixed_many(&base, &seed, count, |name| cache.pods().get(namespace, name).is_some());
    let mut names = names.into_iter();
    let mut waves = Vec::new();
    let mut size = 1;
    while names.len() > 0 {
        let mut wave = Vec::new();
        for name in names.by_ref().take(size) {
            let create = Action::Create {
                resource: PODS,
                namespace: Some(namespace.to_owned()),
                object: pod(set, &base, &name),
            };
            let created = event(set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
            wave.push(reported(create, Some(created)));
        }
        waves.extend(batch(wave));
        size *= 2;
    }
    waves
}

fn delete_pods<S: PodSet>(cache: &Cache, set: &S, active: &[&Arc<Pod>], count: usize, now: Timestamp) -> Vec<Action> {
    let deletions = rank::to_delete(cache, set, active, count, now).into_iter().map(|pod| {
        let message = format!("Deleted pod: {}", name(&pod.metadata));
        let deleted = event(set, EventType::Normal, "SuccessfulDelete", message);
        reported(delete(target(PODS, &pod.metadata), pod.metadata.uid.as_deref()), Some(deleted))
    });
    batch(deletions.collect()).into_iter().collect()
}

/// Returns a pod made from the set's template.
fn pod<S: PodSet>(set: &S, generate_name: &str, name: &str) -> Value {
    let template = set.template();
    let mut metadata = Map::new();
    if let Some(from) = template.and_then(|template| template.metadata.as_ref()) {
        for (field, value) in [
            ("labels", from.labels.as_ref().map(to_json)),
            ("annotations", from.annotations.as_ref().map(to_json)),
            ("finalizers", from.finalizers.as_ref().map(to_json)),
        ] {
            metadata.extend(value.map(|value| (field.to_owned(), value)));
        }
    }
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("generateName".to_owned(), json!(generate_name));
    metadata.insert("namespace".to_owned(), json!(set.metadata().namespace));
    metadata.insert("ownerReferences".to_owned(), json!([to_json(&controller_reference(set))]));
    let spec = template.and_then(|template| template.spec.as_ref()).map(to_json);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

#[cfg(test)]
mod tests;
