//! Repairs differences between allocations and the items that objects hold. They arise from objects of an older
//! version, or from keys that were written past the API.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use quorate_api::{Revision, Status};
use quorate_mvcc::{CommandError, KeyRange, KeyValue, RangeRequest, next_key};
use quorate_registry::pool::{Item, Pooled};
use quorate_store::{Consistency, StoreError};
use serde_json::{Value, json};

use crate::api::Api;
use crate::catalog::Served;
use crate::local::LocalClient;
use crate::pipeline::allocate::{Holder, item, key, rows};
use crate::pipeline::commit::{Effects, Guard, Write, commit};
use crate::user::UserInfo;
use crate::{error, metadata};

/// Number of objects that are read at once.
const PAGE: u64 = 500;

/// A problem with an item of an object, named as in Kubernetes' events.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The object, as an ObjectReference.
    pub regarding: Value,
    pub reason: &'static str,
    pub message: String,
}

/// An item that an object holds.
struct Held {
    item: Item,
    holder: Holder,
    /// The revision of the object.
    revision: Revision,
    regarding: Value,
}

/// Compares all objects with all allocations at one revision. It allocates items that are held but not allocated, fills
/// in missing fields, and releases allocations without a holder. Returns the findings that an operator should see.
///
/// An object and its allocations change in one transaction, so a difference at one revision is not a write in progress.
///
/// # Errors
/// Errors of the store.
pub async fn repair_allocations(api: &Api) -> Result<Vec<Finding>, Status> {
    let store = api.store();
    store.read_barrier().await.map_err(|e| error::from_store(&e))?;
    let revision = store.revision();
    let mut allocations: HashMap<Item, KeyValue> = HashMap::new();
    for kv in rows(store, revision, Consistency::Local).await? {
        if let Some(item) = item(&kv.key) {
            allocations.insert(item, kv);
        }
    }
    let (mut held, mut incomplete) = (Vec::new(), Vec::new());
    let kinds: Vec<_> = api.catalog().rows.iter().filter(|row| row.conversion().is_none()).cloned().collect();
    for served in kinds {
        let Some(pooled) = served.descriptor.strategy.pooled() else { continue };
        collect(api, &served, pooled, revision, &mut held, &mut incomplete).await?;
    }
    let mut findings = reallocate(api, &held, &mut allocations).await?;
    for (resource, namespace, name, regarding) in incomplete {
        let client = LocalClient::new(api.clone(), UserInfo::master("system:apiserver"));
        // Any update allocates the items that an object lacks.
        match client.patch_merge(&resource, namespace.as_deref(), &name, None, json!({})).await {
            Ok(_) => findings.push(Finding {
                regarding,
                reason: "ClusterIPNotAllocated",
                message: "Cluster IP or port is not allocated; repairing".to_owned(),
            }),
            Err(status) => tracing::warn!(name, %status, "a missing address or port cannot be allocated"),
        }
    }
    Ok(findings)
}

/// The resource, namespace and name of an object that lacks an item, and its ObjectReference.
type Incomplete = (quorate_api::GroupVersionResource, Option<String>, String, Value);

/// Reads all objects of a kind at a revision.
async fn collect(
    api: &Api,
    served: &Served,
    pooled: &dyn Pooled,
    revision: Revision,
    held: &mut Vec<Held>,
    incomplete: &mut Vec<Incomplete>,
) -> Result<(), Status> {
    let mut rest = KeyRange::prefix(served.prefix(None));
    loop {
        let request = RangeRequest::new(rest.clone()).at(revision).limit(PAGE);
        let page = match api.store().range(&request, Consistency::Local).await {
            Err(StoreError::Command(CommandError::Compacted { .. })) => {
                return Err(Status::unavailable("the state was compacted while it was read"));
            }
            page => page.map_err(|e| error::from_store(&e))?,
        };
        for kv in &page.kvs {
            let Ok(object) = serde_json::from_slice::<Value>(&kv.value) else {
                tracing::error!(key = %String::from_utf8_lossy(&kv.key), "a stored object cannot be decoded");
                continue;
            };
            let (holder, regarding) = (Holder::new(served, &object), reference(served, &object));
            held.extend(pooled.holds(&object).into_iter().map(|item| Held {
                item,
                holder: holder.clone(),
                revision: kv.mod_revision,
                regarding: regarding.clone(),
            }));
            if pooled.claims(&object, Some(&object)).iter().any(|claim| claim.wanted.is_none()) {
                let namespace = Some(metadata::text(&object, "namespace").to_owned()).filter(|n| !n.is_empty());
                let name = metadata::text(&object, "name").to_owned();
                incomplete.push((served.descriptor.resource.clone(), namespace, name, regarding));
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => rest.start = next_key(&last.key),
            _ => return Ok(()),
        }
        tokio::task::yield_now().await;
    }
}

async fn reallocate(
    api: &Api,
    held: &[Held],
    allocations: &mut HashMap<Item, KeyValue>,
) -> Result<Vec<Finding>, Status> {
    let mut findings = Vec::new();
    let true_holders: HashSet<(Item, &str)> = held.iter().map(|held| (held.item, held.holder.uid.as_str())).collect();
    let holder = |kv: &KeyValue| Holder::decode(&kv.value);
    let is_true =
        |item: Item, kv: &KeyValue| holder(kv).is_some_and(|h| true_holders.contains(&(item, h.uid.as_str())));
    let mut given: HashSet<Item> =
        allocations.iter().filter(|(item, kv)| is_true(**item, kv)).map(|(item, _)| *item).collect();
    for Held { item, holder: own, revision, regarding } in held {
        let finding = |problem: Problem| problem.finding(*item, regarding);
        if !api.pools().contains(*item) {
            findings.push(finding(Problem::OutOfRange));
        }
        let allocation = allocations.get(item);
        if allocation.and_then(holder).as_ref() == Some(own) {
            continue;
        }
        if !given.insert(*item) {
            findings.push(finding(Problem::AlreadyAllocated));
            continue;
        }
        // The item has no holder, or one that no longer exists.
        let allocation_key = Bytes::from(key(*item));
        let before = allocation.map_or(Revision::ZERO, |kv| kv.mod_revision);
        let effects = Effects {
            guards: vec![
                Guard { key: own.object.clone().into(), revision: *revision },
                Guard { key: allocation_key.clone(), revision: before },
            ],
            writes: vec![Write::Put { key: allocation_key, value: own.encode()? }],
            ..Effects::default()
        };
        // If a guard fails, the next run looks at the item again.
        commit(api.store(), &effects).await?;
        allocations.remove(item);
        findings.push(finding(Problem::NotAllocated));
    }
    for (item, kv) in allocations.iter().filter(|(item, _)| !given.contains(item)) {
        tracing::info!(%item, "released an allocation that has no holder");
        let effects = Effects {
            guards: vec![Guard { key: kv.key.clone(), revision: kv.mod_revision }],
            writes: vec![Write::Delete { key: kv.key.clone() }],
            ..Effects::default()
        };
        commit(api.store(), &effects).await?;
    }
    Ok(findings)
}

#[derive(Clone, Copy)]
enum Problem {
    NotAllocated,
    AlreadyAllocated,
    OutOfRange,
}

impl Problem {
    fn finding(self, item: Item, regarding: &Value) -> Finding {
        let (reason, message) = match (item, self) {
            (Item::Address(ip), Problem::NotAllocated) => {
                ("ClusterIPNotAllocated", format!("Cluster IP {ip} is not allocated; repairing"))
            }
            (Item::Address(ip), Problem::AlreadyAllocated) => (
                "ClusterIPAlreadyAllocated",
                format!("Cluster IP {ip} was assigned to multiple services; please recreate service"),
            ),
            (Item::Address(ip), Problem::OutOfRange) => (
                "ClusterIPOutOfRange",
                format!("Cluster IP {ip} is not within any configured block; please recreate service"),
            ),
            (Item::Port(port), Problem::NotAllocated) => {
                ("PortNotAllocated", format!("Port {port} is not allocated; repairing"))
            }
            (Item::Port(port), Problem::AlreadyAllocated) => (
                "PortAlreadyAllocated",
                format!("Port {port} was assigned to multiple services; please recreate service"),
            ),
            (Item::Port(port), Problem::OutOfRange) => {
                ("PortOutOfRange", format!("Port {port} is not within the port range; please recreate service"))
            }
        };
        Finding { regarding: regarding.clone(), reason, message }
    }
}

fn reference(served: &Served, object: &Value) -> Value {
    json!({
        "apiVersion": served.api_version,
        "kind": served.descriptor.kind.kind,
        "namespace": metadata::text(object, "namespace"),
        "name": metadata::text(object, "name"),
        "uid": metadata::text(object, "uid"),
    })
}
