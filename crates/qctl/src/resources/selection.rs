//! Resolves the objects that a command line selects: `TYPE`, `TYPE NAME…`, `TYPE/NAME…`, `TYPE,TYPE`, categories, `-f`.

use std::sync::Arc;

use serde_json::Value;

use super::Resource;
use crate::error::{CliError, Result};
use crate::manifest::{self, FileFlags, Manifest};
use crate::path::RequestPath;
use crate::session::Session;

/// The flags that select objects.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SelectFlags {
    /// Label selector, such as `app=web,tier!=db`
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector, such as `status.phase=Running`
    #[arg(long)]
    pub field_selector: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl SelectFlags {
    #[must_use]
    pub fn selects(&self) -> bool {
        self.selector.is_some() || self.field_selector.is_some()
    }

    /// Adds the selectors to a list or watch.
    #[must_use]
    pub fn query(&self, path: RequestPath) -> RequestPath {
        path.maybe_query("labelSelector", self.selector.as_ref())
            .maybe_query("fieldSelector", self.field_selector.as_ref())
    }
}

/// One object, or all objects of a type.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Arc<Resource>,
    /// `None` for a resource without namespaces, and for a list of all namespaces.
    pub namespace: Option<String>,
    /// `None` for the whole collection.
    pub name: Option<String>,
    /// The manifest of `-f` that selected the object.
    pub manifest: Option<Manifest>,
}

/// An object and the resource that serves it.
#[derive(Clone, Debug)]
pub struct Selected {
    pub resource: Arc<Resource>,
    pub object: Value,
}

impl Selected {
    #[must_use]
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str()
    }

    /// Returns the type and name: `deployment.apps/web`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}/{}", self.resource.kind_name(), self.name())
    }
}

/// Parsed arguments, before their types are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    None,
    /// Types (separated by commas) and the names after them. Without names, whole collections are selected.
    Types(Vec<String>, Vec<String>),
    Pairs(Vec<(String, String)>),
}

/// Parses the positional arguments.
///
/// # Errors
/// When the two forms are mixed or a name is empty.
pub fn parse_arguments(arguments: &[String]) -> Result<Arguments> {
    let Some(first) = arguments.first() else { return Ok(Arguments::None) };
    if arguments.iter().any(|argument| argument.contains('/')) {
        let mut pairs = Vec::new();
        for argument in arguments {
            let Some((kind, name)) = argument.split_once('/') else {
                return Err(CliError::usage(
                    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'qctl get resource/<resource_name>' instead of 'qctl get resource resource/<resource_name>')",
                ));
            };
            if kind.is_empty() || name.is_empty() || name.contains('/') {
                return Err(CliError::usage("arguments in resource/name form must have a single resource and name"));
            }
            for kind in kind.split(',') {
                pairs.push((kind.to_owned(), name.to_owned()));
            }
        }
        return Ok(Arguments::Pairs(pairs));
    }
    let types: Vec<String> = first.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    Ok(Arguments::Types(types, arguments[1..].to_vec()))
}

/// Resolves arguments and manifests to targets.
///
/// # Errors
/// When a type is unknown, the arguments contradict each other, or a manifest cannot be read.
pub async fn select(
    session: &mut Session,
    arguments: &[String],
    files: &FileFlags,
    flags: &SelectFlags,
) -> Result<Vec<Target>> {
    if !files.is_empty() {
        if !arguments.is_empty() {
            return Err(CliError::usage(
                "when paths, URLs, or stdin is provided as resource input, you may not specify resource arguments as well",
            ));
        }
        return from_manifests(session, files).await;
    }
    let mut targets = Vec::new();
    match parse_arguments(arguments)? {
        Arguments::None => {}
        Arguments::Pairs(pairs) => {
            refuse_names(flags)?;
            for (kind, name) in pairs {
                for resource in session.types(&kind).await? {
                    targets.push(named(session, resource, name.clone()));
                }
            }
        }
        Arguments::Types(kinds, names) => {
            if !names.is_empty() {
                refuse_names(flags)?;
            }
            for kind in kinds {
                for resource in session.types(&kind).await? {
                    if names.is_empty() {
                        let namespace = session.list_namespace(&resource, flags.all_namespaces);
                        targets.push(Target { resource, namespace, name: None, manifest: None });
                    } else {
                        targets.extend(names.iter().map(|name| named(session, resource.clone(), name.clone())));
                    }
                }
            }
        }
    }
    Ok(targets)
}

fn refuse_names(flags: &SelectFlags) -> Result<()> {
    if flags.selects() {
        return Err(CliError::usage("name cannot be provided when a selector is specified"));
    }
    if flags.all_namespaces {
        return Err(CliError::usage("a resource cannot be retrieved by name across all namespaces"));
    }
    Ok(())
}

fn named(session: &Session, resource: Arc<Resource>, name: String) -> Target {
    let namespace = session.object_namespace(&resource);
    Target { resource, namespace, name: Some(name), manifest: None }
}

async fn from_manifests(session: &mut Session, files: &FileFlags) -> Result<Vec<Target>> {
    let manifests = manifest::read(files, &mut session.streams)?;
    let mut targets = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        let resource = session.kind(&manifest).await?;
        let namespace = session.manifest_namespace(&resource, &manifest)?;
        let name = Some(manifest.name().to_owned()).filter(|name| !name.is_empty());
        targets.push(Target { resource, namespace, name, manifest: Some(manifest) });
    }
    Ok(targets)
}

/// Reads the selected objects. Errors are collected so that the other objects are still processed.
///
/// # Errors
/// Only when no server can be reached.
pub async fn objects(
    session: &Session,
    targets: &[Target],
    flags: &SelectFlags,
) -> Result<(Vec<Selected>, Vec<CliError>)> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for target in targets {
        let result = match &target.name {
            Some(name) => {
                session.get(&target.resource, target.namespace.as_deref(), name).await.map(|object| vec![object])
            }
            None => session.list(&target.resource, target.namespace.as_deref(), flags).await,
        };
        match result {
            Ok(objects) => {
                found.extend(objects.into_iter().map(|object| Selected { resource: target.resource.clone(), object }))
            }
            Err(error @ CliError::Connect { .. }) => return Err(error),
            Err(error) => errors.push(error),
        }
    }
    Ok((found, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Result<Arguments> {
        parse_arguments(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn both_forms_are_parsed_and_must_not_be_mixed() {
        assert_eq!(arguments(&[]).expect("nothing"), Arguments::None);
        assert_eq!(
            arguments(&["po,svc", "a", "b"]).expect("types"),
            Arguments::Types(vec!["po".into(), "svc".into()], vec!["a".into(), "b".into()])
        );
        assert_eq!(
            arguments(&["po/a", "deploy/b"]).expect("pairs"),
            Arguments::Pairs(vec![("po".into(), "a".into()), ("deploy".into(), "b".into())])
        );
        assert!(arguments(&["po", "po/a"]).is_err());
        assert!(arguments(&["po/"]).is_err());
    }
}
