//! `logs`: prints logs of a container, of all containers of a pod, or of the pods of a selector or workload.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::pods::{self, selector_of};
use crate::resources::{Arguments, Resource, SelectFlags, parse_arguments};
use crate::session::Session;
use crate::transport::{ByteStream, Call};

/// Print the logs of containers
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// POD, or TYPE/NAME such as deployment/web, which picks one of its pods
    #[arg(value_name = "POD|TYPE/NAME")]
    target: Option<String>,
    /// The container, also as -c
    #[arg(value_name = "CONTAINER")]
    positional_container: Option<String>,
    /// The pods of this label selector
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// The container
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// All containers of the pods
    #[arg(long)]
    all_containers: bool,
    /// All pods of the workload
    #[arg(long)]
    all_pods: bool,
    /// Follow the logs
    #[arg(short = 'f', long)]
    follow: bool,
    /// Print the log of the previous run of the container
    #[arg(short = 'p', long)]
    previous: bool,
    /// Number of lines to print from the end; -1 prints all
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Print the time of each line
    #[arg(long)]
    timestamps: bool,
    /// Only lines newer than this duration, such as 5m
    #[arg(long, value_parser = crate::duration::parse, conflicts_with = "since_time")]
    since: Option<Duration>,
    /// Only lines after this time (RFC 3339)
    #[arg(long)]
    since_time: Option<String>,
    /// Maximum number of bytes to print
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Print the pod and the container of each line
    #[arg(long)]
    prefix: bool,
    /// Continue if a log fails
    #[arg(long)]
    ignore_errors: bool,
    /// Maximum number of logs that are followed at once
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
}

struct Source {
    pod: String,
    namespace: String,
    container: String,
}

/// Default number of lines of each log with a selector, as in kubectl.
const TAIL_OF_SELECTED: i64 = 10;
const BUFFERED_LINES: usize = 256;

impl Logs {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if self.target.is_some() == self.selector.is_some() {
            return Err(CliError::usage(
                "expected 'logs (POD | TYPE/NAME) [CONTAINER_NAME]' or -l SELECTOR; POD or TYPE/NAME is a required argument for the logs command",
            ));
        }
        let pods_resource = session.one_type("pods").await?;
        let pods = self.pods(session, &pods_resource).await?;
        if pods.is_empty() {
            return session.streams.note(format!("No resources found in {} namespace.", session.namespace));
        }
        let mut sources = Vec::new();
        for pod in &pods {
            self.containers(session, pod, &mut sources)?;
        }
        if self.follow && sources.len() > self.max_log_requests {
            return Err(CliError::usage(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
                sources.len(),
                self.max_log_requests
            )));
        }
        if self.follow && sources.len() > 1 {
            return self.together(session, &pods_resource, sources).await;
        }
        let mut errors = Vec::new();
        for source in &sources {
            if let Err(error) = self.one(session, &pods_resource, source).await {
                if self.ignore_errors {
                    session.streams.note(error.report())?;
                } else if sources.len() == 1 {
                    return Err(error);
                } else {
                    errors.push(error);
                }
            }
        }
        CliError::collect(errors)
    }

    /// Returns the pods whose logs are requested.
    async fn pods(&self, session: &mut Session, pods: &Resource) -> Result<Vec<Value>> {
        let namespace = Some(session.namespace.clone());
        if let Some(selector) = &self.selector {
            let flags = SelectFlags { selector: Some(selector.clone()), ..SelectFlags::default() };
            return session.list(pods, namespace.as_deref(), &flags).await;
        }
        let target = self.target.clone().unwrap_or_default();
        let (resource, name) = match parse_arguments(std::slice::from_ref(&target))? {
            Arguments::Pairs(mut pairs) if pairs.len() == 1 => {
                let (kind, name) = pairs.remove(0);
                (session.one_type(&kind).await?, name)
            }
            _ => (session.one_type("pods").await?, target),
        };
        let object = match session.get(&resource, namespace.as_deref(), &name).await {
            Err(CliError::Server(status)) if status.is_not_found() => {
                return Err(CliError::usage(format!(
                    "error from server (NotFound): {} in namespace \"{}\"",
                    status.message, session.namespace
                )));
            }
            object => object?,
        };
        if resource.is("", "Pod") {
            return Ok(vec![object]);
        }
        let selector = selector_of(&object).ok_or_else(|| {
            CliError::usage(format!("cannot get the logs from {}: it selects no pods", resource.kind_name()))
        })?;
        let flags = SelectFlags { selector: Some(selector), ..SelectFlags::default() };
        let mut found = session.list(pods, namespace.as_deref(), &flags).await?;
        if found.is_empty() {
            return Err(CliError::usage(format!("no pods of {}/{name} exist yet", resource.kind_name())));
        }
        // The oldest running pod comes first, because it has the longest log.
        found.sort_by_key(|pod| {
            let started = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
            (pod["status"]["phase"] != "Running", started)
        });
        if !self.all_pods && found.len() > 1 {
            let first = found[0]["metadata"]["name"].as_str().unwrap_or_default();
            session.streams.note(format!("Found {} pods, using pod/{first}", found.len()))?;
            found.truncate(1);
        }
        Ok(found)
    }

    fn containers(&self, session: &mut Session, pod: &Value, out: &mut Vec<Source>) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let chosen = if self.all_containers {
            pods::container_names(pod)
        } else {
            let wanted = self.container.as_deref().or(self.positional_container.as_deref());
            vec![pods::choose_container(session, pod, wanted, false)?]
        };
        let (pod, namespace) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["namespace"]));
        out.extend(chosen.into_iter().map(|container| Source {
            pod: pod.clone(),
            namespace: namespace.clone(),
            container,
        }));
        Ok(())
    }

    fn call(&self, pods: &Resource, source: &Source) -> Call {
        let tail = self.tail.or(self.selector.as_ref().filter(|_| self.since.is_none()).map(|_| TAIL_OF_SELECTED));
        let path = RequestPath::object(pods, Some(&source.namespace), &source.pod)
            .subresource("log")
            .query("container", &source.container)
            .maybe_query("follow", self.follow.then_some(true))
            .maybe_query("previous", self.previous.then_some(true))
            .maybe_query("timestamps", self.timestamps.then_some(true))
            .maybe_query("tailLines", tail.filter(|lines| *lines >= 0))
            .maybe_query("sinceSeconds", self.since.map(|since| since.as_secs().max(1)))
            .maybe_query("sinceTime", self.since_time.as_ref())
            .maybe_query("limitBytes", self.limit_bytes.filter(|bytes| *bytes > 0));
        Call::get(path).accept("text/plain, application/json, */*")
    }

    fn prefix_of(&self, source: &Source) -> String {
        if self.prefix { format!("[pod/{}/{}] ", source.pod, source.container) } else { String::new() }
    }

    async fn one(&self, session: &mut Session, pods: &Resource, source: &Source) -> Result<()> {
        let mut stream = session.transport.stream(&self.call(pods, source)).await?;
        let prefix = self.prefix_of(source);
        while let Some(line) = stream.line().await? {
            session.streams.text(&prefix)?;
            session.streams.text(&line)?;
            if self.follow {
                session.streams.flush()?;
            }
        }
        Ok(())
    }

    /// Follows several logs at once, line by line.
    async fn together(&self, session: &mut Session, pods: &Resource, sources: Vec<Source>) -> Result<()> {
        let (sender, mut lines) = mpsc::channel::<Result<Vec<u8>>>(BUFFERED_LINES);
        let mut readers = tokio::task::JoinSet::new();
        for source in sources {
            let (call, prefix) = (self.call(pods, &source), self.prefix_of(&source));
            let (transport, sender) = (session.transport.clone(), sender.clone());
            readers.spawn(async move {
                let outcome = match transport.stream(&call).await {
                    Ok(stream) => forward(stream, &prefix, &sender).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = outcome
                    && sender.send(Err(error)).await.is_err()
                {
                    tracing::debug!("the output was closed before a failure could be reported");
                }
            });
        }
        drop(sender);
        while let Some(line) = lines.recv().await {
            match line {
                Ok(line) => {
                    session.streams.text(line)?;
                    session.streams.flush()?;
                }
                Err(error) if self.ignore_errors => session.streams.note(error.report())?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn forward(mut stream: ByteStream, prefix: &str, sender: &mpsc::Sender<Result<Vec<u8>>>) -> Result<()> {
    while let Some(line) = stream.line().await? {
        let mut prefixed = prefix.as_bytes().to_vec();
        prefixed.extend_from_slice(&line);
        if sender.send(Ok(prefixed)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
