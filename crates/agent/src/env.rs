//! A container's environment: values, references, and `$(NAME)` in them, in commands and in arguments. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, ResourceFieldSelector, Secret};
use quorate_api::quantity::Quantity;

use crate::cluster::ObjectRef;
use crate::machine::Machine;

/// Why the environment of a container cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{object} not found")]
    Missing { object: ObjectRef },
    #[error("couldn't find key {key} in {object}")]
    MissingKey { key: String, object: ObjectRef },
    #[error("unsupported field reference \"{path}\"")]
    Field { path: String },
    #[error("unsupported resource reference \"{resource}\" of container \"{container}\"")]
    Resource { resource: String, container: String },
    #[error("unsupported source of the variable \"{name}\"")]
    Source { name: String },
}

/// Sources of a pod's environment: the existing ConfigMaps and Secrets that it refers to, and Services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referenced {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    /// The variables that describe Services.
    pub services: BTreeMap<String, String>,
}

impl Referenced {
    /// Returns the entries of an object, or `None` when it does not exist.
    pub(crate) fn entries(&self, object: &ObjectRef) -> Option<BTreeMap<String, Vec<u8>>> {
        match object {
            ObjectRef::ConfigMap { name, .. } => {
                let map = self.config_maps.get(name)?;
                let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
                let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
                Some(text.chain(binary).collect())
            }
            ObjectRef::Secret { name, .. } => {
                let secret = self.secrets.get(name)?;
                Some(secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect())
            }
        }
    }
}

/// The pod and the facts of its node that field and resource references read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub pod: &'a Pod,
    pub pod_ips: &'a [String],
    pub host_ip: &'a str,
    pub machine: &'a Machine,
}

/// Lists the objects that the environment of a container refers to.
pub(crate) fn references(namespace: &str, container: &Container) -> BTreeSet<ObjectRef> {
    let config_map = |name: &str| ObjectRef::ConfigMap { namespace: namespace.to_owned(), name: name.to_owned() };
    let secret = |name: &str| ObjectRef::Secret { namespace: namespace.to_owned(), name: name.to_owned() };
    let mut objects = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        objects.extend(from.config_map_ref.as_ref().map(|source| config_map(&source.name)));
        objects.extend(from.secret_ref.as_ref().map(|source| secret(&source.name)));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        objects.extend(source.config_map_key_ref.as_ref().map(|key| config_map(&key.name)));
        objects.extend(source.secret_key_ref.as_ref().map(|key| secret(&key.name)));
    }
    objects
}

/// Returns the variables of a container. A later variable replaces an earlier one of the same name. Variables of
/// Services come last and only where the container has none of that name, but any variable may refer to them.
pub(crate) fn resolve(
    namespace: &str,
    container: &Container,
    objects: &Referenced,
    facts: Facts<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut variables = Variables::default();
    for from in container.env_from.iter().flatten() {
        let config_map = from.config_map_ref.as_ref().map(|source| {
            (ObjectRef::ConfigMap { namespace: namespace.to_owned(), name: source.name.clone() }, source.optional)
        });
        let secret = from.secret_ref.as_ref().map(|source| {
            (ObjectRef::Secret { namespace: namespace.to_owned(), name: source.name.clone() }, source.optional)
        });
        for (object, optional) in config_map.into_iter().chain(secret) {
            match objects.entries(&object) {
                Some(entries) => {
                    let prefix = from.prefix.as_deref().unwrap_or_default();
                    for (key, value) in entries {
                        variables.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
                    }
                }
                None if optional == Some(true) => {}
                None => return Err(EnvError::Missing { object }),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => from_source(namespace, container, &variable.name, source, objects, facts)?,
            (Some(value), None) => {
                Some(expand_with(value, |name| variables.by_name.get(name).or(objects.services.get(name))))
            }
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            variables.set(variable.name.clone(), value);
        }
    }
    for (name, value) in &objects.services {
        if !variables.by_name.contains_key(name) {
            variables.set(name.clone(), value.clone());
        }
    }
    Ok(variables.in_order())
}

#[derive(Default)]
struct Variables {
    order: Vec<String>,
    by_name: BTreeMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        if self.by_name.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    fn in_order(mut self) -> Vec<(String, String)> {
        let take = |name: String| self.by_name.remove(&name).map(|value| (name, value));
        self.order.into_iter().filter_map(take).collect()
    }
}

fn from_source(
    namespace: &str,
    container: &Container,
    name: &str,
    source: &EnvVarSource,
    objects: &Referenced,
    facts: Facts<'_>,
) -> Result<Option<String>, EnvError> {
    let (object, key, optional) = if let Some(selector) = &source.config_map_key_ref {
        let object = ObjectRef::ConfigMap { namespace: namespace.to_owned(), name: selector.name.clone() };
        (object, &selector.key, selector.optional)
    } else if let Some(selector) = &source.secret_key_ref {
        let object = ObjectRef::Secret { namespace: namespace.to_owned(), name: selector.name.clone() };
        (object, &selector.key, selector.optional)
    } else if let Some(selector) = &source.field_ref {
        return field(&selector.field_path, facts).map(Some);
    } else if let Some(selector) = &source.resource_field_ref {
        return resource(container, selector, facts).map(Some);
    } else {
        return Err(EnvError::Source { name: name.to_owned() });
    };
    let optional = optional == Some(true);
    match objects.entries(&object) {
        None if optional => Ok(None),
        None => Err(EnvError::Missing { object }),
        Some(mut entries) => match entries.remove(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            None if optional => Ok(None),
            None => Err(EnvError::MissingKey { key: key.clone(), object }),
        },
    }
}

/// Returns the value of a field reference of the downward API.
pub(crate) fn field(path: &str, facts: Facts<'_>) -> Result<String, EnvError> {
    let metadata = &facts.pod.metadata;
    let spec = facts.pod.spec.as_ref();
    let lookup = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    let lines = |map: &Option<BTreeMap<String, String>>| {
        let lines: Vec<String> = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
        lines.join("\n")
    };
    if let Some((list, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        match list {
            "metadata.labels" => return Ok(lookup(&metadata.labels, key)),
            "metadata.annotations" => return Ok(lookup(&metadata.annotations, key)),
            _ => {}
        }
    }
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(&metadata.labels),
        "metadata.annotations" => lines(&metadata.annotations),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_owned(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(EnvError::Field { path: path.to_owned() }),
    })
}

/// Returns the value of a resource reference: a limit or request in units of the divisor, rounded up.
pub(crate) fn resource(
    own: &Container,
    selector: &ResourceFieldSelector,
    facts: Facts<'_>,
) -> Result<String, EnvError> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&own.name);
    let unsupported = || EnvError::Resource { resource: selector.resource.clone(), container: name.to_owned() };
    let container = match crate::plan::find_container(facts.pod, name) {
        Some((container, _)) => container,
        None if name == own.name => Cow::Borrowed(own),
        None => return Err(unsupported()),
    };
    let resources = container.resources.as_ref();
    let (which, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let list = match which {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let set = list.and_then(|list| list.get(resource)).and_then(|quantity| Quantity::parse(&quantity.0).ok());
    let milli = match (set, which, resource) {
        (Some(quantity), _, _) => quantity.milli_value(),
        // A container without a limit may use the whole node.
        (None, "limits", "cpu") => i128::from(facts.machine.cpus) * 1000,
        (None, "limits", "memory") => i128::from(facts.machine.memory_bytes) * 1000,
        (None, "limits", "ephemeral-storage") => i128::from(facts.machine.disk_bytes) * 1000,
        (None, "requests", "cpu" | "memory" | "ephemeral-storage") => 0,
        _ => return Err(unsupported()),
    };
    let divisor = selector.divisor.as_ref().and_then(|divisor| Quantity::parse(&divisor.0).ok());
    let divisor = divisor.map_or(1000, |divisor| divisor.milli_value()).max(1);
    let divisor = if selector.divisor.as_ref().is_some_and(|d| d.0 == "0") { 1000 } else { divisor };
    Ok(((milli + divisor - 1) / divisor).to_string())
}

/// Replaces `$(NAME)` by the variable's value and `$$` by a dollar sign. A reference to an unknown variable stays.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    expand_with(text, |name| variables.get(name))
}

fn expand_with<'a>(text: &str, variable: impl Fn(&str) -> Option<&'a String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variable(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests;
