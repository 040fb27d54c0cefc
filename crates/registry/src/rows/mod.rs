//! Built-in kinds as rows of data with optional rules. The rules work on JSON that the schema has decoded.
//!
//! A kind that nothing acts on is a row all the same: clients can store it, list it and watch it.

mod admission;
mod batch;
pub(crate) mod certificates;
mod cluster;
mod devices;
mod networking;
mod rbac;
mod reviews;
mod scaling;
mod storage;
mod workloads;

use std::borrow::Cow;
use std::sync::Arc;

use quorate_api::{FieldError, GroupVersionKind, GroupVersionResource};
use serde_json::Value;

use crate::descriptor::{Answer, Descriptor, Scope, Verb};
use crate::schema::Schema;
use crate::schema_kind::{Rules, SchemaKind};
use crate::strategy::Scale;
use crate::subresource::Subresource;
use crate::table::{Printed, plain};
use crate::versions::Version;

/// Returns the rows of this folder, in no particular order.
pub fn rows() -> Vec<Descriptor> {
    let topics = [
        admission::rows(),
        batch::rows(),
        certificates::rows(),
        cluster::rows(),
        devices::rows(),
        networking::rows(),
        rbac::rows(),
        reviews::rows(),
        scaling::rows(),
        storage::rows(),
        workloads::rows(),
    ];
    topics.into_iter().flatten().map(Row::descriptor).collect()
}

/// A kind, before it becomes a [`Descriptor`].
struct Row {
    kind: GroupVersionKind,
    resource: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    scope: Scope,
    verbs: &'static [Verb],
    subresources: &'static [Subresource],
    versions: &'static [Version],
    answer: Option<Answer>,
    creates_on_update: bool,
    returns_deleted: bool,
    rules: Rules,
    printed: Vec<Printed>,
}

/// A namespaced `v1` kind with all verbs and no subresources.
fn row(group: &'static str, kind: &'static str, resource: &'static str) -> Row {
    Row {
        kind: GroupVersionKind::from_static(group, "v1", kind),
        resource,
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        versions: &[],
        answer: None,
        creates_on_update: false,
        returns_deleted: false,
        rules: Rules::default(),
        printed: plain(),
    }
}

impl Row {
    fn version(mut self, version: &'static str) -> Self {
        self.kind.version = Cow::Borrowed(version);
        self
    }

    /// Serves the kind in other versions as well.
    fn also(mut self, versions: &'static [Version]) -> Self {
        self.versions = versions;
        self
    }

    fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    fn category(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }

    fn cluster(mut self) -> Self {
        self.scope = Scope::Cluster;
        self
    }

    fn verbs(mut self, verbs: &'static [Verb]) -> Self {
        self.verbs = verbs;
        self
    }

    /// Makes the kind virtual: its objects can only be created, and each creation is answered.
    fn answer(mut self, answer: Answer) -> Self {
        self.answer = Some(answer);
        self.verbs = &[Verb::Create];
        self
    }

    fn status(mut self) -> Self {
        self.subresources = &[Subresource::Status];
        self.rules.has_status = true;
        self
    }

    /// Replaces the subresources.
    fn subresources(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    /// Gives new objects this status.
    fn starts_as(mut self, status: fn() -> Value) -> Self {
        self.rules.new_status = status;
        self
    }

    fn scale(mut self, scale: fn(&Value) -> Option<Scale>) -> Self {
        self.subresources = &[Subresource::Scale, Subresource::Status];
        self.rules.scale = Some(scale);
        self
    }

    fn generations(mut self) -> Self {
        self.rules.counts_generations = true;
        self
    }

    fn creates_on_update(mut self) -> Self {
        self.creates_on_update = true;
        self
    }

    fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    fn named_by(mut self, check: fn(&str) -> Vec<String>) -> Self {
        self.rules.check_name = check;
        self
    }

    fn named(mut self, named: fn(&mut Value)) -> Self {
        self.rules.named = named;
        self
    }

    fn default(mut self, default: fn(&mut Value)) -> Self {
        self.rules.default = default;
        self
    }

    fn validate(mut self, validate: fn(&Value, &mut Vec<FieldError>)) -> Self {
        self.rules.validate = validate;
        self
    }

    fn validate_update(mut self, validate: fn(&Value, &Value, &mut Vec<FieldError>)) -> Self {
        self.rules.validate_update = validate;
        self
    }

    fn validate_status_update(mut self, validate: fn(&Value, &Value, &mut Vec<FieldError>)) -> Self {
        self.rules.validate_status_update = validate;
        self
    }

    fn prepare_update(mut self, prepare: fn(&mut Value, &Value)) -> Self {
        self.rules.prepare_update = prepare;
        self
    }

    fn prepare_status_update(mut self, prepare: fn(&mut Value, &Value)) -> Self {
        self.rules.prepare_status_update = prepare;
        self
    }

    fn immutable(mut self, paths: &'static [&'static str]) -> Self {
        self.rules.immutable = paths;
        self
    }

    fn selectable(mut self, fields: &'static [(&'static str, &'static str)]) -> Self {
        self.rules.selectable = fields;
        self
    }

    fn columns(mut self, printed: Vec<Printed>) -> Self {
        self.printed = printed;
        self
    }

    fn descriptor(self) -> Descriptor {
        let Row { kind, resource, printed, rules, .. } = self;
        Descriptor {
            list_kind: Cow::Owned(format!("{}List", kind.kind)),
            resource: GroupVersionResource {
                group: kind.group.clone(),
                version: kind.version.clone(),
                resource: Cow::Borrowed(resource),
            },
            singular: Cow::Owned(kind.kind.to_ascii_lowercase()),
            short_names: Cow::Borrowed(self.short_names),
            categories: Cow::Borrowed(self.categories),
            scope: self.scope,
            verbs: self.verbs,
            subresources: self.subresources,
            versions: self.versions,
            answer: self.answer,
            creates_on_update: self.creates_on_update,
            returns_deleted: self.returns_deleted,
            columns: printed.iter().map(|printed| printed.column.clone()).collect(),
            schema: Schema::of(&kind).expect("the schema has the types of all built-in kinds, which a test checks"),
            strategy: Arc::new(SchemaKind {
                selectable_names: rules.selectable.iter().map(|(name, _)| *name).collect(),
                rules,
                printed,
            }),
            kind,
        }
    }
}
