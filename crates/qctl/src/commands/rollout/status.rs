//! The progress of a rollout.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::error::{CliError, Result};
use crate::resources::Selected;
use crate::session::Session;
use crate::watch::{Followed, follow};

/// The state of a rollout, with kubectl's message.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Done(String),
    Waiting(String),
    Failed(String),
}

pub async fn run(
    session: &mut Session,
    selected: &Selected,
    watch: bool,
    timeout: Duration,
    revision: i64,
) -> Result<()> {
    let judge = judge_of(selected)?;
    let deadline =
        Some(timeout).filter(|timeout| !timeout.is_zero()).and_then(|timeout| Instant::now().checked_add(timeout));
    let (resource, namespace, name) = (&*selected.resource, selected.namespace(), selected.name());
    let transport = session.transport.clone();
    let streams = &mut session.streams;
    let mut last = String::new();
    let done = follow(&transport, Followed { resource, namespace, name }, deadline, |object| {
        let Some(object) = object else {
            return Err(CliError::usage("object has been deleted"));
        };
        if revision > 0 && revision_of(object) != Some(revision) {
            return Err(CliError::usage(format!(
                "desired revision ({revision}) is different from the running revision ({})",
                revision_of(object).unwrap_or(0)
            )));
        }
        let (text, flow) = match judge(object) {
            Progress::Done(text) => (text, ControlFlow::Break(())),
            Progress::Waiting(text) if watch => (text, ControlFlow::Continue(())),
            Progress::Waiting(text) => (text, ControlFlow::Break(())),
            Progress::Failed(reason) => return Err(CliError::usage(reason)),
        };
        if text != last {
            streams.line(&text)?;
            streams.flush()?;
            last = text;
        }
        Ok(flow)
    })
    .await?;
    if done { Ok(()) } else { Err(CliError::usage("timed out waiting for the condition")) }
}

fn judge_of(selected: &Selected) -> Result<fn(&Value) -> Progress> {
    let resource = &selected.resource;
    if resource.is("apps", "Deployment") {
        Ok(deployment)
    } else if resource.is("apps", "DaemonSet") {
        Ok(daemon_set)
    } else if resource.is("apps", "StatefulSet") {
        Ok(stateful_set)
    } else {
        Err(CliError::usage(format!("no status viewer has been implemented for {}", resource.kind)))
    }
}

/// Returns the revision that the controller has recorded on the object.
pub fn revision_of(object: &Value) -> Option<i64> {
    object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str()?.parse().ok()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn observed(object: &Value) -> bool {
    number(&object["metadata"]["generation"]) <= number(&object["status"]["observedGeneration"])
}

fn deployment(object: &Value) -> Progress {
    let name = name(object);
    if !observed(object) {
        return Progress::Waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let status = &object["status"];
    let exceeded = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded");
    if exceeded {
        return Progress::Failed(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (replicas, updated, available) =
        (number(&status["replicas"]), number(&status["updatedReplicas"]), number(&status["availableReplicas"]));
    let waiting =
        |what: String| Progress::Waiting(format!("Waiting for deployment \"{name}\" rollout to finish: {what}..."));
    if updated < wanted {
        waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if replicas > updated {
        waiting(format!("{} old replicas are pending termination", replicas - updated))
    } else if available < updated {
        waiting(format!("{available} of {updated} updated replicas are available"))
    } else {
        Progress::Done(format!("deployment \"{name}\" successfully rolled out"))
    }
}

fn daemon_set(object: &Value) -> Progress {
    let name = name(object);
    if !observed(object) {
        return Progress::Waiting("Waiting for daemon set spec update to be observed...".to_owned());
    }
    let status = &object["status"];
    let (desired, updated, available) = (
        number(&status["desiredNumberScheduled"]),
        number(&status["updatedNumberScheduled"]),
        number(&status["numberAvailable"]),
    );
    if updated < desired {
        Progress::Waiting(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {updated} out of {desired} new pods have been updated..."
        ))
    } else if available < desired {
        Progress::Waiting(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {available} of {desired} updated pods are available..."
        ))
    } else {
        Progress::Done(format!("daemon set \"{name}\" successfully rolled out"))
    }
}

fn stateful_set(object: &Value) -> Progress {
    if !observed(object) {
        return Progress::Waiting("Waiting for statefulset spec update to be observed...".to_owned());
    }
    let status = &object["status"];
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (number(&status["readyReplicas"]), number(&status["updatedReplicas"]));
    if ready < wanted {
        return Progress::Waiting(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let partition = number(&object["spec"]["updateStrategy"]["rollingUpdate"]["partition"]);
    if partition > 0 {
        if updated < wanted - partition {
            return Progress::Waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                wanted - partition
            ));
        }
        return Progress::Done(format!("partitioned roll out complete: {updated} new pods have been updated..."));
    }
    if status["updateRevision"] != status["currentRevision"] {
        return Progress::Waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
            status["updateRevision"].as_str().unwrap_or_default()
        ));
    }
    Progress::Done(format!(
        "statefulset rolling update complete {wanted} pods at revision {}...",
        status["currentRevision"].as_str().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deployments_report_their_progress() {
        let at = |generation: i64, status: Value| {
            deployment(
                &json!({"metadata": {"name": "web", "generation": generation}, "spec": {"replicas": 3}, "status": status}),
            )
        };
        let waiting = |text: &str| Progress::Waiting(text.to_owned());
        assert_eq!(
            at(2, json!({"observedGeneration": 1})),
            waiting("Waiting for deployment spec update to be observed...")
        );
        assert_eq!(
            at(1, json!({"observedGeneration": 1, "updatedReplicas": 1, "replicas": 3})),
            waiting("Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...")
        );
        assert_eq!(
            at(1, json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 4})),
            waiting("Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...")
        );
        assert_eq!(
            at(1, json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2})),
            waiting("Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...")
        );
        assert_eq!(
            at(1, json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3})),
            Progress::Done("deployment \"web\" successfully rolled out".to_owned())
        );
        let late = json!({"observedGeneration": 1, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
        assert_eq!(at(1, late), Progress::Failed("deployment \"web\" exceeded its progress deadline".to_owned()));
    }
}
