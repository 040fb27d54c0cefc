//! The one pipeline for every kind:
//! `route → authenticate → authorize → decode → default → mutate → fit → validate → admit → allocate → commit`.
//!
//! Bodies are converted to the stored version when their defaults are set, and the stages after that see only stored
//! objects (`Target::resource`). Responses and managed fields are in the version of the request (`Target::version`).
//!
//! `admit` and `allocate` may add guards and writes to the object's transaction (`commit::Effects`).
//!
//! Each verb is a file here that runs these stages in this order. No file here names a kind except the static policies
//! in `authorize` and `admission`; a kind's special behaviour is in its strategy.

pub(crate) mod admission;
pub(crate) mod allocate;
pub(crate) mod apply;
pub(crate) mod authorize;
pub(crate) mod commit;
pub(crate) mod condition;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod delete_collection;
pub(crate) mod dispatch;
pub(crate) mod list;
pub(crate) mod managed;
pub(crate) mod modify;
pub(crate) mod patch;
mod ratchet;
pub(crate) mod read;
pub(crate) mod review;
pub(crate) mod selection;
pub(crate) mod subresource;
pub(crate) mod turns;
pub(crate) mod update;
pub(crate) mod watch;

use bytes::Bytes;
use quorate_api::Revision;
use serde_json::Value;

use crate::api::Api;
use crate::catalog::Served;
use crate::decode::FieldValidation;
use crate::encode;
use crate::pipeline::condition::Condition;
use crate::pipeline::managed::FieldManager;
use crate::route::Target;
use crate::user::UserInfo;

/// A request that has been routed, authenticated and authorized.
pub(crate) struct Operation {
    pub api: Api,
    pub user: UserInfo,
    pub manager: FieldManager,
    pub target: Target,
    /// Run every stage except the commit.
    pub is_dry_run: bool,
    pub validation: FieldValidation,
    /// Conditions on other objects that must hold when the write is committed. Creations have none.
    pub conditions: Vec<Condition>,
    /// Warnings that the response carries.
    pub warnings: Vec<String>,
}

impl Operation {
    /// Returns the operation of the same request on another target, without conditions and warnings.
    pub fn at(&self, target: Target) -> Operation {
        Operation {
            api: self.api.clone(),
            user: self.user.clone(),
            manager: self.manager.clone(),
            target,
            is_dry_run: self.is_dry_run,
            validation: self.validation,
            conditions: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// The effect of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Created,
    Written,
    /// The object had not changed, so nothing was written.
    Unchanged,
    Removed,
}

/// An object as a write left it.
pub(crate) struct Written {
    /// The object without its `resourceVersion`.
    pub object: Value,
    /// The object in its stored form.
    pub encoded: Bytes,
    /// Zero for a dry run's creation.
    pub revision: Revision,
    pub effect: Effect,
}

impl Written {
    /// Returns the object in a version, with its `resourceVersion`.
    pub fn into_object(self, version: &Served) -> Value {
        let mut object = self.object;
        encode::set_resource_version(&mut object, self.revision);
        version.show(&mut object);
        object
    }
}
