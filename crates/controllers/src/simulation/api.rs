//! The API server of the simulation.

use quorate_api::ObjectKey;
use quorate_api::patch::merge;
use serde_json::{Value, json};

use super::Cluster;
use crate::plan::{Action, Failure, Guard, Target, Verb};

/// Reason why a write was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The plan was stale. Holds the reason of the Status.
    Stale(&'static str),
    /// The API does not admit the write.
    Denied(Box<Failure>),
}

impl Cluster {
    /// Creates an object as a user would.
    pub(crate) fn create(&mut self, object: Value) {
        let key = key_of(&object);
        self.insert(key, object).expect("created");
    }

    /// Applies a merge patch as a user would.
    pub(crate) fn patch(&mut self, path: &str, patch: &Value) {
        let key = key(path);
        self.change(&key, None, |object| merge::apply(object, patch)).expect("patched");
    }

    /// Like [`Cluster::patch`], on the status subresource.
    pub(crate) fn patch_status(&mut self, path: &str, patch: &Value) {
        let key = key(path);
        self.change(&key, Some("status"), |object| merge::apply(object, patch)).expect("patched");
    }

    /// Deletes an object as a user would.
    pub(crate) fn delete(&mut self, path: &str, propagation: Option<&str>) {
        self.remove(&key(path), None, propagation).expect("deleted");
    }

    /// Confirms the end of a terminating pod, as the agent would.
    pub(crate) fn confirm_deletion(&mut self, path: &str) {
        self.remove(&key(path), Some(0), None).expect("removed");
    }

    /// Returns the stored object, with its `resourceVersion`.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.read(&key(path))
    }

    /// Returns the names of all objects of one kind, ordered.
    pub(crate) fn names(&self, resource: &str) -> Vec<&str> {
        self.objects.keys().filter(|key| key.resource == resource).map(|key| key.name.as_str()).collect()
    }

    pub(crate) fn act(&mut self, action: &Action) -> Result<(), Refused> {
        match action {
            Action::Create { resource, namespace, object } => {
                let key = key_of(object);
                assert_eq!(&key.namespace, namespace);
                let target =
                    Target { resource: resource.clone(), namespace: namespace.clone(), name: key.name.clone() };
                self.admit(Verb::Create, &target)?;
                self.insert(key, object.clone())
            }
            Action::Update { target, subresource, object } => {
                let key = key_at(target);
                self.admit(Verb::Update, target)?;
                self.check(&key, None, object["metadata"]["resourceVersion"].as_str())?;
                self.change(&key, *subresource, |stored| stored.clone_from(object))
            }
            Action::Patch { target, subresource, patch, guards } => {
                let key = key_at(target);
                self.admit(Verb::Patch, target)?;
                self.check_guards(guards)?;
                let metadata = &patch["metadata"];
                self.check(&key, metadata["uid"].as_str(), metadata["resourceVersion"].as_str())?;
                self.change(&key, *subresource, |stored| merge::apply(stored, patch))
            }
            Action::Delete { target, uid, resource_version, grace_period_seconds, propagation, guards } => {
                let key = key_at(target);
                self.admit(Verb::Delete, target)?;
                self.check_guards(guards)?;
                match self.check(&key, uid.as_deref(), resource_version.as_deref()) {
                    Err(Refused::Stale("NotFound")) => Ok(()),
                    Err(refused) => Err(refused),
                    Ok(()) => self.remove(&key, *grace_period_seconds, *propagation),
                }
            }
            Action::Batch(actions) => {
                let results: Vec<_> = actions.iter().map(|action| self.act(action)).collect();
                results.into_iter().collect()
            }
            Action::Sequence(actions) => actions.iter().try_for_each(|action| self.act(action)),
            Action::Event { reason, message, .. } => {
                self.events.push(format!("{reason}: {message}"));
                Ok(())
            }
        }
    }

    /// Admits or refuses a controller's write.
    fn admit(&self, verb: Verb, target: &Target) -> Result<(), Refused> {
        let refuse =
            |message: String| Err(Refused::Denied(Box::new(Failure { verb, target: target.clone(), message })));
        if verb == Verb::Create && target.namespace.as_deref().is_some_and(|ns| self.cache.is_namespace_terminating(ns))
        {
            return refuse("the namespace is being terminated".to_owned());
        }
        match (self.refuses)(verb, target) {
            Some(why) => refuse(format!("{} \"{}\" is forbidden: {why}", target.resource.resource, target.name)),
            None => Ok(()),
        }
    }

    fn check_guards(&self, guards: &[Guard]) -> Result<(), Refused> {
        let holds = |guard: &Guard| match guard {
            Guard::Absent { key, uid } => self.objects.get(key).is_none_or(|o| o["metadata"]["uid"] != uid.as_str()),
            Guard::Unchanged { key, revision } => {
                let stored = self.objects.get(key).and_then(|_| self.revisions.get(key));
                stored.copied().unwrap_or_default() == revision.0
            }
        };
        if guards.iter().all(holds) { Ok(()) } else { Err(Refused::Stale("Conflict")) }
    }

    fn read(&self, key: &ObjectKey) -> Option<Value> {
        let mut object = self.objects.get(key)?.clone();
        object["metadata"]["resourceVersion"] = json!(self.revisions.get(key)?.to_string());
        Some(object)
    }

    fn check(&self, key: &ObjectKey, uid: Option<&str>, revision: Option<&str>) -> Result<(), Refused> {
        let object = self.read(key).ok_or(Refused::Stale("NotFound"))?;
        let metadata = &object["metadata"];
        let differs = |field: &str, wanted: Option<&str>| wanted.is_some_and(|w| metadata[field].as_str() != Some(w));
        let conflict = differs("uid", uid) || differs("resourceVersion", revision);
        if conflict { Err(Refused::Stale("Conflict")) } else { Ok(()) }
    }

    fn insert(&mut self, key: ObjectKey, mut object: Value) -> Result<(), Refused> {
        if self.objects.contains_key(&key) {
            return Err(Refused::Stale("AlreadyExists"));
        }
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{}", self.uids));
        metadata["creationTimestamp"] = json!(self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        metadata["generation"] = json!(1);
        self.objects.insert(key.clone(), object);
        self.committed(&key);
        Ok(())
    }

    fn change(
        &mut self,
        key: &ObjectKey,
        subresource: Option<&str>,
        edit: impl FnOnce(&mut Value),
    ) -> Result<(), Refused> {
        let stored = self.objects.get(key).ok_or(Refused::Stale("NotFound"))?.clone();
        let mut edited = stored.clone();
        edit(&mut edited);
        let mut result = stored.clone();
        match subresource {
            Some("status") => result["status"] = edited["status"].take(),
            Some("finalize") => result["spec"]["finalizers"] = edited["spec"]["finalizers"].take(),
            Some(other) => panic!("no subresource {other}"),
            None => {
                result = edited;
                result["status"] = stored["status"].clone();
                for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp"] {
                    result["metadata"][field] = stored["metadata"][field].clone();
                }
                if result["spec"] != stored["spec"] {
                    let generation = stored["metadata"]["generation"].as_i64().expect("a number");
                    result["metadata"]["generation"] = json!(generation + 1);
                }
            }
        }
        tidy(&mut result);
        let is_released = result["metadata"]["deletionTimestamp"].is_string() && !is_held(&result);
        if is_released && key.resource != "pods" {
            self.objects.remove(key);
        } else {
            assert_ne!(result, stored, "the write changes nothing: {key}");
            self.objects.insert(key.clone(), result);
        }
        self.committed(key);
        Ok(())
    }

    fn remove(&mut self, key: &ObjectKey, grace: Option<i64>, propagation: Option<&str>) -> Result<(), Refused> {
        let Some(object) = self.objects.get_mut(key) else { return Err(Refused::Stale("NotFound")) };
        let is_first = object["metadata"]["deletionTimestamp"].is_null();
        let finalizer = match propagation {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer.filter(|_| is_first) {
            let list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            object["metadata"]["finalizers"] = list.into_iter().chain([json!(finalizer)]).collect();
        }
        let has_ended = matches!(object["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        let is_running = key.resource == "pods" && object["spec"]["nodeName"].is_string() && !has_ended;
        let seconds = if is_running { grace.unwrap_or(30) } else { 0 };
        if !is_held(object) && seconds == 0 {
            self.objects.remove(key);
        } else if is_first || seconds == 0 {
            let due = self.now + std::time::Duration::from_secs(u64::try_from(seconds).expect("positive"));
            object["metadata"]["deletionTimestamp"] = json!(due.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            object["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
        } else {
            return Ok(());
        }
        self.committed(key);
        Ok(())
    }
}

/// Drops the fields that a stored object never holds.
fn tidy(object: &mut Value) {
    let fields = object.as_object_mut().expect("an object");
    fields.retain(|_, value| !value.is_null());
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    metadata.remove("resourceVersion");
    metadata.retain(|_, value| !value.is_null());
}

fn is_held(object: &Value) -> bool {
    let is_held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    is_held(&object["metadata"]["finalizers"])
        || (object["kind"] == "Namespace" && is_held(&object["spec"]["finalizers"]))
}

/// Parses a path such as `pods/default/web` or `apps/deployments/default/web`.
fn key(path: &str) -> ObjectKey {
    let is_core = path.split('/').count() == 3 || path.split('/').count() == 2;
    let prefix = if is_core { "/registry/core/" } else { "/registry/" };
    ObjectKey::parse(&format!("{prefix}{path}")).expect("a path")
}

fn key_at(target: &Target) -> ObjectKey {
    ObjectKey {
        group: target.resource.group.to_string(),
        resource: target.resource.resource.to_string(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
    }
}

fn key_of(object: &Value) -> ObjectKey {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let group = object["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let resource = if kind == "endpoints" { kind } else { format!("{kind}s") };
    ObjectKey {
        group: group.to_owned(),
        resource,
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]).expect("a name"),
    }
}
