//! [`LocalClient`]: the API for code in the same process. Its requests pass the same pipeline as all others.

use std::sync::Arc;

use quorate_api::{GroupVersionResource, Status};
use quorate_mvcc::KeyValue;
use quorate_registry::{Subresource, Verb};
use serde_json::{Value, json};

use crate::api::Api;
use crate::decode::{Expected, FieldValidation};
use crate::pipeline::authorize::authorize;
use crate::pipeline::condition::Condition;
use crate::pipeline::delete::{DeleteOptions, DeleteResponse, delete, delete_response};
use crate::pipeline::dispatch::answered;
use crate::pipeline::managed::FieldManager;
use crate::pipeline::patch::{Patch, patch};
use crate::pipeline::subresource::{binding, scale};
use crate::pipeline::update::update;
use crate::pipeline::{Operation, create, read};
use crate::query::Query;
use crate::route::{Route, Target};
use crate::user::UserInfo;
use crate::{encode, error};

/// A client in the API server's own process, on behalf of one user. Cheap to clone.
#[derive(Clone)]
pub struct LocalClient {
    api: Api,
    user: UserInfo,
    conditions: Vec<Condition>,
}

impl LocalClient {
    #[must_use]
    pub fn new(api: Api, user: UserInfo) -> Self {
        LocalClient { api, user, conditions: Vec::new() }
    }

    /// Returns a client whose updates, patches and deletions are refused with `Conflict` unless all conditions hold
    /// when the write is committed.
    #[must_use]
    pub fn provided(&self, conditions: Vec<Condition>) -> Self {
        LocalClient { conditions, ..self.clone() }
    }

    /// Returns the resource under which a served kind is stored, and whether it is namespaced.
    #[must_use]
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<(GroupVersionResource, bool)> {
        let catalog = self.api.catalog();
        let mut rows = catalog.rows.iter();
        let row = rows.find(|row| row.api_version == api_version && row.descriptor.kind.kind == kind)?;
        Some((row.stored_version().descriptor.resource.clone(), row.is_namespaced()))
    }

    /// Creates an object and returns it as it was stored.
    ///
    /// # Errors
    /// The `Status` that a REST client would get.
    pub async fn create(
        &self,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, Status> {
        let mut operation = self.operation(Verb::Create, resource, namespace, None, None).await?;
        let body = Expected::served(&operation.target.version).decode_value(object)?;
        if let Some(answer) = operation.target.resource.descriptor.answer {
            return answered(&operation, answer, body.object).await;
        }
        let written = create::create(&mut operation, body).await?;
        Ok(written.into_object(&operation.target.version))
    }

    /// Reads an object, linearizably.
    ///
    /// # Errors
    /// The `Status` that a REST client would get.
    pub async fn get(
        &self,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, Status> {
        let operation = self.operation(Verb::Get, resource, namespace, Some(name), None).await?;
        let KeyValue { value, mod_revision, .. } = read::get(self.api.store(), &operation.target, None).await?;
        let mut object = encode::decoded(&value, mod_revision)?;
        operation.target.version.show(&mut object);
        Ok(object)
    }

    /// Replaces an object, or a part of it through a subresource, and returns the new object.
    ///
    /// # Errors
    /// The `Status` that a REST client would get.
    pub async fn update(
        &self,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        object: Value,
    ) -> Result<Value, Status> {
        let mut operation = self.operation(Verb::Update, resource, namespace, Some(name), subresource).await?;
        let written = match operation.target.subresource {
            Some(Subresource::Scale) => scale::update(&operation, object).await?,
            _ => {
                let body = Expected::served(&operation.target.version).decode_value(object)?;
                update(&mut operation, body).await?
            }
        };
        Ok(written.into_object(&operation.target.version))
    }

    /// Applies a merge patch (RFC 7386) and returns the new object.
    ///
    /// # Errors
    /// The `Status` that a REST client would get.
    pub async fn patch_merge(
        &self,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        changes: Value,
    ) -> Result<Value, Status> {
        let mut operation = self.operation(Verb::Patch, resource, namespace, Some(name), subresource).await?;
        let changes = Patch::Merge(changes);
        let written = match operation.target.subresource {
            Some(Subresource::Scale) => scale::patch(&operation, &changes).await?,
            _ => patch(&mut operation, &changes, Vec::new()).await?,
        };
        Ok(written.into_object(&operation.target.version))
    }

    /// Deletes an object; `options` are `DeleteOptions`. Returns the response of a REST client: the object while it
    /// still exists or if its kind returns the last state, otherwise a `Status` of success.
    ///
    /// # Errors
    /// The `Status` that a REST client would get.
    pub async fn delete(
        &self,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
        options: Value,
    ) -> Result<Value, Status> {
        let mut operation = self.operation(Verb::Delete, resource, namespace, Some(name), None).await?;
        let options = DeleteOptions::parse(options, &Query::default())?;
        operation.is_dry_run = options.is_dry_run;
        let written = delete(&operation, &options).await?;
        Ok(match delete_response(&operation.target.resource, written) {
            DeleteResponse::Object(written) => written.into_object(&operation.target.version),
            DeleteResponse::Success(status) => status,
        })
    }

    /// Assigns a pod to a node through the binding subresource, and returns the new pod.
    ///
    /// # Errors
    /// `Conflict` when the pod already has a node, is being deleted, or has another uid.
    pub async fn bind(&self, namespace: &str, pod: &str, uid: &str, node: &str) -> Result<Value, Status> {
        const PODS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "pods");
        let binding_name = Subresource::Binding.as_str();
        let operation = self.operation(Verb::Create, &PODS, Some(namespace), Some(pod), Some(binding_name)).await?;
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": pod, "namespace": namespace, "uid": uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let written = binding::bind(&operation, body).await?;
        Ok(written.into_object(&operation.target.version))
    }

    /// Returns whether this API serves a resource.
    #[must_use]
    pub fn serves(&self, resource: &GroupVersionResource) -> bool {
        self.api.catalog().find(&resource.group, &resource.version, &resource.resource).is_ok()
    }

    /// Runs the route, authenticate and authorize stages.
    async fn operation(
        &self,
        verb: Verb,
        resource: &GroupVersionResource,
        namespace: Option<&str>,
        name: Option<&str>,
        subresource: Option<&str>,
    ) -> Result<Operation, Status> {
        let served = self.api.catalog().find(&resource.group, &resource.version, &resource.resource).cloned()?;
        if served.is_namespaced() != namespace.is_some() {
            return Err(error::no_such_path());
        }
        let subresource = subresource
            .map(|wanted| {
                let known = served.descriptor.subresources.iter().find(|s| s.as_str() == wanted);
                known.copied().ok_or_else(error::no_such_path)
            })
            .transpose()?;
        let target = Target {
            resource: Arc::clone(served.stored_version()),
            version: served,
            verb,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource,
            rest: String::new(),
        };
        let route = Route::Resource(target);
        authorize(&self.api, &self.user, &route, &Query::default()).await?;
        let Route::Resource(target) = route else { return Err(error::no_such_path()) };
        Ok(Operation {
            api: self.api.clone(),
            user: self.user.clone(),
            manager: FieldManager::of_user(&self.user),
            target,
            is_dry_run: false,
            validation: FieldValidation::Ignore,
            conditions: self.conditions.clone(),
            warnings: Vec::new(),
        })
    }
}
