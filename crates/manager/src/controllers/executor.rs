//! Carries plans out: one write after another through the API, batches concurrently.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use quorate_api::{Reason, Status};
use quorate_apiserver::LocalClient;
use quorate_controllers::{Action, Target};
use serde_json::{Value, json};

use crate::events::{Record, Recorder};

/// Why an action failed: which one, and how.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action}: {status}")]
pub(crate) struct ActionError {
    pub(crate) action: String,
    pub(crate) status: Status,
}

impl ActionError {
    /// The plan was made from a state that is not the newest: looking again is all it takes.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self.status.reason, Reason::Conflict | Reason::NotFound | Reason::AlreadyExists)
    }
}

#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) client: LocalClient,
    pub(crate) recorder: Recorder,
    /// The component that events are reported by.
    pub(crate) component: String,
    pub(crate) parallel_actions: usize,
    pub(crate) request_timeout: Duration,
}

impl Executor {
    /// In order; ends at the first action that fails.
    pub(crate) async fn run(&self, actions: Vec<Action>) -> Result<(), ActionError> {
        for action in actions {
            self.execute(action).await?;
        }
        Ok(())
    }

    fn execute(&self, action: Action) -> BoxFuture<'_, Result<(), ActionError>> {
        async move {
            match action {
                Action::Batch(actions) => self.batch(actions).await,
                Action::Event { regarding, event_type, reason, message } => {
                    let component = self.component.clone();
                    let reason = reason.to_owned();
                    self.recorder.record(Record { component, regarding, event_type, reason, message });
                    Ok(())
                }
                write => self.write(write).await,
            }
        }
        .boxed()
    }

    /// All are tried, the first error in their order counts.
    async fn batch(&self, actions: Vec<Action>) -> Result<(), ActionError> {
        let results: Vec<Result<(), ActionError>> =
            stream::iter(actions).map(|action| self.execute(action)).buffered(self.parallel_actions).collect().await;
        results.into_iter().collect()
    }

    async fn write(&self, action: Action) -> Result<(), ActionError> {
        let what = describe(&action);
        let result = match tokio::time::timeout(self.request_timeout, self.send(action)).await {
            Ok(result) => result,
            Err(_) => Err(Status::new(Reason::Timeout, "the request took too long")),
        };
        match result {
            Ok(()) => {
                tracing::debug!(component = self.component, action = what, "done");
                Ok(())
            }
            Err(status) => Err(ActionError { action: what, status }),
        }
    }

    async fn send(&self, action: Action) -> Result<(), Status> {
        let client = &self.client;
        match action {
            Action::Create { resource, namespace, object } => {
                client.create(&resource, namespace.as_deref(), object).await.map(drop)
            }
            Action::Update { target: Target { resource, namespace, name }, subresource, object } => {
                client.update(&resource, namespace.as_deref(), &name, subresource, object).await.map(drop)
            }
            Action::Patch { target: Target { resource, namespace, name }, subresource, patch } => {
                client.patch_merge(&resource, namespace.as_deref(), &name, subresource, patch).await.map(drop)
            }
            Action::Delete { target, uid, resource_version, grace_period_seconds, propagation } => {
                let Target { resource, namespace, name } = target;
                let options = delete_options(uid, resource_version, grace_period_seconds, propagation);
                match client.delete(&resource, namespace.as_deref(), &name, options).await {
                    Ok(_) => Ok(()),
                    Err(status) if status.reason == Reason::NotFound => Ok(()),
                    Err(status) => Err(status),
                }
            }
            Action::Batch(_) | Action::Event { .. } => Ok(()),
        }
    }
}

fn delete_options(
    uid: Option<String>,
    resource_version: Option<String>,
    grace_period_seconds: Option<i64>,
    propagation: Option<&'static str>,
) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(uid) = uid {
        options["preconditions"]["uid"] = uid.into();
    }
    if let Some(resource_version) = resource_version {
        options["preconditions"]["resourceVersion"] = resource_version.into();
    }
    if let Some(seconds) = grace_period_seconds {
        options["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = propagation {
        options["propagationPolicy"] = propagation.into();
    }
    options
}

/// An action in a few words, for logs.
fn describe(action: &Action) -> String {
    let place = |namespace: &Option<String>, name: &str| match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    };
    let target = |verb: &str, target: &Target, subresource: Option<&str>| {
        let suffix = subresource.map(|part| format!("/{part}")).unwrap_or_default();
        format!("{verb} {}{suffix} {}", target.resource.group_resource(), place(&target.namespace, &target.name))
    };
    match action {
        Action::Create { resource, namespace, object } => {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
            format!("create {} {}", resource.group_resource(), place(namespace, name))
        }
        Action::Update { target: t, subresource, .. } => target("update", t, *subresource),
        Action::Patch { target: t, subresource, .. } => target("patch", t, *subresource),
        Action::Delete { target: t, .. } => target("delete", t, None),
        Action::Batch(actions) => format!("{} actions", actions.len()),
        Action::Event { reason, .. } => format!("event {reason}"),
    }
}
