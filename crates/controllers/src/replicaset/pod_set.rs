//! The kinds that keep a number of pods of one template: ReplicaSets, and the ReplicationControllers before them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use quorate_api::GroupVersionResource;
use quorate_api::selector::LabelSelector;
use serde::Serialize;

use crate::cache::{Cache, Object, Table};
use crate::ownership::usable_selector;
use crate::resource::{REPLICA_SETS, REPLICATION_CONTROLLERS};

/// A kind that keeps a number of pods. Statuses are those of a ReplicaSet, which has every field of the other kind's.
pub(super) trait PodSet: Resource + Metadata<Ty = ObjectMeta> + Serialize + Clone {
    const RESOURCE: GroupVersionResource;

    fn table(cache: &Cache) -> &Table<Self>;

    /// Returns the object as this kind, if it is of it.
    fn of(object: &Object) -> Option<&Arc<Self>>;

    /// Returns the selector; `None` for one that no controller acts on, and without a specification.
    fn selector(&self) -> Option<LabelSelector>;

    fn replicas(&self) -> Option<i32>;

    fn min_ready_seconds(&self) -> Option<i32>;

    fn template(&self) -> Option<&PodTemplateSpec>;

    fn status(&self) -> Option<ReplicaSetStatus>;

    /// Returns the object with this status. A field that the kind does not have is left out.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;

    /// Leaves out of a status what the kind does not have.
    fn own_status(status: ReplicaSetStatus) -> ReplicaSetStatus {
        status
    }

    /// Returns the sets that the owner controls, whose pods do the same work.
    fn siblings<'a>(_: &'a Cache, _owner_uid: &'a str) -> Vec<&'a Arc<Self>> {
        Vec::new()
    }
}

/// The methods that read a field which both kinds' specifications have.
macro_rules! spec_fields {
    () => {
        fn replicas(&self) -> Option<i32> {
            self.spec.as_ref()?.replicas
        }

        fn min_ready_seconds(&self) -> Option<i32> {
            self.spec.as_ref()?.min_ready_seconds
        }

        fn template(&self) -> Option<&PodTemplateSpec> {
            self.spec.as_ref()?.template.as_ref()
        }
    };
}

impl PodSet for ReplicaSet {
    const RESOURCE: GroupVersionResource = REPLICA_SETS;

    fn table(cache: &Cache) -> &Table<Self> {
        cache.replica_sets()
    }

    fn of(object: &Object) -> Option<&Arc<Self>> {
        if let Object::ReplicaSet(set) = object { Some(set) } else { None }
    }

    fn selector(&self) -> Option<LabelSelector> {
        usable_selector(&self.spec.as_ref()?.selector)
    }

    spec_fields!();

    fn status(&self) -> Option<ReplicaSetStatus> {
        self.status.clone()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        ReplicaSet { status: Some(status), ..self.clone() }
    }

    fn siblings<'a>(cache: &'a Cache, owner_uid: &'a str) -> Vec<&'a Arc<Self>> {
        cache.controlled_replica_sets(owner_uid).collect()
    }
}

impl PodSet for ReplicationController {
    const RESOURCE: GroupVersionResource = REPLICATION_CONTROLLERS;

    fn table(cache: &Cache) -> &Table<Self> {
        cache.replication_controllers()
    }

    fn of(object: &Object) -> Option<&Arc<Self>> {
        if let Object::ReplicationController(controller) = object { Some(controller) } else { None }
    }

    fn selector(&self) -> Option<LabelSelector> {
        let labels = self.spec.as_ref()?.selector.clone()?;
        Some(LabelSelector::from_labels(&labels)).filter(|selector| !selector.is_everything())
    }

    spec_fields!();

    fn status(&self) -> Option<ReplicaSetStatus> {
        let status = self.status.clone()?;
        let condition = |condition: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: condition.last_transition_time,
            message: condition.message,
            reason: condition.reason,
            status: condition.status,
            type_: condition.type_,
        };
        Some(ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|conditions| conditions.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition = |condition: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: condition.last_transition_time,
            message: condition.message,
            reason: condition.reason,
            status: condition.status,
            type_: condition.type_,
        };
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|conditions| conditions.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }

    fn own_status(status: ReplicaSetStatus) -> ReplicaSetStatus {
        ReplicaSetStatus { terminating_replicas: None, ..status }
    }
}
