//! The profiles of `debug`: what the debugging container may do, and what a copy keeps. Pure.

use serde_json::{Value, json};

/// A set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    Legacy,
    General,
    Baseline,
    Restricted,
    Netadmin,
    Sysadmin,
}

/// What is debugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Ephemeral,
    Copy,
    Node,
}

/// What a copy keeps of its original.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    pub labels: bool,
    pub annotations: bool,
    pub liveness: bool,
    pub readiness: bool,
    pub startup: bool,
    pub init_containers: bool,
}

impl Profile {
    /// Changes the pod, of which `list[index]` is the debugging container.
    pub fn apply(self, pod: &mut Value, (list, index): (&str, usize), style: Style, keep: Keep) {
        if style == Style::Copy {
            if self == Profile::Legacy {
                remove(&mut pod["metadata"], "labels");
            } else {
                strip(pod, keep);
            }
        }
        let on_node = style == Style::Node;
        if on_node && matches!(self, Profile::Legacy | Profile::General | Profile::Sysadmin) {
            mount_root(pod, (list, index));
        }
        if on_node && !matches!(self, Profile::Baseline | Profile::Restricted) {
            for field in ["hostNetwork", "hostPID", "hostIPC"] {
                pod["spec"][field] = true.into();
            }
        }
        let container = &mut pod["spec"][list][index];
        match self {
            Profile::Legacy => {}
            Profile::General if on_node => remove(container, "securityContext"),
            Profile::General => add_capabilities(container, &["SYS_PTRACE"]),
            Profile::Baseline => remove(container, "securityContext"),
            Profile::Restricted => {
                container["securityContext"] = json!({
                    "runAsNonRoot": true,
                    "capabilities": {"drop": ["ALL"]},
                    "allowPrivilegeEscalation": false,
                    "seccompProfile": {"type": "RuntimeDefault"},
                });
            }
            Profile::Netadmin => add_capabilities(container, &["NET_ADMIN", "NET_RAW"]),
            Profile::Sysadmin => container["securityContext"]["privileged"] = true.into(),
        }
        let shares = style == Style::Copy && self != Profile::Legacy;
        if shares && pod["spec"]["shareProcessNamespace"].is_null() {
            pod["spec"]["shareProcessNamespace"] = true.into();
        }
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

fn strip(pod: &mut Value, keep: Keep) {
    for (kept, field) in [(keep.labels, "labels"), (keep.annotations, "annotations")] {
        if !kept {
            remove(&mut pod["metadata"], field);
        }
    }
    if !keep.init_containers {
        remove(&mut pod["spec"], "initContainers");
    }
    let probes = [(keep.liveness, "livenessProbe"), (keep.readiness, "readinessProbe"), (keep.startup, "startupProbe")];
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        for (_, field) in probes.iter().filter(|(kept, _)| !kept) {
            remove(container, field);
        }
    }
}

fn mount_root(pod: &mut Value, (list, index): (&str, usize)) {
    push(&mut pod["spec"]["volumes"], json!({"name": "host-root", "hostPath": {"path": "/"}}));
    push(&mut pod["spec"][list][index]["volumeMounts"], json!({"name": "host-root", "mountPath": "/host"}));
}

/// Appends to a list that may not exist yet.
pub fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

fn add_capabilities(container: &mut Value, capabilities: &[&str]) {
    for capability in capabilities {
        push(&mut container["securityContext"]["capabilities"]["add"], (*capability).into());
    }
}
