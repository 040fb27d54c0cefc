//! The properties of a kind as a whole.

use std::borrow::Cow;
use std::sync::Arc;

use quorate_api::{FieldError, GroupVersionKind, GroupVersionResource};
use serde_json::Value;

use crate::metadata;
use crate::schema::Schema;
use crate::strategy::Strategy;
use crate::subresource::{Change, Subresource};
use crate::versions::Version;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// The API verbs, by their names in discovery and authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
    /// The verb of a request whose method has none, such as OPTIONS. Only a permission for all verbs covers it.
    Unnamed,
}

impl Verb {
    /// All verbs of an ordinary resource, in discovery's order.
    pub const ALL: &'static [Verb] = &[
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
            Verb::Unnamed => "",
        }
    }
}

/// The answer to the creation of an object that is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The object with the answer to its question.
    Review(Review),
    /// A `Status`, after the pod of the object's name was assigned to a node.
    Binding,
}

/// The question that an object asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Review {
    /// The user that makes the request.
    SelfSubject,
    /// The user that a bearer token stands for.
    Token,
    /// The permission of the user that makes the request.
    SelfSubjectAccess,
    /// The permission of a user that the object names.
    SubjectAccess,
    /// All permissions of the user that makes the request.
    SelfSubjectRules,
}

/// A column of the `Table` representation (`metav1.TableColumnDefinition`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub data_type: Cow<'static, str>,
    /// `name` for the name column, otherwise empty.
    pub format: Cow<'static, str>,
    /// Priority: 0 is always shown, 1 only in the wide output.
    pub priority: i32,
    pub description: Cow<'static, str>,
}

/// One served kind.
#[derive(Clone)]
pub struct Descriptor {
    pub kind: GroupVersionKind,
    pub list_kind: Cow<'static, str>,
    pub resource: GroupVersionResource,
    pub singular: Cow<'static, str>,
    pub short_names: Cow<'static, [&'static str]>,
    pub categories: Cow<'static, [&'static str]>,
    pub scope: Scope,
    pub verbs: &'static [Verb],
    pub subresources: &'static [Subresource],
    /// The versions that are served besides this one, which is stored.
    pub versions: &'static [Version],
    /// The answer to a creation; `None` for a kind whose objects are stored.
    pub answer: Option<Answer>,
    /// An update of an absent object creates it.
    pub creates_on_update: bool,
    /// A deletion that removes the object returns its last state instead of a `Status`.
    pub returns_deleted: bool,
    pub columns: Vec<Column>,
    pub schema: Schema,
    pub strategy: Arc<dyn Strategy>,
}

impl Descriptor {
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Returns the row of another version. Its names and its schema are that version's, its strategy works on the stored one.
    ///
    /// # Panics
    /// For a version that the schema does not have; a test reads all of them.
    #[must_use]
    pub fn in_version(&self, version: &Version) -> Self {
        let kind = version.gvk();
        Descriptor {
            schema: Schema::of(&kind).expect("the schema has the types of all served versions"),
            resource: GroupVersionResource {
                group: kind.group.clone(),
                version: kind.version.clone(),
                resource: self.resource.resource.clone(),
            },
            kind,
            ..self.clone()
        }
    }

    /// Sets the fields that the user left out; idempotent.
    pub fn default(&self, object: &mut Value) {
        self.strategy.default(object);
        self.schema.default(object);
    }

    /// Returns the errors of an object that is about to be created.
    #[must_use]
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(object, self);
        errors.extend(self.strategy.validate_new(object));
        self.schema.check(object, None, &mut errors);
        errors
    }

    /// Returns the errors of `new` as the successor of `old`.
    #[must_use]
    pub fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(new, self);
        errors.extend(metadata::validate_update(new, old));
        errors.extend(self.strategy.validate_successor(new, old));
        self.schema.check(new, Some(old), &mut errors);
        errors
    }

    /// Returns the errors of `new` as the successor of `old` after an update through a subresource.
    #[must_use]
    pub fn validate_change(&self, change: &Change, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(new, self);
        errors.extend(metadata::validate_update(new, old));
        errors.extend((change.validate)(self, new, old));
        errors
    }
}
