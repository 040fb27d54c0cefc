//! The quotas of a namespace (upstream's ResourceQuota). The usage of an object is written into each quota in the
//! object's own transaction, with a guard on the quota. So a quota is never exceeded, whichever masters write, and its
//! usage is that of the objects at every revision.
//!
//! Deletions are not credited here: the quota controller finds what is no longer used.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use quorate_api::{GroupVersionResource, Status};
use quorate_mvcc::KeyValue;
use quorate_registry::Subresource;
use quorate_registry::quota::{self, Counted, Subject};
use quorate_store::Consistency;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Action, Attributes, policies};
use crate::encode;
use crate::pipeline::commit::{Effects, Guard, Write};

const QUOTAS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "resourcequotas");

/// Charges a write to the quotas of its namespace.
///
/// # Errors
/// `Forbidden` when it does not fit; errors of the store.
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<Effects, Status> {
    let operation = attributes.operation;
    let Some(namespace) = operation.target.namespace.as_deref().filter(|_| is_charged(attributes)) else {
        return Ok(Effects::default());
    };
    let store = operation.api.store();
    let rows = policies::rows(store, &QUOTAS, Some(namespace), Consistency::Local).await?;
    if rows.is_empty() {
        return Ok(Effects::default());
    }
    let write = ChargedWrite::decode(attributes)?;
    let mut turn = None;
    let mut charged = write.charge(attributes, &rows);
    if matches!(&charged, Ok(effects) if operation.is_dry_run || effects.writes.is_empty()) {
        return charged;
    }
    if !operation.is_dry_run {
        turn = Some(operation.api.quota_turns().take(namespace).await);
        // The quotas may have changed while the write waited.
        let rows = policies::rows(store, &QUOTAS, Some(namespace), Consistency::Local).await?;
        charged = write.charge(attributes, &rows);
    }
    if charged.is_err() {
        // This member may lag, so the newest quotas decide.
        let rows = policies::rows(store, &QUOTAS, Some(namespace), Consistency::Linearizable).await?;
        charged = write.charge(attributes, &rows);
    }
    Ok(Effects { turn, ..charged? })
}

/// Returns whether a write can use more of a quota.
fn is_charged(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.resource();
    if quota::is_ignored(&resource.group, &resource.resource) {
        return false;
    }
    match (resource.group.as_ref(), resource.resource.as_ref(), attributes.action, attributes.subresource()) {
        (_, _, Action::Delete, _) => false,
        (_, _, Action::Create, None) => true,
        // The type of a service may change.
        ("", "services", Action::Update, _) => true,
        ("", "persistentvolumeclaims", Action::Update, None | Some(Subresource::Status)) => true,
        ("", "pods", Action::Update, Some(Subresource::Resize)) => true,
        _ => false,
    }
}

/// An object, in the form that quotas count.
enum Object {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    Other,
}

impl Object {
    fn decode(resource: &GroupVersionResource, object: &Value) -> Result<Self, Status> {
        fn typed<T: DeserializeOwned>(object: &Value) -> Result<Box<T>, Status> {
            T::deserialize(object).map(Box::new).map_err(Status::internal)
        }
        match (resource.group.as_ref(), resource.resource.as_ref()) {
            ("", "pods") => typed(object).map(Object::Pod),
            ("", "services") => typed(object).map(Object::Service),
            ("", "persistentvolumeclaims") => typed(object).map(Object::Claim),
            _ => Ok(Object::Other),
        }
    }

    fn counted(&self) -> Counted<'_> {
        match self {
            Object::Pod(pod) => Counted::Pod(pod),
            Object::Service(service) => Counted::Service(service),
            Object::Claim(claim) => Counted::Claim(claim),
            Object::Other => Counted::Other,
        }
    }
}

struct ChargedWrite {
    old: Option<Object>,
    new: Object,
    now: Timestamp,
}

impl ChargedWrite {
    fn decode(attributes: &Attributes<'_>) -> Result<Self, Status> {
        let resource = attributes.resource();
        let old = attributes.old.map(|old| Object::decode(resource, old)).transpose()?;
        Ok(ChargedWrite { old, new: Object::decode(resource, attributes.new)?, now: Timestamp::now() })
    }

    /// Returns the guards on the quotas that count this write, and their new usage.
    fn charge(&self, attributes: &Attributes<'_>, rows: &[KeyValue]) -> Result<Effects, Status> {
        let resource = attributes.resource();
        let new = Subject { group: &resource.group, resource: &resource.resource, object: self.new.counted() };
        let old = self.old.as_ref().map(Object::counted);
        let catalog = attributes.operation.api.catalog();
        let served = catalog.find(&QUOTAS.group, &QUOTAS.version, &QUOTAS.resource)?;
        let is_status = attributes.subresource() == Some(Subresource::Status);
        let mut effects = Effects::default();
        for row in rows {
            let mut stored: Value = policies::decode(&row.value)?;
            let quota = ResourceQuota::deserialize(&stored).map_err(Status::internal)?;
            let used = quota::charge(&quota, new, old, is_status, self.now).map_err(|why| attributes.refuse(&why))?;
            let Some(used) = used else { continue };
            stored["status"]["used"] = json!(used);
            effects.guards.push(Guard { key: row.key.clone(), revision: row.mod_revision });
            effects.writes.push(Write::Put { key: row.key.clone(), value: encode::stored(served, &stored)? });
        }
        Ok(effects)
    }
}
