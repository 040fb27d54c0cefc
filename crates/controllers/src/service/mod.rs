//! The backends of a Service, in both forms that clients read: one Endpoints object, and EndpointSlices.
//!
//! The endpoints of a Service without a selector belong to their author and are left alone.

mod backend;
pub(crate) mod endpoints;
pub(crate) mod slices;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};

use crate::cache::{Cache, Change, Object};
use crate::controller::WorkKey;
use crate::pod_state::{is_ready, is_terminal, is_terminating, labels, node_name};
use crate::resource::{name, namespace};

/// Label on the endpoints of a service that has no cluster IP.
const HEADLESS: &str = "service.kubernetes.io/headless";

fn all_keys(cache: &Cache) -> Vec<WorkKey> {
    cache.services().iter().map(|service| key_of(service)).collect()
}

fn key_of(service: &Service) -> WorkKey {
    WorkKey::namespaced(namespace(&service.metadata), name(&service.metadata))
}

/// Returns the services that a changed service or pod affects. For a pod, these are the services that select it now or
/// did before.
fn triggers(cache: &Cache, change: &Change) -> Vec<WorkKey> {
    let old = change.old.as_ref().map(|old| &old.object);
    let new = change.new.as_ref().map(|new| &new.object);
    if let (Some(Object::Pod(old)), Some(Object::Pod(new))) = (old, new)
        && is_same_endpoint(old, new)
    {
        return Vec::new();
    }
    let mut keys = Vec::new();
    for object in old.into_iter().chain(new) {
        match object {
            Object::Service(service) => keys.push(key_of(service)),
            Object::Pod(pod) => {
                let services = cache.services_selecting(namespace(&pod.metadata), labels(pod));
                keys.extend(services.into_iter().map(|service| key_of(service)));
            }
            _ => {}
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Returns whether two states of a pod give the same endpoint.
fn is_same_endpoint(a: &Pod, b: &Pod) -> bool {
    let ips = |pod: &Pod| {
        let status = pod.status.as_ref();
        (status.and_then(|status| status.pod_ip.clone()), status.and_then(|status| status.pod_ips.clone()))
    };
    a.metadata.uid == b.metadata.uid
        && labels(a) == labels(b)
        && is_ready(a) == is_ready(b)
        && is_terminal(a) == is_terminal(b)
        && is_terminating(a) == is_terminating(b)
        && node_name(a) == node_name(b)
        && ips(a) == ips(b)
}

/// Returns the selector of a service whose endpoints these controllers manage.
fn managed_selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") || service.metadata.deletion_timestamp.is_some() {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Returns the labels for a service's endpoints: the service's own labels and `own`.
fn labels_for(service: &Service, own: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.extend(own.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())));
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

#[cfg(test)]
mod tests;
