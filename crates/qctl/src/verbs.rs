//! The REST verbs on objects, as JSON.

use http::Method;
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::resources::{Resource, SelectFlags};
use crate::session::Session;
use crate::transport::Call;
use crate::watch::Watch;

/// Maximum number of objects in one request of a list.
pub const CHUNK: u32 = 500;

/// The format of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
}

impl PatchType {
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    #[default]
    None,
    /// Sends nothing to the server.
    Client,
    /// Sends the request to the server, which does not store the result.
    Server,
}

impl DryRun {
    /// Returns the suffix of the line that reports a change.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }

    fn parameter(self) -> Option<&'static str> {
        (self == DryRun::Server).then_some("All")
    }
}

/// The field manager that the server records for changed fields.
pub const FIELD_MANAGER: &str = "qctl";
/// The server refuses unknown fields instead of dropping them.
const FIELD_VALIDATION: &str = "Strict";

/// The options of a server-side apply.
#[derive(Clone, Copy, Debug)]
pub struct ServerSide<'a> {
    /// The manager of the applied fields.
    pub manager: &'a str,
    /// Takes over the fields that other managers have.
    pub force: bool,
}

impl Session {
    /// Reads one object.
    ///
    /// # Errors
    /// When the object does not exist or the server refuses the request.
    pub async fn get(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Result<Value> {
        self.transport.json(&Call::get(RequestPath::object(resource, namespace, name))).await
    }

    /// Reads one object, or returns `None` if it does not exist.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn find(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Result<Option<Value>> {
        match self.get(resource, namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists all selected objects in chunks. Each has its `apiVersion` and `kind`.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn list(&self, resource: &Resource, namespace: Option<&str>, flags: &SelectFlags) -> Result<Vec<Value>> {
        Ok(self.list_versioned(resource, namespace, flags, CHUNK).await?.0)
    }

    /// Like [`Session::list`], but also returns the version of the list, at which a watch can start. A `chunk` of 0
    /// reads everything in one request.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn list_versioned(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        flags: &SelectFlags,
        chunk: u32,
    ) -> Result<(Vec<Value>, String)> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let path = flags
                .query(RequestPath::collection(resource, namespace))
                .maybe_query("limit", Some(chunk).filter(|chunk| *chunk > 0))
                .maybe_query("continue", token.as_ref());
            let mut page = self.transport.json(&Call::get(path)).await?;
            if let Value::Array(items) = page["items"].take() {
                objects.extend(items.into_iter().map(|mut item| {
                    if item.get("kind").is_none() {
                        item["apiVersion"] = resource.api_version().into();
                        item["kind"] = resource.kind.clone().into();
                    }
                    item
                }));
            }
            let text =
                |field: &str| page["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            token = text("continue");
            if token.is_none() {
                return Ok((objects, text("resourceVersion").unwrap_or_default()));
            }
        }
    }

    /// # Errors
    /// When the server refuses the request.
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        object: &Value,
        dry_run: DryRun,
    ) -> Result<Value> {
        let path = RequestPath::collection(resource, namespace)
            .query("fieldManager", FIELD_MANAGER)
            .query("fieldValidation", FIELD_VALIDATION)
            .maybe_query("dryRun", dry_run.parameter());
        self.transport.json(&Call::new(Method::POST, path).body(object)).await
    }

    /// Replaces an object, or one of its subresources, as a whole.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn update(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        object: &Value,
        dry_run: DryRun,
    ) -> Result<Value> {
        let mut path = RequestPath::object(resource, namespace, name);
        if let Some(subresource) = subresource {
            path = path.subresource(subresource);
        }
        let path = path
            .query("fieldManager", FIELD_MANAGER)
            .query("fieldValidation", FIELD_VALIDATION)
            .maybe_query("dryRun", dry_run.parameter());
        self.transport.json(&Call::new(Method::PUT, path).body(object)).await
    }

    /// # Errors
    /// When the server refuses the request.
    pub async fn patch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
        patch_type: PatchType,
        dry_run: DryRun,
    ) -> Result<Value> {
        self.patch_at(RequestPath::object(resource, namespace, name), patch, patch_type, dry_run).await
    }

    /// Patches the object or subresource at a path.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn patch_at(
        &self,
        path: RequestPath,
        patch: &Value,
        patch_type: PatchType,
        dry_run: DryRun,
    ) -> Result<Value> {
        let path = path
            .query("fieldManager", FIELD_MANAGER)
            .query("fieldValidation", FIELD_VALIDATION)
            .maybe_query("dryRun", dry_run.parameter());
        let call = Call::new(Method::PATCH, path).content_type(patch_type.media_type()).body(patch);
        self.transport.json(&call).await
    }

    /// Applies a manifest by the server, which creates an absent object.
    ///
    /// # Errors
    /// When the server refuses the request; a conflict names the fields of other managers.
    pub async fn apply(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        manifest: &Value,
        options: ServerSide<'_>,
        dry_run: DryRun,
    ) -> Result<Value> {
        let path = RequestPath::object(resource, namespace, name)
            .query("fieldManager", options.manager)
            .query("fieldValidation", FIELD_VALIDATION)
            .maybe_query("force", options.force.then_some("true"))
            .maybe_query("dryRun", dry_run.parameter());
        // JSON is YAML.
        let call = Call::new(Method::PATCH, path).content_type("application/apply-patch+yaml").body(manifest);
        self.transport.json(&call).await
    }

    /// Deletes an object. The response is the object while it terminates, or a `Status`.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        options: &Value,
        dry_run: DryRun,
    ) -> Result<Value> {
        let path = RequestPath::object(resource, namespace, name).maybe_query("dryRun", dry_run.parameter());
        self.transport.json(&Call::new(Method::DELETE, path).body(options)).await
    }

    /// Lists the object's Events, oldest first.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn events_of(&mut self, object: &Value) -> Result<Vec<Value>> {
        let events = self.one_type("events").await?;
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let namespace = Some(text("namespace")).filter(|namespace| !namespace.is_empty());
        let selector = format!(
            "involvedObject.name={},involvedObject.kind={}",
            text("name"),
            object["kind"].as_str().unwrap_or_default()
        );
        let flags = SelectFlags { field_selector: Some(selector), ..SelectFlags::default() };
        let mut found = match self.list(&events, namespace, &flags).await {
            Err(CliError::Server(status)) if status.code == 400 => {
                tracing::debug!("the server cannot select events by their object; filtering them here");
                self.list(&events, namespace, &SelectFlags::default()).await?
            }
            other => other?,
        };
        found.retain(|event| {
            let about = &event["involvedObject"];
            about["name"] == object["metadata"]["name"]
                && about["kind"] == object["kind"]
                && (about["uid"] == object["metadata"]["uid"]
                    || about["uid"].as_str().is_none_or(str::is_empty)
                    || object["kind"] == "Node")
        });
        found.sort_by_key(|event| crate::events::last_seen(event).map(str::to_owned));
        Ok(found)
    }

    /// Watches the changes after a version.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn watch(&self, path: RequestPath, version: &str, accept: Option<&'static str>) -> Result<Watch> {
        Watch::start(&self.transport, path, version, accept).await
    }
}
