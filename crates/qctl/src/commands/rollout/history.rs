//! The revisions of a Deployment, which its ReplicaSets keep, and the return to one of them.

use serde_json::{Value, json};

use crate::describe::pod_template;
use crate::error::{CliError, Result};
use crate::output::{TablePrinter, align};
use crate::resources::{SelectFlags, Selected};
use crate::session::Session;
use crate::verbs::{DryRun, PatchType};

use super::status::revision_of;

const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
/// Label that the controller adds to each ReplicaSet's template, and that is not part of the Deployment's template.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Returns the ReplicaSets that the Deployment owns, ordered by revision.
async fn revisions(session: &mut Session, selected: &Selected) -> Result<Vec<(i64, Value)>> {
    if !selected.resource.is("apps", "Deployment") {
        return Err(CliError::usage(format!("no history viewer has been implemented for {}", selected.resource.kind)));
    }
    let replica_sets = session.one_type("replicasets.apps").await?;
    let flags = SelectFlags { selector: crate::pods::selector_of(&selected.object), ..SelectFlags::default() };
    let found = session.list(&replica_sets, selected.namespace(), &flags).await?;
    let uid = &selected.object["metadata"]["uid"];
    let mut revisions: Vec<(i64, Value)> = found
        .into_iter()
        .filter(|set| {
            set["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["uid"] == *uid)
        })
        .filter_map(|set| Some((revision_of(&set)?, set)))
        .collect();
    revisions.sort_by_key(|(revision, _)| *revision);
    Ok(revisions)
}

pub async fn show(session: &mut Session, selected: &Selected, revision: i64) -> Result<()> {
    let revisions = revisions(session, selected).await?;
    if revision > 0 {
        let set = find(&revisions, revision).map_err(|_| CliError::usage("unable to find the specified revision"))?;
        let mut text = format!("{} with revision #{revision}\nPod Template:\n", selected.title());
        pod_template(&set["spec"]["template"], &mut text);
        return session.streams.text(align(&text, 2));
    }
    let rows: Vec<Vec<String>> = revisions
        .iter()
        .map(|(revision, set)| {
            let cause = set["metadata"]["annotations"][CHANGE_CAUSE].as_str().unwrap_or("<none>");
            vec![revision.to_string(), cause.to_owned()]
        })
        .collect();
    session.streams.line(format!("{} ", selected.title()))?;
    let headers = ["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()];
    let text = TablePrinter::default().rows(&headers, &rows, false);
    session.streams.text(text)?;
    session.streams.line("")
}

fn find(revisions: &[(i64, Value)], wanted: i64) -> Result<&Value> {
    revisions
        .iter()
        .find(|(revision, _)| *revision == wanted)
        .map(|(_, set)| set)
        .ok_or_else(|| CliError::usage(format!("unable to find specified revision {wanted} in history")))
}

pub async fn undo(session: &mut Session, selected: &Selected, to_revision: i64, dry_run: DryRun) -> Result<()> {
    if selected.object["spec"]["paused"] == true {
        return Err(CliError::usage(format!(
            "you cannot rollback a paused deployment; resume it first with 'qctl rollout resume {}' and try again",
            selected.title()
        )));
    }
    let revisions = revisions(session, selected).await?;
    let set = if to_revision > 0 {
        find(&revisions, to_revision)?
    } else {
        let previous = revisions.len().checked_sub(2).and_then(|at| revisions.get(at));
        previous.map(|(_, set)| set).ok_or_else(|| {
            CliError::usage(format!(
                "no rollout history found for {} \"{}\"",
                selected.resource.singular,
                selected.name()
            ))
        })?
    };
    let template = without_hash(&set["spec"]["template"]);
    if template == without_hash(&selected.object["spec"]["template"]) {
        let revision = revision_of(set).unwrap_or(to_revision);
        return session.streams.line(format!(
            "{} skipped rollback (current template already matches revision {revision})",
            selected.title()
        ));
    }
    if dry_run != DryRun::Client {
        let mut operations = vec![json!({"op": "replace", "path": "/spec/template", "value": template})];
        if let Some(annotations) = restored_annotations(&selected.object, set) {
            operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
        }
        let (resource, namespace) = (&selected.resource, selected.namespace());
        session.patch(resource, namespace, selected.name(), &operations.into(), PatchType::Json, dry_run).await?;
    }
    session.streams.line(format!("{} rolled back{}", selected.title(), dry_run.suffix()))
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"].get_mut("labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    if let Some(metadata) = template["metadata"].as_object_mut() {
        metadata.remove("creationTimestamp");
    }
    template
}

/// Returns the annotations of the Deployment with the change cause of the old revision.
fn restored_annotations(deployment: &Value, set: &Value) -> Option<Value> {
    let mut annotations = deployment["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let old = set["metadata"]["annotations"].get(CHANGE_CAUSE);
    let changed = match old {
        Some(cause) => annotations.insert(CHANGE_CAUSE.to_owned(), cause.clone()).as_ref() != Some(cause),
        None => annotations.remove(CHANGE_CAUSE).is_some(),
    };
    changed.then_some(Value::Object(annotations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_compared_without_the_labels_of_controllers() {
        let set = json!({"metadata": {"labels": {"app": "w", "pod-template-hash": "x"}, "creationTimestamp": null}, "spec": {"a": 1}});
        let own = json!({"metadata": {"labels": {"app": "w"}}, "spec": {"a": 1}});
        assert_eq!(without_hash(&set), without_hash(&own));
    }

    #[test]
    fn the_change_cause_follows_the_revision() {
        let deployment = json!({"metadata": {"annotations": {"x": "y", "kubernetes.io/change-cause": "new"}}});
        let set = json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "old"}}});
        assert_eq!(
            restored_annotations(&deployment, &set),
            Some(json!({"x": "y", "kubernetes.io/change-cause": "old"}))
        );
        assert_eq!(restored_annotations(&set, &set), None);
    }
}
