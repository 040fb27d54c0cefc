//! The context of a command: the terminal, the connection, the namespace and the server's kinds.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{CliError, Result};
use crate::manifest::Manifest;
use crate::resources::{self, Discovery, Lookup, Resource, TypeName};
use crate::streams::Streams;
use crate::transport::Transport;

/// The context of one run of a command.
pub struct Session {
    pub streams: Streams,
    pub transport: Arc<Transport>,
    /// The namespace of objects without one.
    pub namespace: String,
    /// Whether the user gave the namespace with `-n`.
    pub namespace_given: bool,
    cache: Option<PathBuf>,
    discovery: Option<Arc<Discovery>>,
    /// Whether this command has read discovery from the server, so that a name missing from it does not exist.
    fresh: bool,
}

impl Session {
    /// Creates a session. `cache` is the directory that keeps discovery between commands.
    #[must_use]
    pub fn new(
        streams: Streams,
        transport: Transport,
        namespace: String,
        namespace_given: bool,
        cache: Option<PathBuf>,
    ) -> Self {
        let transport = Arc::new(transport);
        Session { streams, transport, namespace, namespace_given, cache, discovery: None, fresh: false }
    }

    /// Returns the server's kinds, from the cache if it has them.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn discovery(&mut self) -> Result<Arc<Discovery>> {
        if let Some(known) = &self.discovery {
            return Ok(known.clone());
        }
        if let Some(directory) = &self.cache
            && let Some(kept) = resources::cache::read(directory, &self.transport.cluster())
        {
            let kept = Arc::new(kept);
            self.discovery = Some(kept.clone());
            return Ok(kept);
        }
        self.refresh().await
    }

    /// Reads the server's kinds, and caches them.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn refresh(&mut self) -> Result<Arc<Discovery>> {
        let discovery = Arc::new(resources::fetch(&self.transport).await?);
        if let Some(directory) = &self.cache
            && let Err(error) = resources::cache::write(directory, &self.transport.cluster(), &discovery)
        {
            tracing::debug!(%error, directory = %directory.display(), "discovery is not cached");
        }
        self.fresh = true;
        self.discovery = Some(discovery.clone());
        Ok(discovery)
    }

    /// Returns the resources that a type's name refers to: one, or the members of a category.
    ///
    /// # Errors
    /// When the server has no such type.
    pub async fn types(&mut self, name: &str) -> Result<Vec<Arc<Resource>>> {
        loop {
            let discovery = self.discovery().await?;
            match discovery.lookup(TypeName(name)) {
                Lookup::Found(resource) => return Ok(vec![Arc::new(resource.clone())]),
                Lookup::Category(members) => {
                    return Ok(members.into_iter().map(|member| Arc::new(member.clone())).collect());
                }
                Lookup::Unknown if self.fresh => return Err(TypeName(name).unknown(&discovery)),
                Lookup::Unknown => self.refresh().await?,
            };
        }
    }

    /// Returns the single resource of a type's name.
    ///
    /// # Errors
    /// As [`Session::types`], or when the name is a category.
    pub async fn one_type(&mut self, name: &str) -> Result<Arc<Resource>> {
        let mut types = self.types(name).await?;
        if types.len() != 1 {
            return Err(CliError::usage(format!("\"{name}\" is a category; name one resource type")));
        }
        Ok(types.remove(0))
    }

    /// Returns the resource that serves a manifest's kind.
    ///
    /// # Errors
    /// When the server has no such kind.
    pub async fn kind(&mut self, manifest: &Manifest) -> Result<Arc<Resource>> {
        let (api_version, kind) = (manifest.api_version(), manifest.kind());
        loop {
            let discovery = self.discovery().await?;
            if let Some(resource) = discovery.by_kind(api_version, kind) {
                return Ok(Arc::new(resource.clone()));
            }
            if self.fresh {
                return Err(CliError::usage(format!(
                    "resource mapping not found for name: \"{}\" namespace: \"{}\" from \"{}\": no matches for kind \"{kind}\" in version \"{api_version}\"; ensure CRDs are installed first",
                    manifest.name(),
                    manifest.namespace().unwrap_or_default(),
                    manifest.source,
                )));
            }
            self.refresh().await?;
        }
    }

    /// Returns the namespace of a named object of this resource.
    #[must_use]
    pub fn object_namespace(&self, resource: &Resource) -> Option<String> {
        resource.namespaced.then(|| self.namespace.clone())
    }

    /// Returns the namespace of a list of this resource, or `None` for all namespaces.
    #[must_use]
    pub fn list_namespace(&self, resource: &Resource, all: bool) -> Option<String> {
        self.object_namespace(resource).filter(|_| !all)
    }

    /// Returns the namespace of a manifest's object: its own, or the session's.
    ///
    /// # Errors
    /// When the manifest names another namespace than `-n`.
    pub fn manifest_namespace(&self, resource: &Resource, manifest: &Manifest) -> Result<Option<String>> {
        if !resource.namespaced {
            return Ok(None);
        }
        match manifest.namespace() {
            Some(namespace) if self.namespace_given && namespace != self.namespace => Err(CliError::usage(format!(
                "the namespace from the provided object \"{namespace}\" does not match the namespace \"{}\". You must pass '--namespace={namespace}' to perform this operation.",
                self.namespace
            ))),
            Some(namespace) => Ok(Some(namespace.to_owned())),
            None => Ok(Some(self.namespace.clone())),
        }
    }
}
