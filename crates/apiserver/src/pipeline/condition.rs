//! Conditions of a write on objects other than its own, enforced by guards in the write's transaction.

use quorate_api::{ObjectKey, Revision, Status};
use quorate_mvcc::KeyValue;
use quorate_store::Consistency;
use serde_json::Value;

use crate::metadata;
use crate::pipeline::commit::Guard;
use crate::pipeline::{Operation, read};

/// A condition on an object, checked when a write is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key is absent, or holds an object with another uid.
    Absent { key: ObjectKey, uid: String },
    /// The object has not changed since this revision; [`Revision::ZERO`] means that it does not exist.
    Unchanged { key: ObjectKey, revision: Revision },
}

/// Reads the objects of the conditions linearizably, and returns the guards that keep them unchanged until the commit.
///
/// # Errors
/// `Conflict` for a condition that does not hold.
pub(crate) async fn guards(operation: &Operation) -> Result<Vec<Guard>, Status> {
    let mut guards = Vec::with_capacity(operation.conditions.len());
    for condition in &operation.conditions {
        let (key, revision) = match condition {
            Condition::Unchanged { key, revision } => (key.storage_key(), *revision),
            Condition::Absent { key, uid } => {
                let stored = key.storage_key();
                let found = read::key(operation.api.store(), &stored, Consistency::Linearizable).await?;
                if found.as_ref().is_some_and(|found| has_uid(found, uid)) {
                    return Err(broken(operation, &stored));
                }
                (stored, found.map_or(Revision::ZERO, |found| found.mod_revision))
            }
        };
        guards.push(Guard { key: key.into(), revision });
    }
    Ok(guards)
}

/// Finds the guard that failed a commit; `present` holds the current values of the guards' keys.
///
/// # Errors
/// `Conflict` when the failed guard belongs to a condition and not to the written object.
pub(crate) fn check(operation: &Operation, guards: &[Guard], present: &[Option<KeyValue>]) -> Result<(), Status> {
    let is_broken = |(guard, now): &(&Guard, &Option<KeyValue>)| {
        now.as_ref().map_or(Revision::ZERO, |now| now.mod_revision) != guard.revision
    };
    match guards.iter().zip(present).find(is_broken) {
        Some((guard, _)) => Err(broken(operation, &String::from_utf8_lossy(&guard.key))),
        None => Ok(()),
    }
}

/// Returns whether the object has this uid. An object that cannot be decoded may have any.
fn has_uid(found: &KeyValue, uid: &str) -> bool {
    serde_json::from_slice::<Value>(&found.value).map_or(true, |object| metadata::text(&object, "uid") == uid)
}

fn broken(operation: &Operation, key: &str) -> Status {
    let why = format!("the condition on {key} does not hold");
    Status::conflict(&operation.target.resource.descriptor.resource, operation.target.name(), &why)
}

#[cfg(test)]
mod tests {
    use quorate_api::{GroupVersionResource, Reason};
    use quorate_store::Store;
    use serde_json::json;

    use super::*;
    use crate::api::Api;
    use crate::bootstrap::bootstrap;
    use crate::local::LocalClient;
    use crate::user::UserInfo;

    const MAPS: GroupVersionResource = GroupVersionResource::from_static("", "v1", "configmaps");

    async fn client() -> LocalClient {
        let api = Api::new(Store::memory(), quorate_registry::builtin());
        bootstrap(&api).await.expect("the namespaces");
        LocalClient::new(api, UserInfo::master("test"))
    }

    async fn map(client: &LocalClient, name: &str) -> Value {
        client.create(&MAPS, Some("default"), json!({"metadata": {"name": name}})).await.expect("created")
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            group: String::new(),
            resource: "configmaps".to_owned(),
            namespace: Some("default".to_owned()),
            name: name.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_deletion_is_refused_while_the_owner_exists() {
        let client = client().await;
        let owner = map(&client, "owner").await;
        let uid = metadata::text(&owner, "uid").to_owned();
        map(&client, "child").await;
        let delete = |name: &'static str, uid: &str| {
            let client = client.provided(vec![Condition::Absent { key: key(name), uid: uid.to_owned() }]);
            async move { client.delete(&MAPS, Some("default"), "child", Value::Null).await }
        };
        let refused = delete("owner", &uid).await.expect_err("the owner is there");
        assert_eq!(refused.reason, Reason::Conflict, "{refused}");
        client.get(&MAPS, Some("default"), "child").await.expect("it is there");
        // An absent owner, or another object under its name, is not the owner.
        delete("owner", "another uid").await.expect("deleted");
        map(&client, "child").await;
        delete("nobody", &uid).await.expect("deleted");
    }

    #[tokio::test]
    async fn a_write_is_refused_after_the_other_object_changes() {
        let client = client().await;
        let other = map(&client, "other").await;
        map(&client, "child").await;
        let revision = Revision(metadata::text(&other, "resourceVersion").parse().expect("a revision"));
        let provided = client.provided(vec![Condition::Unchanged { key: key("other"), revision }]);
        let patch = || json!({"data": {"a": "b"}});
        provided.patch_merge(&MAPS, Some("default"), "child", None, patch()).await.expect("nothing has changed");
        client.patch_merge(&MAPS, Some("default"), "other", None, patch()).await.expect("changed");
        let refused = provided.delete(&MAPS, Some("default"), "child", Value::Null).await.expect_err("it changed");
        assert_eq!(refused.reason, Reason::Conflict, "{refused}");
        client.delete(&MAPS, Some("default"), "other", Value::Null).await.expect("deleted");
        provided.delete(&MAPS, Some("default"), "child", Value::Null).await.expect_err("it is gone, which is a change");
        let gone = client.provided(vec![Condition::Unchanged { key: key("other"), revision: Revision::ZERO }]);
        gone.delete(&MAPS, Some("default"), "child", Value::Null).await.expect("deleted");
    }

    #[tokio::test]
    async fn kinds_are_found_by_their_exact_version() {
        let client = client().await;
        assert_eq!(client.resource_of("v1", "ConfigMap"), Some((MAPS, true)));
        assert!(client.resource_of("v1", "Node").is_some_and(|(_, is_namespaced)| !is_namespaced));
        assert_eq!(client.resource_of("v2", "ConfigMap"), None);
        assert_eq!(client.resource_of("example.com/v1", "Widget"), None);
    }
}
