//! `create`: creates objects from manifests or from flags.

use crate::changes::{ChangeFlags, SaveConfig};
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, select};
use crate::session::Session;
use crate::verbs::DryRun;

use super::generators::{self, Generated};

/// Create objects
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    change: ChangeFlags,
    #[command(flatten)]
    save: SaveConfig,
    #[command(subcommand)]
    generator: Option<Generator>,
}

#[derive(Debug, clap::Subcommand)]
enum Generator {
    /// A namespace
    #[command(alias = "ns")]
    Namespace(Generated<generators::Namespace>),
    /// A ConfigMap of literals and files
    #[command(alias = "cm")]
    Configmap(Generated<generators::ConfigMap>),
    /// A Secret
    #[command(subcommand)]
    Secret(Secret),
    /// A Deployment
    #[command(alias = "deploy")]
    Deployment(Generated<generators::Deployment>),
    /// A Service
    #[command(subcommand, alias = "svc")]
    Service(Service),
    /// A service account
    #[command(alias = "sa")]
    Serviceaccount(Generated<generators::ServiceAccount>),
    /// A Job, of an image or of a CronJob
    Job(Generated<generators::Job>),
    /// A CronJob
    #[command(alias = "cj")]
    Cronjob(Generated<generators::CronJob>),
    /// An Ingress
    #[command(alias = "ing")]
    Ingress(Generated<generators::Ingress>),
    /// A Role
    Role(Generated<generators::Role>),
    /// A RoleBinding
    Rolebinding(Generated<generators::RoleBinding>),
    /// A ClusterRole
    Clusterrole(Generated<generators::ClusterRole>),
    /// A ClusterRoleBinding
    Clusterrolebinding(Generated<generators::ClusterRoleBinding>),
    /// A PodDisruptionBudget
    #[command(alias = "pdb")]
    Poddisruptionbudget(Generated<generators::PodDisruptionBudget>),
    /// A PriorityClass
    #[command(alias = "pc")]
    Priorityclass(Generated<generators::PriorityClass>),
    /// A ResourceQuota
    #[command(alias = "resourcequota")]
    Quota(Generated<generators::ResourceQuota>),
    Token(generators::Token),
}

#[derive(Debug, clap::Subcommand)]
enum Secret {
    /// Values from literals and files
    Generic(Generated<generators::GenericSecret>),
    /// A certificate and its key
    Tls(Generated<generators::TlsSecret>),
    /// The credentials of a registry of images
    DockerRegistry(Generated<generators::DockerRegistrySecret>),
}

#[derive(Debug, clap::Subcommand)]
enum Service {
    /// With an address inside the cluster
    Clusterip(Generated<generators::ClusterIp>),
    /// With a port on each node
    Nodeport(Generated<generators::NodePort>),
    /// With a load balancer outside the cluster
    Loadbalancer(Generated<generators::LoadBalancer>),
    /// Another name of a host
    Externalname(Generated<generators::ExternalName>),
}

impl Generator {
    async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Generator::Namespace(kind) => kind.run(session).await,
            Generator::Configmap(kind) => kind.run(session).await,
            Generator::Secret(Secret::Generic(kind)) => kind.run(session).await,
            Generator::Secret(Secret::Tls(kind)) => kind.run(session).await,
            Generator::Secret(Secret::DockerRegistry(kind)) => kind.run(session).await,
            Generator::Deployment(kind) => kind.run(session).await,
            Generator::Service(Service::Clusterip(kind)) => kind.run(session).await,
            Generator::Service(Service::Nodeport(kind)) => kind.run(session).await,
            Generator::Service(Service::Loadbalancer(kind)) => kind.run(session).await,
            Generator::Service(Service::Externalname(kind)) => kind.run(session).await,
            Generator::Serviceaccount(kind) => kind.run(session).await,
            Generator::Job(kind) => kind.run(session).await,
            Generator::Cronjob(kind) => kind.run(session).await,
            Generator::Ingress(kind) => kind.run(session).await,
            Generator::Role(kind) => kind.run(session).await,
            Generator::Rolebinding(kind) => kind.run(session).await,
            Generator::Clusterrole(kind) => kind.run(session).await,
            Generator::Clusterrolebinding(kind) => kind.run(session).await,
            Generator::Poddisruptionbudget(kind) => kind.run(session).await,
            Generator::Priorityclass(kind) => kind.run(session).await,
            Generator::Quota(kind) => kind.run(session).await,
            Generator::Token(token) => token.run(session).await,
        }
    }
}

impl Create {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if let Some(generator) = self.generator {
            return generator.run(session).await;
        }
        if self.files.is_empty() {
            return Err(CliError::usage("must specify one of -f and -k"));
        }
        let targets = select(session, &[], &self.files, &SelectFlags::default()).await?;
        if targets.is_empty() {
            return Err(CliError::usage("no objects passed to create"));
        }
        let mut errors = Vec::new();
        for target in &targets {
            let Some(manifest) = &target.manifest else { continue };
            let object = self.save.annotate(manifest.object.clone());
            let created = match self.change.dry_run {
                DryRun::Client => Ok(object),
                dry_run => session.create(&target.resource, target.namespace.as_deref(), &object, dry_run).await,
            };
            match created {
                Ok(object) => self.change.report(session, &target.resource, &object, "created")?,
                Err(error @ CliError::Connect { .. }) => return Err(error),
                Err(error) => errors.push(error.when("creating", &manifest.source)),
            }
        }
        CliError::collect(errors)
    }
}
