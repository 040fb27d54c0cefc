//! The objects that every cluster has from the beginning.

use quorate_api::{GroupVersionResource, Reason, Status};
use quorate_registry::priority::{SYSTEM_CLASSES, SystemClass};
use serde_json::{Value, json};

use crate::api::Api;
use crate::local::LocalClient;
use crate::pipeline::admission::priority::PRIORITY_CLASSES;
use crate::pipeline::admission::{NAMESPACES, SYSTEM_NAMESPACES};
use crate::user::UserInfo;

const SERVICE_ACCOUNTS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "serviceaccounts");

/// Creates the system's namespaces, their default service accounts and the system's priority classes. Existing objects stay as they are, so each new
/// leader can run it.
///
/// # Errors
/// The first error other than `AlreadyExists`.
pub async fn bootstrap(api: &Api) -> Result<(), Status> {
    let client = LocalClient::new(api.clone(), UserInfo::master("system:apiserver"));
    for name in SYSTEM_NAMESPACES {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        ensure(&client, &NAMESPACES, None, namespace).await?;
    }
    for namespace in SYSTEM_NAMESPACES {
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        ensure(&client, &SERVICE_ACCOUNTS, Some(namespace), account).await?;
    }
    for SystemClass { name, value, description } in SYSTEM_CLASSES {
        let class = json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
            "value": value, "description": description });
        ensure(&client, &PRIORITY_CLASSES, None, class).await?;
    }
    Ok(())
}

async fn ensure(
    client: &LocalClient,
    resource: &GroupVersionResource,
    namespace: Option<&str>,
    object: Value,
) -> Result<(), Status> {
    if !client.serves(resource) {
        return Ok(());
    }
    match client.create(resource, namespace, object).await {
        Err(status) if status.reason != Reason::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}
