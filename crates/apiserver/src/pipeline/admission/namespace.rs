//! The life of namespaces: nothing new in a namespace that ends or does not exist (upstream's NamespaceLifecycle).

use quorate_api::{Cause, Status, StatusDetails};
use quorate_store::Consistency;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Action, Attributes, NAMESPACES, SYSTEM_NAMESPACES, policies};
use crate::pipeline::commit::{Effects, Guard};
use crate::pipeline::read;

/// Refuses the deletion of the system's namespaces.
///
/// # Errors
/// `Forbidden`.
pub(super) fn protect(attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_deletion = attributes.action == Action::Delete;
    if is_deletion && *attributes.resource() == NAMESPACES && SYSTEM_NAMESPACES.contains(&attributes.name()) {
        return Err(attributes.refuse("this namespace may not be deleted"));
    }
    Ok(())
}

/// Refuses creations in a namespace that does not exist or is being deleted. The guard keeps the namespace as it is until
/// the commit.
///
/// # Errors
/// `NotFound`, `Forbidden`; errors of the store.
pub(super) async fn lifecycle(attributes: &Attributes<'_>) -> Result<Effects, Status> {
    let operation = attributes.operation;
    let Some(namespace) = operation.target.namespace.as_ref().filter(|_| attributes.action == Action::Create) else {
        return Ok(Effects::default());
    };
    let served = operation.api.catalog().find("", "v1", &NAMESPACES.resource).cloned()?;
    let key = served.key(None, namespace);
    let store = operation.api.store();
    let mut found = read::key(store, &key, Consistency::Local).await?;
    let may_lag = found.as_ref().map_or(Ok(true), |kv| is_terminating(&kv.value))?;
    if may_lag {
        // This member may lag, so an absent namespace is read again linearizably.
        found = read::key(store, &key, Consistency::Linearizable).await?;
    }
    let found = found.ok_or_else(|| Status::not_found(&NAMESPACES, namespace))?;
    if is_terminating(&found.value)? {
        return Err(terminating(attributes, namespace));
    }
    let unchanged = Guard { key: found.key, revision: found.mod_revision };
    Ok(Effects { guards: vec![unchanged], ..Effects::default() })
}

fn is_terminating(namespace: &[u8]) -> Result<bool, Status> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        deletion_timestamp: Option<IgnoredAny>,
    }
    Ok(policies::decode::<Object>(namespace)?.metadata.deletion_timestamp.is_some())
}

fn terminating(attributes: &Attributes<'_>, namespace: &str) -> Status {
    let resource = attributes.resource();
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let cause = Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    };
    attributes.refuse(&why).with_details(StatusDetails {
        name: attributes.name().to_owned(),
        group: resource.group.to_string(),
        kind: resource.resource.to_string(),
        causes: vec![cause],
        ..StatusDetails::default()
    })
}
