//! Makes the containers and pods of `debug`. Pure.

use quorate_api::GroupVersionKind;
use quorate_api::patch::strategic;
use serde_json::{Map, Value, json};

use super::profile::{Keep, Profile, Style, push};
use crate::error::{CliError, Result};

const POD: GroupVersionKind = GroupVersionKind::from_static("", "v1", "Pod");

/// The debugging container, as the flags describe it.
#[derive(Debug)]
pub struct Wanted {
    pub image: Option<String>,
    pub command: Vec<String>,
    pub arguments_only: bool,
    pub env: Vec<Value>,
    pub pull_policy: Option<String>,
    pub stdin: bool,
    pub tty: bool,
    pub profile: Profile,
    pub keep: Keep,
    /// A part of a container that is merged into this one.
    pub custom: Option<Value>,
}

/// A copy of a pod.
#[derive(Debug)]
pub struct Copy<'a> {
    pub name: &'a str,
    /// The container to add or change, if any.
    pub container: Option<&'a str>,
    /// Images by container; `*` is all of them.
    pub images: &'a Map<String, Value>,
    pub same_node: bool,
    pub share_processes: Option<bool>,
}

impl Wanted {
    /// Sets the fields that the flags describe.
    fn set(&self, container: &mut Value) {
        if let Some(image) = &self.image {
            container["image"] = image.clone().into();
        }
        if !self.command.is_empty() {
            if self.arguments_only {
                container["args"] = json!(self.command);
            } else {
                container["command"] = json!(self.command);
                if let Some(container) = container.as_object_mut() {
                    container.remove("args");
                }
            }
        }
        if !self.env.is_empty() {
            container["env"] = self.env.clone().into();
        }
        if let Some(policy) = &self.pull_policy {
            container["imagePullPolicy"] = policy.clone().into();
        }
        for (field, value) in [("stdin", self.stdin), ("tty", self.tty)] {
            if value || container.get(field).is_some() {
                container[field] = value.into();
            }
        }
    }

    fn container(&self, name: &str) -> Value {
        let mut container = json!({"name": name, "terminationMessagePolicy": "File"});
        self.set(&mut container);
        container
    }

    /// Applies the profile, and then the user's own part.
    fn finish(&self, pod: &mut Value, list: &str, name: &str, style: Style) -> Result<()> {
        let containers = pod["spec"][list].as_array();
        let index = containers.and_then(|list| list.iter().position(|container| container["name"] == name));
        let index = index.ok_or_else(|| CliError::usage(format!("unable to find the {name} container in the pod")))?;
        self.profile.apply(pod, (list, index), style, self.keep);
        if let Some(custom) = &self.custom {
            let mut part = custom.clone();
            part["name"] = name.into();
            let patch = json!({"spec": {list: [part]}});
            strategic::apply(&POD, pod, &patch)
                .map_err(|error| CliError::usage(format!("the custom profile does not fit: {error}")))?;
        }
        Ok(())
    }

    /// Returns the ephemeral container to add to a pod.
    ///
    /// # Errors
    /// When the user's own part does not fit.
    pub fn ephemeral(&self, pod: &Value, name: &str, target: Option<&str>) -> Result<Value> {
        const LIST: &str = "ephemeralContainers";
        let mut container = self.container(name);
        if let Some(target) = target {
            container["targetContainerName"] = target.into();
        }
        let mut pod = pod.clone();
        push(&mut pod["spec"][LIST], container);
        self.finish(&mut pod, LIST, name, Style::Ephemeral)?;
        let containers = pod["spec"][LIST].as_array_mut();
        let found = containers.and_then(|list| list.iter_mut().find(|container| container["name"] == name));
        found.map(Value::take).ok_or_else(|| CliError::usage(format!("container {name} is missing")))
    }

    /// Returns a copy of a pod.
    ///
    /// # Errors
    /// When the user's own part does not fit.
    pub fn copy(&self, original: &Value, copy: &Copy<'_>) -> Result<Value> {
        let metadata = &original["metadata"];
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": original["spec"],
            "metadata": {"name": copy.name, "namespace": metadata["namespace"]}});
        for field in ["labels", "annotations"] {
            if let Some(entries) = metadata.get(field) {
                pod["metadata"][field] = entries.clone();
            }
        }
        if let Some(spec) = pod["spec"].as_object_mut() {
            spec.remove("ephemeralContainers");
            if !copy.same_node {
                spec.remove("nodeName");
            }
            if let Some(share) = copy.share_processes {
                spec.insert("shareProcessNamespace".to_owned(), share.into());
            }
        }
        for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            if let Some(image) = copy.images.get(name).or_else(|| copy.images.get("*")) {
                container["image"] = image.clone();
            }
        }
        let Some(name) = copy.container else { return Ok(pod) };
        let containers = pod["spec"]["containers"].as_array_mut();
        match containers.and_then(|list| list.iter_mut().find(|container| container["name"] == name)) {
            Some(container) => self.set(container),
            None => push(&mut pod["spec"]["containers"], self.container(name)),
        }
        self.finish(&mut pod, "containers", name, Style::Copy)?;
        Ok(pod)
    }

    /// Returns a pod on a node, which sees the node's own namespaces and files unless the profile forbids it.
    ///
    /// # Errors
    /// When the user's own part does not fit.
    pub fn node(&self, name: &str, node: &str, container: &str) -> Result<Value> {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "qctl-debug"}},
            "spec": {"containers": [self.container(container)], "nodeName": node, "restartPolicy": "Never",
                "tolerations": [{"operator": "Exists"}]},
        });
        self.finish(&mut pod, "containers", container, Style::Node)?;
        Ok(pod)
    }
}

/// Returns the state of a container, if the node has reported one.
pub fn state<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let lists = ["containerStatuses", "ephemeralContainerStatuses", "initContainerStatuses"];
    let mut statuses = lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
    statuses.find(|status| status["name"] == name).map(|status| &status["state"])
}

#[cfg(test)]
mod tests;
