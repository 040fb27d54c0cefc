//! The replica sets of a deployment as its revisions: the current one, their numbers, and the expired ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::condition::{self, PROGRESSING, REPLICA_SET_CREATE_ERROR};
use super::limits::Limits;
use super::template::{POD_TEMPLATE_HASH, same_template, template_hash};
use super::{Pass, status};
use crate::cache::Cache;
use crate::ownership::controller_reference;
use crate::plan::{Action, EventType, Failure};
use crate::pod_state::{is_active, is_ready};
use crate::resource::{REPLICA_SETS, delete, event, name, namespace, reported, target, to_json, uid};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the deployment that are not copied to its replica sets.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

const MAX_HISTORY_LEN: usize = 2000;
/// Maximum length of an object's name.
const MAX_NAME_LEN: usize = 253;

/// A replica set together with the changes this pass makes to it.
#[derive(Debug)]
pub(super) struct Managed {
    object: Arc<ReplicaSet>,
    /// Whether this pass creates the set, because it does not exist yet.
    is_created: bool,
    /// Desired `spec.replicas`.
    pub(super) replicas: i32,
    /// Number of the set's active pods (neither ended nor terminating), counted in the cache. The set's status lags
    /// behind the pods, so its counts may be too high or too low.
    active_pods: i32,
    /// Number of active pods that are ready.
    ready_pods: i32,
    min_ready_seconds: Option<i32>,
    /// Annotations to set.
    annotations: BTreeMap<String, String>,
}

impl Managed {
    fn existing(cache: &Cache, object: &Arc<ReplicaSet>) -> Self {
        let (mut active_pods, mut ready_pods) = (0, 0);
        for pod in cache.controlled_pods(uid(&object.metadata)).filter(|pod| is_active(pod)) {
            active_pods += 1;
            ready_pods += i32::from(is_ready(pod));
        }
        Managed {
            replicas: spec_replicas(object),
            active_pods,
            ready_pods,
            min_ready_seconds: None,
            annotations: BTreeMap::new(),
            is_created: false,
            object: Arc::clone(object),
        }
    }

    fn created(object: ReplicaSet) -> Self {
        Managed {
            replicas: 0,
            active_pods: 0,
            ready_pods: 0,
            min_ready_seconds: None,
            annotations: BTreeMap::new(),
            is_created: true,
            object: Arc::new(object),
        }
    }

    pub(super) fn object(&self) -> &ReplicaSet {
        &self.object
    }

    pub(super) fn name(&self) -> &str {
        name(&self.object.metadata)
    }

    /// Number of pods that the set's status reports, ready or not.
    pub(super) fn observed_replicas(&self) -> i32 {
        self.object.status.as_ref().map_or(0, |status| status.replicas)
    }

    pub(super) fn ready(&self) -> i32 {
        self.object.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    pub(super) fn available(&self) -> i32 {
        self.object.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    /// Number of pods that stay available once the set's pods match its spec.
    pub(super) fn lasting_available(&self) -> i32 {
        self.available().min(self.ready_pods).min(self.replicas)
    }

    /// Number of pods that the set has, will have, or still has to delete.
    pub(super) fn extant(&self) -> i32 {
        self.replicas.max(self.observed_replicas()).max(self.active_pods)
    }

    pub(super) fn annotation(&self, annotation: &str) -> Option<&str> {
        let stored = || self.object.metadata.annotations.as_ref()?.get(annotation);
        self.annotations.get(annotation).or_else(stored).map(String::as_str)
    }

    pub(super) fn number(&self, annotation: &str) -> Option<i64> {
        self.annotation(annotation)?.parse().ok()
    }

    fn annotate(&mut self, annotation: &str, value: &str) {
        if self.annotation(annotation) != Some(value) {
            self.annotations.insert(annotation.to_owned(), value.to_owned());
        }
    }

    /// Sets the desired number of pods, and records the size of the deployment it was derived from. Returns whether the
    /// number changed.
    pub(super) fn scale(&mut self, replicas: i32, limits: &Limits) -> bool {
        self.annotate(DESIRED_REPLICAS, &limits.replicas.to_string());
        self.annotate(MAX_REPLICAS, &limits.max_total().to_string());
        std::mem::replace(&mut self.replicas, replicas) != replicas
    }

    /// Returns the write that brings the stored set to the desired state, and its event; `None` when nothing differs.
    pub(super) fn action(&self, deployment: &Deployment) -> Option<Action> {
        Some(reported(self.write()?, self.event(deployment)))
    }

    fn write(&self) -> Option<Action> {
        if self.is_created {
            let mut object = ReplicaSet::clone(&self.object);
            object.metadata.annotations.get_or_insert_default().extend(self.annotations.clone());
            object.spec.get_or_insert_default().replicas = Some(self.replicas);
            return Some(Action::Create {
                resource: REPLICA_SETS,
                namespace: object.metadata.namespace.clone(),
                object: to_json(&object),
            });
        }
        let mut spec = Map::new();
        if self.replicas != spec_replicas(&self.object) {
            spec.insert("replicas".to_owned(), json!(self.replicas));
        }
        if let Some(seconds) = self.min_ready_seconds {
            spec.insert("minReadySeconds".to_owned(), json!(seconds));
        }
        if spec.is_empty() && self.annotations.is_empty() {
            return None;
        }
        let mut metadata = json!({"resourceVersion": self.object.metadata.resource_version});
        if !self.annotations.is_empty() {
            metadata["annotations"] = json!(self.annotations);
        }
        let mut patch = json!({"metadata": metadata});
        if !spec.is_empty() {
            patch["spec"] = Value::Object(spec);
        }
        Some(Action::Patch {
            target: target(REPLICA_SETS, &self.object.metadata),
            subresource: None,
            patch,
            guards: Vec::new(),
        })
    }

    /// Returns the event on the deployment when the number of pods changes.
    fn event(&self, deployment: &Deployment) -> Option<Action> {
        let before = if self.is_created { 0 } else { spec_replicas(&self.object) };
        let direction = match self.replicas.cmp(&before) {
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => return None,
        };
        let message = format!("Scaled {direction} replica set {} from {before} to {}", self.name(), self.replicas);
        Some(event(deployment, EventType::Normal, "ScalingReplicaSet", message))
    }
}

fn spec_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Returns the deployment's sets: the one of its current template, and the others, oldest first.
pub(super) fn split(cache: &Cache, deployment: &Deployment) -> (Option<Managed>, Vec<Managed>) {
    let mut sets: Vec<_> = cache.controlled_replica_sets(uid(&deployment.metadata)).collect();
    sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), name(&set.metadata)));
    let mut all: Vec<Managed> = sets.iter().map(|set| Managed::existing(cache, set)).collect();
    // If two sets have the template, the older one is the new set and the other is scaled down.
    let is_new = |managed: &Managed| {
        let template = managed.object.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.is_some_and(|template| same_template(template, template_of(deployment)))
    };
    let new = all.iter().position(is_new).map(|position| all.remove(position));
    (new, all)
}

fn template_of(deployment: &Deployment) -> &PodTemplateSpec {
    static EMPTY: PodTemplateSpec = PodTemplateSpec { metadata: None, spec: None };
    deployment.spec.as_ref().map_or(&EMPTY, |spec| &spec.template)
}

impl Pass<'_> {
    /// Gives the set of the current template the newest revision number, and copies the deployment's annotations and
    /// `minReadySeconds` to it. A former set whose template is used again becomes the newest revision.
    pub(super) fn sync_revision(&mut self) {
        let deployment = self.deployment;
        let next = self.next_revision();
        let Some(new) = &mut self.new else { return };
        inherit_annotations(deployment, new);
        let present = new.number(REVISION);
        if present.unwrap_or(0) < next {
            if let Some(present) = present {
                let history = match new.annotation(REVISION_HISTORY) {
                    Some(history) if !history.is_empty() => format!("{history},{present}"),
                    _ => present.to_string(),
                };
                new.annotate(REVISION_HISTORY, shorten(&history));
            }
            new.annotate(REVISION, &next.to_string());
        }
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let stored = new.object.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        new.min_ready_seconds = (wanted != stored).then_some(wanted);

        let message = format!("Found new replica set \"{}\"", new.name());
        self.revision = lagging_revision(deployment, new);
        // The deployment's annotation lags until the start of this rollout is recorded.
        let is_stale = self.revision.is_some()
            && matches!(
                condition::reason(&self.conditions, PROGRESSING),
                Some(condition::NEW_REPLICA_SET_AVAILABLE | condition::PROGRESS_DEADLINE_EXCEEDED)
            );
        let is_unset = condition::get(&self.conditions, PROGRESSING).is_none();
        // The set could not be created before and exists now.
        let is_created_after_error = condition::reason(&self.conditions, PROGRESSING) == Some(REPLICA_SET_CREATE_ERROR);
        if status::progress_deadline(deployment).is_some() && (is_unset || is_stale || is_created_after_error) {
            condition::set(&mut self.conditions, PROGRESSING, "True", "FoundNewReplicaSet", message, self.now);
        }
    }

    /// Ensures that the current template has a set. Returns `false` when the namespace is terminating, or when another
    /// set has the name. A collision is counted, and the next pass derives another name.
    pub(super) fn ensure_new(&mut self) -> bool {
        if self.new.is_some() {
            self.sync_revision();
            return true;
        }
        let deployment = self.deployment;
        let hash = template_hash(template_of(deployment), self.collision_count);
        let base = name(&deployment.metadata);
        let room = MAX_NAME_LEN - hash.len() - 1;
        let set_name = format!("{}-{hash}", base.get(..room).unwrap_or(base));
        if self.cache.is_namespace_terminating(namespace(&deployment.metadata)) {
            return false;
        }
        if self.cache.replica_sets().get(namespace(&deployment.metadata), &set_name).is_some() {
            self.collision_count = Some(self.collision_count.unwrap_or(0) + 1);
            return false;
        }
        let mut new = Managed::created(replica_set(deployment, set_name, hash));
        inherit_annotations(deployment, &mut new);
        new.annotate(REVISION, &self.next_revision().to_string());
        let replicas = self.room_for_new(0);
        new.scale(replicas, &self.limits);
        if status::progress_deadline(deployment).is_some() {
            let (status, reason, message) = match self.failure {
                Some(failure) => ("False", REPLICA_SET_CREATE_ERROR, creation_failed(failure)),
                None => ("True", "NewReplicaSetCreated", format!("Created new replica set \"{}\"", new.name())),
            };
            condition::set(&mut self.conditions, PROGRESSING, status, reason, message, self.now);
        }
        self.revision = lagging_revision(deployment, &new);
        self.new = Some(new);
        true
    }

    /// Deletes the oldest sets beyond the history limit, if their status confirms that they are empty.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut sets: Vec<&Managed> =
            self.old.iter().filter(|set| set.object.metadata.deletion_timestamp.is_none()).collect();
        sets.sort_by_key(|set| set.number(REVISION).unwrap_or(0));
        let excess = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let is_settled = |set: &&&Managed| {
            let metadata = &set.object.metadata;
            let observed = set.object.status.as_ref().and_then(|status| status.observed_generation);
            set.replicas == 0
                && spec_replicas(&set.object) == 0
                && set.observed_replicas() == 0
                && metadata.generation <= observed
        };
        let expired = sets.iter().take(excess).filter(is_settled).map(|set| {
            let metadata = &set.object.metadata;
            delete(target(REPLICA_SETS, metadata), metadata.uid.as_deref())
        });
        self.expired = expired.collect();
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().filter_map(|set| set.number(REVISION)).max().unwrap_or(0) + 1
    }
}

pub(super) fn creation_failed(failure: &Failure) -> String {
    format!("Failed to create new replica set \"{}\": {}", failure.target.name, failure.message)
}

/// Returns the newest set's revision, if the deployment's annotation differs from it.
fn lagging_revision(deployment: &Deployment, new: &Managed) -> Option<String> {
    let stored = deployment.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    new.annotation(REVISION).filter(|revision| stored.is_none_or(|stored| stored != revision)).map(str::to_owned)
}

fn inherit_annotations(deployment: &Deployment, set: &mut Managed) {
    for (annotation, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_INHERITED.contains(&annotation.as_str()) {
            set.annotate(annotation, value);
        }
    }
}

/// Drops the oldest revisions of a history that is too long.
fn shorten(mut history: &str) -> &str {
    while history.len() > MAX_HISTORY_LEN {
        match history.split_once(',') {
            Some((_, rest)) => history = rest,
            None => return "",
        }
    }
    history
}

fn replica_set(deployment: &Deployment, name: String, hash: String) -> ReplicaSet {
    let mut template = template_of(deployment).clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let spec = deployment.spec.as_ref();
    let mut selector = spec.map(|spec| spec.selector.clone()).unwrap_or_default();
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).filter(|seconds| *seconds != 0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
