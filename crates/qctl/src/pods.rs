//! The pod that a command line means, `POD` or `TYPE/NAME`, and its container.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::path::RequestPath;
use crate::resources::{Resource, SelectFlags, Selected, objects, select};
use crate::session::Session;
use crate::transport::Call;
use crate::watch::Watch;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod to connect to.
pub struct Found {
    /// The resource `pods`.
    pub resource: Arc<Resource>,
    /// The object that the user named: the pod, or a workload or Service that selects it.
    pub named: Selected,
    pub pod: Value,
}

impl Found {
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(&self.pod)
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        self.pod["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    #[must_use]
    pub fn phase(&self) -> &str {
        self.pod["status"]["phase"].as_str().unwrap_or_default()
    }

    /// Checks that the pod has not ended. `doing` is what a container cannot be used for otherwise, such as `exec into`.
    ///
    /// # Errors
    /// When all containers have ended for good.
    pub fn must_not_be_completed(&self, doing: &str) -> Result<()> {
        match self.phase() {
            phase @ ("Succeeded" | "Failed") => {
                Err(CliError::usage(format!("cannot {doing} a container in a completed pod; current phase is {phase}")))
            }
            _ => Ok(()),
        }
    }

    /// Returns the path of a subresource of the pod.
    #[must_use]
    pub fn path(&self, subresource: &str) -> RequestPath {
        RequestPath::object(&self.resource, Some(self.namespace()), self.name()).subresource(subresource)
    }

    /// Returns the path of a command in a container.
    #[must_use]
    pub fn exec(&self, container: &str, words: &[String]) -> RequestPath {
        let path = self.path("exec").query("container", container);
        words.iter().fold(path, |path, word| path.query("command", word))
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Finds the pod of `POD`, `TYPE/NAME`, `TYPE NAME` or `-f`. For a workload or Service it is the best of its pods; the
/// first one is waited for.
///
/// # Errors
/// When the object does not exist, selects no pods, or none appears in time.
pub async fn find(session: &mut Session, arguments: &[String], files: &FileFlags, patience: Duration) -> Result<Found> {
    let resource = session.one_type("pods").await?;
    let arguments = match arguments {
        [one] if !one.contains('/') => vec![format!("pods/{one}")],
        others => others.to_vec(),
    };
    let targets = select(session, &arguments, files, &SelectFlags::default()).await?;
    let [target] = targets.as_slice() else {
        return Err(CliError::usage("name one pod, or one workload or service whose pod is meant"));
    };
    if target.name.is_none() {
        return Err(CliError::usage("expected POD, TYPE/NAME or TYPE NAME"));
    }
    let (mut found, mut errors) = objects(session, &targets, &SelectFlags::default()).await?;
    let named = match (found.pop(), errors.pop()) {
        (Some(named), _) => named,
        (None, Some(error)) => return Err(error),
        (None, None) => return Err(CliError::usage("the object does not exist")),
    };
    let pod = if named.resource.is("", "Pod") {
        named.object.clone()
    } else {
        selected_by(session, &resource, &named, patience).await?
    };
    Ok(Found { resource, named, pod })
}

async fn selected_by(session: &Session, pods: &Resource, owner: &Selected, patience: Duration) -> Result<Value> {
    let title = owner.title();
    let selector = selector_of(&owner.object)
        .ok_or_else(|| CliError::usage(format!("cannot connect to {title}: it selects no pods; name a pod instead")))?;
    let flags = SelectFlags { selector: Some(selector), ..SelectFlags::default() };
    let (listed, version) = session.list_versioned(pods, owner.namespace(), &flags, crate::verbs::CHUNK).await?;
    if let Some(best) = listed.into_iter().max_by(better) {
        return Ok(best);
    }
    let path = flags.query(RequestPath::collection(pods, owner.namespace()));
    let late = || {
        let seconds = patience.as_secs();
        CliError::usage(format!(
            "timed out after {seconds} s waiting for a pod of {title}; `qctl describe {title}` may show the reason"
        ))
    };
    let first = async {
        let mut watch = Watch::start(&session.transport, path, &version, None).await?;
        while let Some(event) = watch.next().await? {
            if matches!(event.kind.as_str(), "ADDED" | "MODIFIED") {
                return Ok(event.object);
            }
        }
        Err(late())
    };
    tokio::time::timeout(patience, first).await.map_err(|_| late())?
}

/// Orders pods by how well a user can connect to them: assigned, running, ready, and the oldest of these.
fn better(left: &Value, right: &Value) -> std::cmp::Ordering {
    let quality = |pod: &Value| {
        let phase = match pod["status"]["phase"].as_str() {
            Some("Running") => 2,
            Some("Pending") => 0,
            _ => 1,
        };
        let conditions = pod["status"]["conditions"].as_array();
        let is_ready = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        (pod["spec"]["nodeName"].is_string(), phase, is_ready)
    };
    let created = |pod: &Value| pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    quality(left).cmp(&quality(right)).then_with(|| created(right).cmp(&created(left)))
}

/// Prints the log at this path until the container ends.
///
/// # Errors
/// When the server refuses the request or the connection breaks.
pub async fn follow_log(session: &mut Session, path: RequestPath) -> Result<()> {
    let call = Call::get(path.query("follow", true)).accept("text/plain, application/json, */*");
    let mut log = session.transport.stream(&call).await?;
    while let Some(line) = log.line().await? {
        session.streams.text(line)?;
        session.streams.flush()?;
    }
    Ok(())
}

/// Returns the label selector of a workload or Service as a query.
#[must_use]
pub fn selector_of(object: &Value) -> Option<String> {
    let selector = &object["spec"]["selector"];
    let labels = selector.get("matchLabels").or_else(|| {
        // The selector of a Service or ReplicationController is a plain map of labels.
        selector.as_object().filter(|fields| fields.values().all(Value::is_string)).map(|_| selector)
    });
    let mut terms: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!terms.is_empty()).then(|| terms.join(","))
}

/// The lists of a pod's containers, with kubectl's mark of their names.
const LISTS: [(&str, &str); 3] =
    [("containers", ""), ("ephemeralContainers", " (ephem)"), ("initContainers", " (init)")];

/// Returns a container of a pod, and the list that has it.
#[must_use]
pub fn container<'a>(pod: &'a Value, name: &str) -> Option<(&'a Value, &'static str)> {
    LISTS.iter().find_map(|(list, _)| {
        let containers = pod["spec"][*list].as_array()?;
        Some((containers.iter().find(|container| container["name"] == name)?, *list))
    })
}

/// Returns the names of all containers in the order of [`LISTS`], without marks.
#[must_use]
pub fn container_names(pod: &Value) -> Vec<String> {
    LISTS.iter().flat_map(|(list, _)| names_in(pod, list)).map(str::to_owned).collect()
}

fn names_in<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    pod["spec"][list].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str())
}

/// Returns the wanted container, or the default one, which is announced if there are others.
///
/// # Errors
/// When the pod has no such container.
pub fn choose_container(session: &mut Session, pod: &Value, wanted: Option<&str>, quiet: bool) -> Result<String> {
    let all = || {
        let marked = LISTS.iter().flat_map(|(list, mark)| names_in(pod, list).map(move |name| format!("{name}{mark}")));
        marked.collect::<Vec<_>>().join(", ")
    };
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str().filter(|name| !name.is_empty());
    if let Some(name) = wanted.or(annotated) {
        if container(pod, name).is_none() {
            let pod = name_of(pod);
            return Err(CliError::usage(format!("container {name} is not valid for pod {pod} out of: {}", all())));
        }
        return Ok(name.to_owned());
    }
    let first = names_in(pod, "containers").next();
    let first = first.ok_or_else(|| CliError::usage(format!("pod {} has no containers", name_of(pod))))?;
    if !quiet && container_names(pod).len() > 1 {
        session.streams.note(format!("Defaulted container \"{first}\" out of: {}", all()))?;
    }
    Ok(first.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_of_workloads_become_queries() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector_of(&deployment).as_deref(), Some("app=web,tier in (a,b),!x"));
        assert_eq!(selector_of(&json!({"spec": {"selector": {"a": "b"}}})).as_deref(), Some("a=b"));
        assert_eq!(selector_of(&json!({"spec": {}})), None);
    }

    #[test]
    fn the_oldest_ready_pod_is_the_best() {
        let pod = |name: &str, phase: &str, ready: &str, created: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"nodeName": "n"},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let pods = [
            pod("young", "Running", "True", "2026-01-02T00:00:00Z"),
            pod("old", "Running", "True", "2026-01-01T00:00:00Z"),
            pod("older", "Running", "False", "2025-01-01T00:00:00Z"),
            pod("ended", "Failed", "False", "2024-01-01T00:00:00Z"),
            json!({"metadata": {"name": "waits"}, "spec": {}, "status": {"phase": "Pending"}}),
        ];
        let best = pods.iter().cloned().max_by(better).expect("pods");
        assert_eq!(name_of(&best), "old");
    }
}
