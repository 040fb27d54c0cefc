//! `drain`: cordons nodes and evicts their pods, waiting for disruption budgets.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{CliError, Result};
use crate::path::RequestPath;
use crate::resources::{Resource, SelectFlags, Selected};
use crate::session::Session;
use crate::transport::Call;
use crate::verbs::DryRun;

use super::cordon::{self, NodeFlags};
use super::delete::until_gone;

/// Evict the pods of nodes, for maintenance
#[derive(Debug, clap::Args)]
pub struct Drain {
    #[command(flatten)]
    nodes: NodeFlags,
    /// Skip pods of DaemonSets
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Evict pods even if they have emptyDir volumes, whose data is lost
    #[arg(long, alias = "delete-local-data")]
    delete_emptydir_data: bool,
    /// Evict pods even if no controller replaces them
    #[arg(long)]
    force: bool,
    /// Grace period in seconds; a negative number means the pods' own
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Maximum time of the command; 0 means no limit
    #[arg(long, default_value = "0s", value_parser = crate::duration::parse)]
    timeout: Duration,
    /// Delete pods instead of evicting them, without regard to disruption budgets
    #[arg(long)]
    disable_eviction: bool,
    /// Only pods with these labels
    #[arg(long)]
    pod_selector: Option<String>,
}

/// Delay before an eviction that a disruption budget refused is tried again.
const EVICTION_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Evict,
    /// The pod is evicted with this warning to the user.
    EvictWarning(&'static str),
    Leave,
    LeaveWarning(&'static str),
    Refuse(&'static str),
}

impl Drain {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let (nodes, errors) = self.nodes.select(session).await?;
        CliError::collect(errors)?;
        let pods = session.one_type("pods").await?;
        let deadline = Some(self.timeout)
            .filter(|timeout| !timeout.is_zero())
            .and_then(|timeout| Instant::now().checked_add(timeout));
        for node in &nodes {
            cordon::set(session, node, true, self.nodes.dry_run).await?;
        }
        let (mut errors, mut pending) = (Vec::new(), Vec::new());
        for node in &nodes {
            if let Err(error) = self.node(session, node, &pods, deadline).await {
                session.streams.note(format!(
                    "error: unable to drain node \"{}\" due to error: {}, continuing command...",
                    node.name(),
                    error.report().trim_start_matches("error: ")
                ))?;
                errors.push(error);
                pending.push(format!(" {}", node.name()));
            }
        }
        if !pending.is_empty() {
            session.streams.note(format!("There are pending nodes to be drained:\n{}", pending.join("\n")))?;
        }
        CliError::collect(errors)
    }

    async fn node(
        &self,
        session: &mut Session,
        node: &Selected,
        pods: &Resource,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let flags = SelectFlags {
            field_selector: Some(format!("spec.nodeName={}", node.name())),
            selector: self.pod_selector.clone(),
            ..SelectFlags::default()
        };
        let found = session.list(pods, None, &flags).await?;
        let chosen = self.choose(session, found)?;
        for pod in &chosen {
            session.streams.line(format!(
                "evicting pod {}/{}{}",
                namespace(pod),
                name(pod),
                self.nodes.dry_run.suffix()
            ))?;
        }
        session.streams.flush()?;
        if self.nodes.dry_run == DryRun::None {
            self.evict_all(session, pods, &chosen, deadline).await?;
        }
        session.streams.line(format!("{} drained{}", node.title(), self.nodes.dry_run.suffix()))
    }

    /// Returns the pods to evict. Fails if one of them must not be evicted.
    fn choose(&self, session: &mut Session, pods: Vec<Value>) -> Result<Vec<Value>> {
        let mut chosen = Vec::new();
        let mut notes: Vec<(&'static str, Vec<String>)> = Vec::new();
        let mut refusals: Vec<(&'static str, Vec<String>)> = Vec::new();
        let add = |list: &mut Vec<(&'static str, Vec<String>)>, reason, pod: &Value| {
            let title = format!("{}/{}", namespace(pod), name(pod));
            match list.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, titles)) => titles.push(title),
                None => list.push((reason, vec![title])),
            }
        };
        for pod in pods {
            match self.judge(&pod) {
                Verdict::Evict => chosen.push(pod),
                Verdict::EvictWarning(note) => {
                    add(&mut notes, note, &pod);
                    chosen.push(pod);
                }
                Verdict::Leave => {}
                Verdict::LeaveWarning(note) => add(&mut notes, note, &pod),
                Verdict::Refuse(reason) => add(&mut refusals, reason, &pod),
            }
        }
        let line = |(reason, titles): &(&'static str, Vec<String>)| format!("{reason}: {}", titles.join(", "));
        if !refusals.is_empty() {
            let lines = refusals.iter().map(line).collect::<Vec<_>>();
            let several = lines.len() > 1;
            let lines = lines.join(", ");
            return Err(CliError::usage(if several { format!("[{lines}]") } else { lines }));
        }
        if !notes.is_empty() {
            session.streams.note(format!("Warning: {}", notes.iter().map(line).collect::<Vec<_>>().join("; ")))?;
        }
        Ok(chosen)
    }

    fn judge(&self, pod: &Value) -> Verdict {
        let finished = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
        if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some() {
            return Verdict::Leave;
        }
        let controller = pod["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|owner| owner["controller"] == true)
            .and_then(|owner| owner["kind"].as_str());
        if controller == Some("DaemonSet") && !finished {
            return if self.ignore_daemonsets {
                Verdict::LeaveWarning("ignoring DaemonSet-managed Pods")
            } else {
                Verdict::Refuse("cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)")
            };
        }
        if finished {
            return Verdict::Evict;
        }
        let keeps_data =
            pod["spec"]["volumes"].as_array().into_iter().flatten().any(|volume| volume.get("emptyDir").is_some());
        if keeps_data && !self.delete_emptydir_data {
            return Verdict::Refuse("cannot delete Pods with local storage (use --delete-emptydir-data to override)");
        }
        match controller {
            Some(_) if keeps_data => Verdict::EvictWarning("deleting Pods with local storage"),
            Some(_) => Verdict::Evict,
            None if self.force => Verdict::EvictWarning("deleting Pods that declare no controller"),
            None => Verdict::Refuse("cannot delete Pods that declare no controller (use --force to override)"),
        }
    }

    async fn evict_all(
        &self,
        session: &mut Session,
        pods: &Resource,
        chosen: &[Value],
        deadline: Option<Instant>,
    ) -> Result<()> {
        for pod in chosen {
            self.evict(session, pods, pod, deadline).await?;
        }
        for pod in chosen {
            let (namespace, name) = (namespace(pod), name(pod));
            if !until_gone(session, pods, Some(namespace), name, pod["metadata"]["uid"].as_str(), deadline).await? {
                return Err(CliError::usage(format!(
                    "global timeout reached while waiting for pod {namespace}/{name} to end"
                )));
            }
            session.streams.line(format!("pod/{name} evicted"))?;
            session.streams.flush()?;
        }
        Ok(())
    }

    async fn evict(
        &self,
        session: &mut Session,
        pods: &Resource,
        pod: &Value,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let (namespace, name) = (namespace(pod), name(pod));
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = self.grace_period.into();
        }
        loop {
            let outcome = if self.disable_eviction {
                session.delete(pods, Some(namespace), name, &options, DryRun::None).await
            } else {
                let eviction = json!({
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": name, "namespace": namespace},
                    "deleteOptions": options,
                });
                let path = RequestPath::object(pods, Some(namespace), name).subresource("eviction");
                let mut call = Call::new(Method::POST, path).body(&eviction);
                call.own_backoff = true;
                session.transport.json(&call).await
            };
            match outcome {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(CliError::Server(status)) if status.code == 429 => {
                    session.streams.note(format!(
                        "error when evicting pods/\"{name}\" -n \"{namespace}\" (will retry after {}s): {}",
                        EVICTION_PAUSE.as_secs(),
                        status.message
                    ))?;
                }
                Err(error) => return Err(error.when("evicting", &format!("pods/{name}"))),
            }
            let next = Instant::now() + EVICTION_PAUSE;
            if deadline.is_some_and(|deadline| next > deadline) {
                return Err(CliError::usage(format!(
                    "global timeout reached: pod {namespace}/{name} could not be evicted"
                )));
            }
            tokio::time::sleep_until(next).await;
        }
    }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

fn namespace(pod: &Value) -> &str {
    pod["metadata"]["namespace"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        drain: Drain,
    }

    fn judge(flags: &[&str], pod: &Value) -> Verdict {
        let words = ["drain", "n1"].iter().chain(flags);
        Flags::try_parse_from(words).expect("flags").drain.judge(pod)
    }

    #[test]
    fn pods_that_lose_data_or_are_not_replaced_need_a_flag() {
        let owned = |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}});
        assert_eq!(judge(&[], &owned("ReplicaSet")), Verdict::Evict);
        assert!(matches!(judge(&[], &owned("DaemonSet")), Verdict::Refuse(_)));
        assert!(matches!(judge(&["--ignore-daemonsets"], &owned("DaemonSet")), Verdict::LeaveWarning(_)));
        assert!(matches!(judge(&[], &json!({})), Verdict::Refuse(_)));
        assert!(matches!(judge(&["--force"], &json!({})), Verdict::EvictWarning(_)));
        let mut data = owned("ReplicaSet");
        data["spec"] = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        assert!(matches!(judge(&[], &data), Verdict::Refuse(_)));
        assert!(matches!(judge(&["--delete-emptydir-data"], &data), Verdict::EvictWarning(_)));
        data["status"] = json!({"phase": "Succeeded"});
        assert_eq!(judge(&[], &data), Verdict::Evict);
    }
}
