//! Deployments and ReplicaSets.

use serde_json::Value;

use super::{Related, field, items, line, long_time, metadata, or_none, pod_template, scalar, text};

pub fn deployment(object: &Value, related: &Related, out: &mut String) {
    let (spec, status) = (&object["spec"], &object["status"]);
    metadata::name(object, out);
    field(out, 0, "CreationTimestamp", long_time(&object["metadata"]["creationTimestamp"]));
    metadata::labels_and_annotations(object, out);
    field(out, 0, "Selector", metadata::selector(&spec["selector"]));
    let number = |name: &str| status[name].as_i64().unwrap_or(0);
    let replicas = format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        spec["replicas"].as_i64().unwrap_or(1),
        number("updatedReplicas"),
        number("replicas"),
        number("availableReplicas"),
        number("unavailableReplicas"),
    );
    field(out, 0, "Replicas", replicas);
    field(out, 0, "StrategyType", text(&spec["strategy"]["type"]));
    field(out, 0, "MinReadySeconds", spec["minReadySeconds"].as_i64().unwrap_or(0));
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let shown = format!(
            "{} max unavailable, {} max surge",
            scalar(&rolling["maxUnavailable"]),
            scalar(&rolling["maxSurge"])
        );
        field(out, 0, "RollingUpdateStrategy", shown);
    }
    line(out, 0, "Pod Template:");
    pod_template(&spec["template"], out);
    conditions(out, &status["conditions"]);
    let (mut old, mut new) = (Vec::new(), Vec::new());
    let uid = &object["metadata"]["uid"];
    let revision = &object["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
    for set in &related.replica_sets {
        if !items(&set["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == *uid) {
            continue;
        }
        let shown = format!(
            "{} ({}/{} replicas created)",
            text(&set["metadata"]["name"]),
            set["status"]["replicas"].as_i64().unwrap_or(0),
            set["spec"]["replicas"].as_i64().unwrap_or(0),
        );
        let current = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == *revision;
        if current { new.push(shown) } else { old.push(shown) }
    }
    field(out, 0, "OldReplicaSets", or_none(&old.join(", ")));
    field(out, 0, "NewReplicaSet", or_none(&new.join(", ")));
}

pub fn replica_set(object: &Value, related: &Related, out: &mut String) {
    let (spec, status) = (&object["spec"], &object["status"]);
    metadata::name(object, out);
    field(out, 0, "Selector", metadata::selector(&spec["selector"]));
    metadata::labels_and_annotations(object, out);
    if let Some(controller) = metadata::controller(object) {
        field(out, 0, "Controlled By", controller);
    }
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    field(
        out,
        0,
        "Replicas",
        format!("{} current / {} desired", number(&status["replicas"]), number(&spec["replicas"])),
    );
    let uid = &object["metadata"]["uid"];
    let owned: Vec<&Value> = related
        .pods
        .iter()
        .filter(|pod| items(&pod["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == *uid))
        .collect();
    let count = |phase: &str| owned.iter().filter(|pod| pod["status"]["phase"] == phase).count();
    let shown = format!(
        "{} Running / {} Waiting / {} Succeeded / {} Failed",
        count("Running"),
        count("Pending"),
        count("Succeeded"),
        count("Failed"),
    );
    field(out, 0, "Pods Status", shown);
    line(out, 0, "Pod Template:");
    pod_template(&spec["template"], out);
    conditions(out, &status["conditions"]);
}

fn conditions(out: &mut String, conditions: &Value) {
    if items(conditions).next().is_none() {
        return;
    }
    line(out, 0, "Conditions:");
    line(out, 1, "Type\tStatus\tReason");
    line(out, 1, "----\t------\t------");
    for condition in items(conditions) {
        let row = [&condition["type"], &condition["status"], &condition["reason"]].map(text).join("\t");
        line(out, 1, &row);
    }
}
