//! Makes the objects of `create KIND` from its flags. Each kind says how its object looks; naming, dry runs, sending and
//! reporting are the same for all.

mod access;
mod data;
mod ingress;
mod policy;
mod service;
mod token;
mod workload;

pub use access::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, ServiceAccount, URL_VERBS};
pub use data::{ConfigMap, DockerRegistrySecret, GenericSecret, TlsSecret};
pub use ingress::Ingress;
pub use policy::{Namespace, PodDisruptionBudget, PriorityClass, ResourceQuota};
pub use service::{ClusterIp, ExternalName, LoadBalancer, NodePort};
pub use token::Token;
pub use workload::{CronJob, Deployment, Job};

use serde_json::{Value, json};

use crate::changes::{ChangeFlags, SaveConfig};
use crate::error::{CliError, Result};
use crate::manifest::Manifest;
use crate::resources::Resource;
use crate::session::Session;
use crate::verbs::DryRun;

/// The flags of a kind, and the object that they describe.
pub trait Generate: clap::Args {
    /// kubectl's words before the server's message, such as `failed to create job: `.
    const FAILURE: &'static str = "";
    const NAMESPACED: bool = true;

    /// Returns the object. Only kinds that refer to others ask the server.
    ///
    /// # Errors
    /// When the flags contradict each other, or a file cannot be read.
    async fn object(&self, name: &str, session: &mut Session) -> Result<Value>;
}

/// The flags that all kinds have, and those of one.
#[derive(Debug, clap::Args)]
pub struct Generated<K: clap::Args> {
    name: String,
    #[command(flatten)]
    kind: K,
    #[command(flatten)]
    change: ChangeFlags,
    #[command(flatten)]
    save: SaveConfig,
}

impl<K: Generate> Generated<K> {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let object = self.save.annotate(self.kind.object(&self.name, session).await?);
        let outcome = New { object, namespaced: K::NAMESPACED, done: "created" };
        outcome.create(session, &self.change).await.map_err(|error| match error {
            CliError::Server(status) if !K::FAILURE.is_empty() => {
                CliError::usage(format!("{}{}", K::FAILURE, status.message))
            }
            other => other,
        })
    }
}

/// An object that flags describe.
pub struct New {
    pub object: Value,
    pub namespaced: bool,
    /// The word of the report.
    pub done: &'static str,
}

impl New {
    /// Creates the object and reports it. A client-side dry run only reports it and needs no server.
    ///
    /// # Errors
    /// When the server refuses the request.
    pub async fn create(self, session: &mut Session, change: &ChangeFlags) -> Result<()> {
        let New { mut object, namespaced, done } = self;
        if session.namespace_given && namespaced {
            object["metadata"]["namespace"] = session.namespace.clone().into();
        }
        if change.dry_run == DryRun::Client {
            let resource = Resource::unserved(&object, namespaced);
            return change.report(session, &resource, &object, done);
        }
        let manifest = Manifest { object, source: "flags".to_owned() };
        let resource = session.kind(&manifest).await?;
        let namespace = session.manifest_namespace(&resource, &manifest)?;
        let created = session.create(&resource, namespace.as_deref(), &manifest.object, change.dry_run).await?;
        change.report(session, &resource, &created, done)
    }
}

/// Starts an object.
fn new(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

/// Returns a number if the text is one, and otherwise the text, as for ports and percentages.
pub fn number_or_text(text: &str) -> Value {
    text.parse::<i32>().map_or_else(|_| text.into(), Into::into)
}

/// Parses `KEY=VALUE` pairs: into a map, or into a list that keeps their order. `what` names them in the error.
pub fn pairs<T: FromIterator<(String, Value)>>(
    texts: impl IntoIterator<Item = impl AsRef<str>>,
    what: &str,
) -> Result<T> {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.into())),
        _ => Err(CliError::usage(format!("{what} {text} is invalid and should be in format key=[value]"))),
    };
    texts.into_iter().map(|text| pair(text.as_ref())).collect()
}

/// Returns the variables of a container's environment. One may refer to those before it, so their order is kept.
///
/// # Errors
/// When one is not `NAME=VALUE`.
pub fn environment(texts: &[String]) -> Result<Vec<Value>> {
    let pairs: Vec<(String, Value)> = pairs(texts, "env")?;
    Ok(pairs.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
}

/// Returns the texts without those that occur before.
fn unique(texts: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in texts {
        if !found.contains(text) {
            found.push(text.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests;
