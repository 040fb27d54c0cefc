//! Namespaces are emptied and garbage is collected for every served kind, also for those that no controller knows.

use quorate_api::ObjectKey;
use quorate_manager::ManagerConfig;
use quorate_registry::{Descriptor, Scope, Verb, builtin};
use serde_json::{Value, json};

use crate::harness::{Cluster, NAMESPACES};

/// Returns the kinds whose objects can be deleted.
fn deletable() -> Vec<Descriptor> {
    let rows: Vec<Descriptor> = builtin().into_iter().filter(|row| row.verbs.contains(&Verb::Delete)).collect();
    assert!(rows.len() > 50, "{} kinds", rows.len());
    rows
}

/// The objects of a test: one of each kind, with the same name.
struct Objects<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    name: &'a str,
}

impl Objects<'_> {
    fn namespace_of(&self, row: &Descriptor) -> Option<String> {
        (row.scope == Scope::Namespaced).then(|| self.namespace.to_owned())
    }

    fn uid(&self, row: &Descriptor) -> String {
        format!("{}-{}", self.name, row.resource)
    }

    /// Stores an object without content. The kinds' rules do not matter here.
    async fn store(&self, row: &Descriptor, owner: Option<Value>) {
        let key = ObjectKey {
            group: row.resource.group.to_string(),
            resource: row.resource.resource.to_string(),
            namespace: self.namespace_of(row),
            name: self.name.to_owned(),
        };
        let mut object = json!({
            "apiVersion": row.kind.api_version(), "kind": row.kind.kind,
            "metadata": {"name": self.name, "uid": self.uid(row), "creationTimestamp": "2026-01-01T00:00:00Z"},
        });
        if let Some(namespace) = &key.namespace {
            object["metadata"]["namespace"] = namespace.as_str().into();
        }
        if let Some(owner) = owner {
            object["metadata"]["ownerReferences"] = json!([owner]);
        }
        self.cluster.write_past_the_api(&key.storage_key(), &object).await;
    }

    fn reference(&self, row: &Descriptor) -> Value {
        json!({
            "apiVersion": row.kind.api_version(), "kind": row.kind.kind, "name": self.name, "uid": self.uid(row),
        })
    }

    fn exists(&self, row: &Descriptor) -> bool {
        self.cluster.object(&row.resource, self.namespace_of(row).as_deref(), self.name).is_some()
    }

    async fn delete(&self, row: &Descriptor) {
        let namespace = self.namespace_of(row);
        let deleted = self.cluster.client.delete(&row.resource, namespace.as_deref(), self.name, json!({})).await;
        deleted.unwrap_or_else(|status| panic!("{}: {status}", row.kind));
    }

    async fn wait_until_gone(&self, rows: &[Descriptor]) {
        for row in rows {
            let what = format!("{} of the kind {} to be deleted", self.name, row.kind);
            self.cluster.wait(&what, || !self.exists(row)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_namespace_takes_its_objects_of_every_kind_along() {
    let (cluster, master) = Cluster::led(ManagerConfig::default()).await;
    cluster.client.create(&NAMESPACES, None, json!({"metadata": {"name": "team"}})).await.expect("created");
    let rows: Vec<Descriptor> = deletable().into_iter().filter(|row| row.scope == Scope::Namespaced).collect();
    let inside = Objects { cluster: &cluster, namespace: "team", name: "a" };
    let outside = Objects { cluster: &cluster, namespace: "default", name: "a" };
    for row in &rows {
        inside.store(row, None).await;
        outside.store(row, None).await;
    }
    cluster.client.delete(&NAMESPACES, None, "team", json!({})).await.expect("the deletion begins");
    cluster.wait("the namespace to be gone", || cluster.object(&NAMESPACES, None, "team").is_none()).await;
    for row in &rows {
        assert!(!inside.exists(row), "{} is left", row.kind);
        assert!(outside.exists(row), "{} was in another namespace", row.kind);
    }
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_kind_go_with_their_owner() {
    let (cluster, master) = Cluster::led(ManagerConfig::default()).await;
    let rows = deletable();
    let class = rows.iter().find(|row| row.kind.kind == "PriorityClass").expect("a cluster-scoped kind");
    let owner = Objects { cluster: &cluster, namespace: "default", name: "owner" };
    owner.store(class, None).await;
    let owned = Objects { cluster: &cluster, namespace: "default", name: "owned" };
    for row in &rows {
        owned.store(row, Some(owner.reference(class))).await;
    }
    owner.delete(class).await;
    owned.wait_until_gone(&rows).await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_kind_own_others() {
    let (cluster, master) = Cluster::led(ManagerConfig::default()).await;
    let rows = deletable();
    let map = rows.iter().find(|row| row.kind.kind == "ConfigMap").expect("a namespaced kind");
    let owners = Objects { cluster: &cluster, namespace: "default", name: "owner" };
    for row in &rows {
        owners.store(row, None).await;
        let name = format!("of-{}", row.resource.resource);
        let owned = Objects { cluster: &cluster, namespace: "default", name: &name };
        owned.store(map, Some(owners.reference(row))).await;
    }
    for row in &rows {
        owners.delete(row).await;
        let name = format!("of-{}", row.resource.resource);
        let owned = Objects { cluster: &cluster, namespace: "default", name: &name };
        owned.wait_until_gone(std::slice::from_ref(map)).await;
    }
    master.stop().await;
}
