//! The one vocabulary in which every controller says what it wants done; `quorate-manager` executes it through the
//! API pipeline and names no kind while doing so.

use std::time::Duration;

use quorate_api::{GroupVersionResource, ObjectKey, Revision};
use serde_json::Value;

/// What to do now, and when to look again if nothing else triggers it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order; a failed action ends the plan, and the key is tried again with backoff.
    pub actions: Vec<Action>,
    /// Look again after this long even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// An existing object that an action is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub resource: GroupVersionResource,
    /// `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    pub name: String,
}

/// A condition on another object than the one that is written. It is checked in the transaction of the write, so it
/// holds at the moment of the write and not only in a cache that may lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing is stored under the key, or an object with another uid.
    Absent { key: ObjectKey, uid: String },
    /// The object was not written after this revision; [`Revision::ZERO`] means that it does not exist.
    Unchanged { key: ObjectKey, revision: Revision },
}

/// One write through the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `object` holds `apiVersion`, `kind` and `metadata`. `AlreadyExists` fails the plan.
    Create { resource: GroupVersionResource, namespace: Option<String>, object: Value },
    /// Replaces the object; its `metadata.resourceVersion` makes stale plans harmless. `subresource` is e.g. `status`.
    Update { target: Target, subresource: Option<&'static str>, object: Value },
    /// A JSON merge patch (RFC 7386).
    Patch { target: Target, subresource: Option<&'static str>, patch: Value, guards: Vec<Guard> },
    /// NotFound counts as done.
    Delete {
        target: Target,
        uid: Option<String>,
        resource_version: Option<String>,
        grace_period_seconds: Option<i64>,
        /// `Background`, `Foreground` or `Orphan`.
        propagation: Option<&'static str>,
        guards: Vec<Guard>,
    },
    /// Several actions that do not depend on each other, executed concurrently; all are tried, the first error counts.
    Batch(Vec<Action>),
    /// One action after the other; the first that fails ends the sequence. What is reported of a write stands behind it
    /// in a sequence, so that it is reported exactly if it happened.
    Sequence(Vec<Action>),
    /// A Kubernetes Event about `regarding` (an ObjectReference); repeated ones are counted, failures never fail a plan.
    Event { regarding: Value, event_type: EventType, reason: &'static str, message: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

/// What an action does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
    Patch,
    Delete,
}

/// The first action of a plan that the API refused, or that could not be carried out for another reason than that the
/// plan was out of date. The next plan for the same key is told, once, so that it can tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub verb: Verb,
    pub target: Target,
    /// The message of the API's Status.
    pub message: String,
}

impl Failure {
    /// Whether this is what became of such an action.
    #[must_use]
    pub fn is_of(&self, verb: Verb, resource: &GroupVersionResource) -> bool {
        self.verb == verb && self.target.resource == *resource
    }
}
