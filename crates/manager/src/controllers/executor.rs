//! Executes plans through the API: actions one after another, batches concurrently.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use quorate_api::{GroupVersionResource, Reason, Status};
use quorate_apiserver::{Condition, LocalClient};
use quorate_controllers::{Action, Failure, Guard, KindInfo, Kinds, Target, Verb};
use serde_json::{Value, json};

use crate::events::{Record, Recorder};

/// Failure of an action: the operation and the API's status.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation}: {status}")]
pub(crate) struct ActionError {
    pub(crate) operation: Box<Operation>,
    pub(crate) status: Status,
}

impl From<ActionError> for Failure {
    fn from(error: ActionError) -> Failure {
        let Operation { verb, target, .. } = *error.operation;
        Failure { verb, target, message: error.status.message }
    }
}

impl ActionError {
    /// Returns whether the plan was made from a stale cache, so that another reconcile is enough.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self.status.reason, Reason::Conflict | Reason::NotFound | Reason::AlreadyExists)
    }
}

#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) client: LocalClient,
    pub(crate) recorder: Recorder,
    /// Component that events name as their source.
    pub(crate) component: String,
    pub(crate) parallel_actions: usize,
    pub(crate) request_timeout: Duration,
}

impl Executor {
    /// Executes the actions in order, up to the first failure.
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
                Action::Sequence(actions) => self.run(actions).await,
                Action::Event { regarding, event_type, reason, message } => {
                    let component = self.component.clone();
                    let reason = reason.to_owned();
                    self.recorder.record(Record { component, regarding, event_type, reason, message });
                    Ok(())
                }
                Action::Create { resource, namespace, object } => {
                    let operation = Operation::create(&resource, namespace.as_deref(), &object);
                    let create = async { self.client.create(&resource, namespace.as_deref(), object).await.map(drop) };
                    self.write(operation, create).await
                }
                Action::Update { target, subresource, object } => {
                    let operation = Operation { verb: Verb::Update, target: target.clone(), subresource };
                    let Target { resource, namespace, name } = target;
                    let update = async {
                        self.client.update(&resource, namespace.as_deref(), &name, subresource, object).await.map(drop)
                    };
                    self.write(operation, update).await
                }
                Action::Patch { target, subresource, patch, guards } => {
                    let operation = Operation { verb: Verb::Patch, target: target.clone(), subresource };
                    let Target { resource, namespace, name } = target;
                    let client = self.client.provided(conditions(guards));
                    let patch = async {
                        let namespace = namespace.as_deref();
                        client.patch_merge(&resource, namespace, &name, subresource, patch).await.map(drop)
                    };
                    self.write(operation, patch).await
                }
                Action::Delete { target, uid, resource_version, grace_period_seconds, propagation, guards } => {
                    let operation = Operation { verb: Verb::Delete, target: target.clone(), subresource: None };
                    let options = delete_options(uid, resource_version, grace_period_seconds, propagation);
                    self.write(operation, self.delete(target, options, conditions(guards))).await
                }
            }
        }
        .boxed()
    }

    /// Attempts all actions and returns the first error in their order.
    async fn batch(&self, actions: Vec<Action>) -> Result<(), ActionError> {
        let results: Vec<Result<(), ActionError>> =
            stream::iter(actions).map(|action| self.execute(action)).buffered(self.parallel_actions).collect().await;
        results.into_iter().collect()
    }

    async fn write(
        &self,
        operation: Operation,
        write: impl Future<Output = Result<(), Status>>,
    ) -> Result<(), ActionError> {
        let result = match tokio::time::timeout(self.request_timeout, write).await {
            Ok(result) => result,
            Err(_) => Err(Status::new(Reason::Timeout, "the request timed out")),
        };
        match result {
            Ok(()) => {
                tracing::debug!(component = self.component, action = %operation, "done");
                Ok(())
            }
            Err(status) => Err(ActionError { operation: Box::new(operation), status }),
        }
    }

    /// Deletes an object; `NotFound` counts as success.
    async fn delete(&self, target: Target, options: Value, conditions: Vec<Condition>) -> Result<(), Status> {
        let Target { resource, namespace, name } = target;
        match self.client.provided(conditions).delete(&resource, namespace.as_deref(), &name, options).await {
            Ok(_) => Ok(()),
            Err(status) if status.reason == Reason::NotFound => Ok(()),
            Err(status) => Err(status),
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("component", &self.component).finish_non_exhaustive()
    }
}

impl Kinds for Executor {
    fn find(&self, api_version: &str, kind: &str) -> Option<KindInfo> {
        let (resource, is_namespaced) = self.client.resource_of(api_version, kind)?;
        Some(KindInfo { resource, is_namespaced })
    }
}

fn conditions(guards: Vec<Guard>) -> Vec<Condition> {
    let condition = |guard| match guard {
        Guard::Absent { key, uid } => Condition::Absent { key, uid },
        Guard::Unchanged { key, revision } => Condition::Unchanged { key, revision },
    };
    guards.into_iter().map(condition).collect()
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

/// A write, as errors and logs name it.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    verb: Verb,
    target: Target,
    subresource: Option<&'static str>,
}

impl Operation {
    fn create(resource: &GroupVersionResource, namespace: Option<&str>, object: &Value) -> Operation {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
        let target =
            Target { resource: resource.clone(), namespace: namespace.map(str::to_owned), name: name.to_owned() };
        Operation { verb: Verb::Create, target, subresource: None }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        };
        write!(f, "{verb} {}", self.target.resource.group_resource())?;
        if let Some(subresource) = self.subresource {
            write!(f, "/{subresource}")?;
        }
        match &self.target.namespace {
            Some(namespace) => write!(f, " {namespace}/{}", self.target.name),
            None => write!(f, " {}", self.target.name),
        }
    }
}
