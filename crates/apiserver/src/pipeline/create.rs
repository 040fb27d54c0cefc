//! The `create` verb.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use quorate_api::{Revision, Status};
use serde_json::Value;

use crate::decode::Body;
use crate::pipeline::commit::{Committed, Effects, Guard, Write, commit};
use crate::pipeline::{Effect, Operation, Written};
use crate::pipeline::{admission, allocate, managed};
use crate::route::Target;
use crate::{decode, encode, metadata};

/// Number of random names that are tried for a `generateName`.
const MAX_NAMES: usize = 8;
/// Number of attempts when the namespace or the allocated items change under a creation.
const MAX_ATTEMPTS: usize = 64;

/// Creates an object from a document of its kind.
///
/// # Errors
/// A `Status` from any stage; `AlreadyExists`.
pub(crate) async fn create(operation: &mut Operation, body: Body) -> Result<Written, Status> {
    create_with(operation, body, metadata::generated_name).await
}

/// [`create`], with `draw` generating the names for a `generateName`.
async fn create_with(
    operation: &mut Operation,
    body: Body,
    mut draw: impl FnMut(&str) -> String,
) -> Result<Written, Status> {
    let (mut object, mut managed_fields) = prepare(operation, body).await?;
    let target = &operation.target;
    let descriptor = &target.resource.descriptor;
    let generate_from = generate_name(&object);
    let mut names = 0;
    let mut is_fresh = false;
    for _ in 0..MAX_ATTEMPTS {
        if let Some(base) = &generate_from {
            metadata::of_mut(&mut object).insert("name".to_owned(), draw(base).into());
        }
        descriptor.strategy.named(&mut object);
        names += 1;
        validate(target, &object)?;
        let name = metadata::text(&object, "name").to_owned();
        let key = Bytes::from(target.resource.key(target.namespace.as_deref(), &name));
        let admitted = admission::validate(operation, None, &object).await?;
        let (mut allocated, allocation) = allocate::creation(operation, &object, is_fresh).await?;
        let complete = allocated.as_mut().unwrap_or(&mut object);
        managed::set(complete, managed_fields.take());
        let encoded = encode::stored(&target.resource, complete)?;
        if operation.is_dry_run {
            refuse_existing(operation, &key, &name).await?;
            let object = allocated.unwrap_or(object);
            return Ok(Written { object, encoded, revision: Revision::ZERO, effect: Effect::Created });
        }
        // The object's guard comes first.
        let mut effects = Effects {
            guards: vec![Guard { key: key.clone(), revision: Revision::ZERO }],
            writes: vec![Write::Put { key, value: encoded.clone() }],
            ..Effects::default()
        };
        effects.join(admitted);
        effects.join(allocation);
        match commit(operation.api.store(), &effects).await? {
            Committed::Done(revision) => {
                let object = allocated.unwrap_or(object);
                return Ok(Written { object, encoded, revision, effect: Effect::Created });
            }
            // The name is taken; a `generateName` draws another.
            Committed::Stale(now)
                if now.first().is_some_and(Option::is_some) && (generate_from.is_none() || names >= MAX_NAMES) =>
            {
                return Err(Status::already_exists(&descriptor.resource, &name));
            }
            // The namespace or a quota changed after it was read, or another request took the items.
            Committed::Stale(_) => {
                is_fresh = true;
                managed_fields = managed::take(allocated.as_mut().unwrap_or(&mut object));
            }
        }
    }
    let why = "its namespace, the namespace's quotas, or the free items of the cluster's pools kept changing during the \
               request; please try again";
    Err(Status::conflict(&descriptor.resource, metadata::text(&object, "name"), why))
}

/// default → mutate → fit. Returns the object and the `managedFields` that it is to be stored with.
async fn prepare(operation: &mut Operation, body: Body) -> Result<(Value, Option<Value>), Status> {
    let target = &operation.target;
    let served = &target.resource;
    let version = Arc::clone(&target.version);
    decode::report_strict_errors(&version, operation.validation, body.strict_errors, &mut operation.warnings)?;
    let mut object = body.object;
    if !metadata::text(&object, "resourceVersion").is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    check_namespace(target.namespace.as_deref(), &object)?;
    version.complete(&mut object);
    let managed_fields = managed::of_creation(operation, &mut object)?;
    metadata::stamp_new(&mut object, target.namespace.as_deref(), Timestamp::now());
    admission::mutate(operation, &mut object).await?;
    served.descriptor.strategy.prepare_create(&mut object);
    allocate::fit(operation, &mut object, None)?;
    Ok((object, managed_fields))
}

/// Checks that the body's namespace, if it has one, is the one of the path.
///
/// # Errors
/// `BadRequest`.
pub(crate) fn check_namespace(namespace: Option<&str>, body: &Value) -> Result<(), Status> {
    let given = metadata::text(body, "namespace");
    if given.is_empty() || namespace.is_none_or(|namespace| namespace == given) {
        return Ok(());
    }
    Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
}

fn generate_name(object: &Value) -> Option<String> {
    let base = metadata::text(object, "generateName");
    (metadata::text(object, "name").is_empty() && !base.is_empty()).then(|| base.to_owned())
}

fn validate(target: &Target, object: &Value) -> Result<(), Status> {
    let served = &target.resource;
    let mut errors = served.descriptor.validate(object);
    errors.extend(target.version.conversion().iter().flat_map(|version| (version.validate_create)(object)));
    if errors.is_empty() {
        return Ok(());
    }
    Err(served.invalid(metadata::text(object, "name"), &errors))
}

async fn refuse_existing(operation: &Operation, key: &Bytes, name: &str) -> Result<(), Status> {
    let key = String::from_utf8_lossy(key);
    let found = super::read::key(operation.api.store(), &key, quorate_store::Consistency::Linearizable).await?;
    match found {
        Some(_) => Err(Status::already_exists(&operation.target.resource.descriptor.resource, name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use quorate_api::Reason;
    use quorate_registry::Verb;
    use quorate_store::Store;
    use serde_json::json;

    use super::*;
    use crate::api::Api;
    use crate::bootstrap::bootstrap;
    use crate::decode::FieldValidation;
    use crate::pipeline::managed::FieldManager;
    use crate::user::UserInfo;

    /// Creates a ConfigMap with a generated name. Names are taken from `names`, and the last one repeats. Returns the
    /// number of draws as well.
    async fn generated(api: &Api, names: &[&str]) -> (Result<Value, Status>, usize) {
        let resource = api.catalog().find("", "v1", "configmaps").cloned().expect("a built-in kind");
        let mut operation = Operation {
            api: api.clone(),
            user: UserInfo::master("test"),
            manager: FieldManager::default(),
            target: Target {
                version: Arc::clone(&resource),
                resource,
                verb: Verb::Create,
                namespace: Some("default".to_owned()),
                name: None,
                subresource: None,
                rest: String::new(),
            },
            is_dry_run: false,
            validation: FieldValidation::Ignore,
            conditions: Vec::new(),
            warnings: Vec::new(),
        };
        let mut drawn = 0;
        let draw = |base: &str| {
            let suffix = names[drawn.min(names.len() - 1)];
            drawn += 1;
            format!("{base}{suffix}")
        };
        let object = json!({ "metadata": { "generateName": "web-" } });
        let created = create_with(&mut operation, Body { object, strict_errors: Vec::new() }, draw).await;
        (created.map(|written| written.into_object(&operation.target.version)), drawn)
    }

    #[tokio::test]
    async fn a_taken_generated_name_is_drawn_again() {
        let api = Api::new(Store::memory(), quorate_registry::builtin());
        bootstrap(&api).await.expect("the namespaces");
        let name = |created: Result<Value, Status>| metadata::text(&created.expect("created"), "name").to_owned();
        let (first, drawn) = generated(&api, &["taken"]).await;
        assert_eq!((name(first), drawn), ("web-taken".to_owned(), 1));
        let (second, drawn) = generated(&api, &["taken", "taken", "free"]).await;
        assert_eq!((name(second), drawn), ("web-free".to_owned(), 3));
        let before = api.store().revision();
        let (refused, drawn) = generated(&api, &["taken", "free"]).await;
        let refused = refused.expect_err("every name is taken");
        assert_eq!((refused.reason, drawn), (Reason::AlreadyExists, MAX_NAMES));
        assert_eq!(refused.message, "configmaps \"web-free\" already exists");
        assert_eq!(api.store().revision(), before, "nothing was written");
    }
}
