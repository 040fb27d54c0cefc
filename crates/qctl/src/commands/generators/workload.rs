//! Deployments, Jobs and CronJobs.

use serde_json::{Value, json};

use super::{Generate, new};
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::resources::{SelectFlags, select};
use crate::session::Session;

/// The flags of a Deployment.
#[derive(Debug, clap::Args)]
pub struct Deployment {
    /// The image of each container
    #[arg(long, required = true, value_delimiter = ',')]
    image: Vec<String>,
    #[arg(short = 'r', long, default_value_t = 1)]
    replicas: u32,
    /// A port of the first container
    #[arg(long)]
    port: Option<u16>,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

impl Generate for Deployment {
    const FAILURE: &'static str = "failed to create deployment: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        if self.image.len() > 1 && !self.command.is_empty() {
            return Err(CliError::usage("cannot specify multiple --image options and command"));
        }
        let mut containers: Vec<Value> =
            self.image.iter().map(|image| container(&container_name(image), image, &self.command)).collect();
        if let (Some(port), Some(first)) = (self.port, containers.first_mut()) {
            first["ports"] = json!([{"containerPort": port}]);
        }
        let labels = json!({"app": name});
        let mut object = new("apps/v1", "Deployment", name);
        object["metadata"]["labels"] = labels.clone();
        object["spec"] = json!({
            "replicas": self.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        });
        Ok(object)
    }
}

fn container(name: &str, image: &str, command: &[String]) -> Value {
    let mut container = json!({"name": name, "image": image});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    container
}

/// Returns the container name for an image: `nginx` for `registry/team/nginx:1.2@sha256:…`.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split(['@', ':']).next().unwrap_or(last);
    name.chars()
        .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' })
        .collect()
}

/// The flags of a Job.
#[derive(Debug, clap::Args)]
pub struct Job {
    #[arg(long)]
    image: Option<String>,
    /// The CronJob to take the Job from, as cronjob/NAME
    #[arg(long)]
    from: Option<String>,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

impl Generate for Job {
    const FAILURE: &'static str = "failed to create job: ";

    async fn object(&self, name: &str, session: &mut Session) -> Result<Value> {
        let mut job = new("batch/v1", "Job", name);
        match (&self.image, &self.from) {
            (Some(image), None) => job["spec"] = job_spec(name, image, &self.command, "Never"),
            (None, Some(_)) if !self.command.is_empty() => {
                return Err(CliError::usage("cannot specify --from and command"));
            }
            (None, Some(from)) => {
                let cron = cron_job(session, from).await?;
                instantiate(&mut job, &cron);
            }
            _ => return Err(CliError::usage("either --image or --from must be specified")),
        }
        Ok(job)
    }
}

fn job_spec(name: &str, image: &str, command: &[String], restart: &str) -> Value {
    json!({"template": {"spec": {"containers": [container(name, image, command)], "restartPolicy": restart}}})
}

async fn cron_job(session: &mut Session, from: &str) -> Result<Value> {
    let targets = select(session, &[from.to_owned()], &FileFlags::default(), &SelectFlags::default()).await?;
    let [target] = targets.as_slice() else {
        return Err(CliError::usage("from must be an existing cronjob"));
    };
    let Some(name) = &target.name else {
        return Err(CliError::usage("from must be an existing cronjob, such as cronjob/nightly"));
    };
    if !target.resource.is("batch", "CronJob") {
        return Err(CliError::usage(format!("a job cannot be made from a {}", target.resource.kind_name())));
    }
    session.get(&target.resource, target.namespace.as_deref(), name).await
}

/// Makes the Job that the CronJob would make now, and its owner.
fn instantiate(job: &mut Value, cron: &Value) {
    let template = &cron["spec"]["jobTemplate"];
    let metadata = &mut job["metadata"];
    let mut annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations.entry("cronjob.kubernetes.io/instantiate").or_insert_with(|| "manual".into());
    metadata["annotations"] = annotations.into();
    if let Some(labels) = template["metadata"].get("labels") {
        metadata["labels"] = labels.clone();
    }
    let owner = &cron["metadata"];
    metadata["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": owner["name"],
        "uid": owner["uid"], "controller": true}]);
    job["spec"] = template["spec"].clone();
}

/// The flags of a CronJob.
#[derive(Debug, clap::Args)]
pub struct CronJob {
    #[arg(long)]
    image: String,
    /// When the jobs run, such as '*/5 * * * *'
    #[arg(long)]
    schedule: String,
    /// The pods' restart policy
    #[arg(long, default_value = "OnFailure")]
    restart: String,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

impl Generate for CronJob {
    const FAILURE: &'static str = "failed to create cronjob: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let mut object = new("batch/v1", "CronJob", name);
        object["spec"] = json!({
            "schedule": self.schedule,
            "jobTemplate": {"metadata": {"name": name}, "spec": job_spec(name, &self.image, &self.command, &self.restart)},
        });
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_after_their_image() {
        assert_eq!(container_name("registry:5000/team/nginx:1.2"), "nginx");
        assert_eq!(container_name("busybox@sha256:abc"), "busybox");
        assert_eq!(container_name("x/My_App"), "my-app");
    }
}
