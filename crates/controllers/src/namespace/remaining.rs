//! The contents left in a terminating namespace, worded as in Kubernetes' conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_api::ObjectKey;

use crate::cache::Meta;
use crate::plan::{Action, Failure};
use crate::resource::{NAMESPACES, target, to_json};

/// Number of objects left by resource, and number of objects held by each finalizer.
#[derive(Debug, Default)]
pub(super) struct Remaining<'a> {
    objects: BTreeMap<(&'a str, &'a str), usize>,
    finalizers: BTreeMap<&'a str, usize>,
}

impl<'a> Remaining<'a> {
    pub(super) fn count(&mut self, key: &'a ObjectKey, meta: &'a Meta) {
        *self.objects.entry((&key.resource, &key.group)).or_default() += 1;
        if meta.is_terminating() {
            for finalizer in &meta.finalizers {
                *self.finalizers.entry(finalizer).or_default() += 1;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Returns the status write that reports the remaining content, unless the status is up to date.
    pub(super) fn report(&self, namespace: &Namespace, failure: Option<&Failure>, now: Timestamp) -> Option<Action> {
        let mut object = namespace.clone();
        let conditions = object.status.get_or_insert_default().conditions.get_or_insert_default();
        for wanted in [failed(failure), self.objects_left(), self.finalizers_left()] {
            set(conditions, wanted, now);
        }
        let unchanged = namespace.status.as_ref().and_then(|status| status.conditions.as_ref()) == Some(conditions);
        (!unchanged).then(|| Action::Update {
            target: target(NAMESPACES, &namespace.metadata),
            subresource: Some("status"),
            object: to_json(&object),
        })
    }

    fn objects_left(&self) -> Condition {
        let each = |((resource, group), count): (&(&str, &str), &usize)| {
            format!("{resource}.{group} has {count} resource instances")
        };
        let list: Vec<String> = self.objects.iter().map(each).collect();
        Condition {
            type_: "NamespaceContentRemaining",
            status: "True",
            reason: "SomeResourcesRemain",
            message: format!("Some resources are remaining: {}", list.join(", ")),
        }
    }

    fn finalizers_left(&self) -> Condition {
        let type_ = "NamespaceFinalizersRemaining";
        if self.finalizers.is_empty() {
            let message = "All content-preserving finalizers finished".to_owned();
            return Condition { type_, status: "False", reason: "ContentHasNoFinalizers", message };
        }
        let each = |(finalizer, count)| format!("{finalizer} in {count} resource instances");
        let list: Vec<String> = self.finalizers.iter().map(each).collect();
        let message = format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
        Condition { type_, status: "True", reason: "SomeFinalizersRemain", message }
    }
}

fn failed(failure: Option<&Failure>) -> Condition {
    let type_ = "NamespaceDeletionContentFailure";
    match failure {
        Some(failure) => {
            let message = format!("Failed to delete all resource types: {}", failure.message);
            Condition { type_, status: "True", reason: "ContentDeletionFailed", message }
        }
        None => {
            let message = "All content successfully deleted, may be waiting on finalization".to_owned();
            Condition { type_, status: "False", reason: "ContentDeleted", message }
        }
    }
}

struct Condition {
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn set(conditions: &mut Vec<NamespaceCondition>, wanted: Condition, now: Timestamp) {
    let old = conditions.iter_mut().find(|old| old.type_ == wanted.type_);
    let since = old.as_ref().filter(|old| old.status == wanted.status).and_then(|old| old.last_transition_time.clone());
    let new = NamespaceCondition {
        type_: wanted.type_.to_owned(),
        status: wanted.status.to_owned(),
        reason: Some(wanted.reason.to_owned()),
        message: Some(wanted.message),
        last_transition_time: since.or(Some(Time(now))),
    };
    match old {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}
