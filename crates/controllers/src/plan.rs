//! Plans and their actions, common to all controllers. `quorate-manager` executes them through the API pipeline without
//! naming any kind.

use std::time::Duration;

use quorate_api::{GroupVersionResource, ObjectKey, Revision};
use serde_json::Value;

/// Actions to execute now, and the time of the next reconcile if nothing else triggers it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Actions, executed in order. A failed action ends the plan, and the key is retried with backoff.
    pub actions: Vec<Action>,
    /// Time after which the key is reconciled even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// Object that an action is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub resource: GroupVersionResource,
    /// `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    pub name: String,
}

/// Condition on an object other than the one written. It is checked in the transaction of the write, so it holds at the
/// moment of the write and does not rely on a cache that may lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing is stored under the key, or an object with another uid.
    Absent { key: ObjectKey, uid: String },
    /// The object was not written after this revision; [`Revision::ZERO`] means that it does not exist.
    Unchanged { key: ObjectKey, revision: Revision },
}

/// A write through the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates the object, which contains `apiVersion`, `kind` and `metadata`. `AlreadyExists` fails the plan.
    Create { resource: GroupVersionResource, namespace: Option<String>, object: Value },
    /// Replaces the object; its `metadata.resourceVersion` makes stale plans harmless. `subresource` is e.g. `status`.
    Update { target: Target, subresource: Option<&'static str>, object: Value },
    /// Applies a JSON merge patch (RFC 7386).
    Patch { target: Target, subresource: Option<&'static str>, patch: Value, guards: Vec<Guard> },
    /// Deletes the object. `NotFound` counts as success.
    Delete {
        target: Target,
        uid: Option<String>,
        resource_version: Option<String>,
        grace_period_seconds: Option<i64>,
        /// `Background`, `Foreground` or `Orphan`.
        propagation: Option<&'static str>,
        guards: Vec<Guard>,
    },
    /// Independent actions, executed concurrently. All are attempted, and the first error is returned.
    Batch(Vec<Action>),
    /// Actions executed one after the other; the first failure ends the sequence. The event about a write follows the
    /// write in a sequence, so it is recorded only if the write succeeded.
    Sequence(Vec<Action>),
    /// Records a Kubernetes Event about `regarding` (an ObjectReference). Repeated events are counted, and a failure
    /// never fails the plan.
    Event { regarding: Value, event_type: EventType, reason: &'static str, message: String },
}

impl Action {
    /// Calls `see` with the resource of every write in this action.
    pub fn each_write(&self, see: &mut impl FnMut(&GroupVersionResource)) {
        match self {
            Action::Create { resource, .. } => see(resource),
            Action::Update { target, .. } | Action::Patch { target, .. } | Action::Delete { target, .. } => {
                see(&target.resource);
            }
            Action::Batch(actions) | Action::Sequence(actions) => {
                actions.iter().for_each(|action| action.each_write(see))
            }
            Action::Event { .. } => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

/// Kind of write that an action makes to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
    Patch,
    Delete,
}

/// First action of a plan that the API refused, or that failed for a reason other than a stale plan. The next plan for
/// the same key receives it once, so that it can report the failure to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub verb: Verb,
    pub target: Target,
    /// Message of the API's Status.
    pub message: String,
}

impl Failure {
    /// Returns whether the failed action had this verb and resource.
    #[must_use]
    pub fn is_of(&self, verb: Verb, resource: &GroupVersionResource) -> bool {
        self.verb == verb && self.target.resource == *resource
    }
}
