//! The one table of kinds. Routes, discovery, validation, printing and CLI names all come from [`Descriptor`]s; a
//! kind's special behaviour is in its [`Strategy`]. The crate is pure and maps JSON values to JSON values.
//!
//! The rules of policies that limit other objects are here as well, without the reads that they need: [`limit_range`],
//! [`quota`], [`priority`].
//!
//! Built-in kinds with a Rust type live in `kinds`, one file each. The others are rows of data with optional rules, in
//! `rows`, one file for each topic; `schema_kind` gives them their behaviour. [`builtin`] lists both. They share `value`
//! (JSON in place), `table` (printing), `check` (field checks), `pod_template`, and [`metadata`], which the pipeline calls.
//! The kinds that are served in several versions have their conversions in [`versions`].

mod builtin;
mod check;
pub mod descriptor;
mod kind;
mod kinds;
pub mod limit_range;
pub mod metadata;
pub mod node_labels;
pub mod pod_resources;
mod pod_template;
pub mod pool;
pub mod priority;
pub mod quota;
mod rows;
pub mod schema;
mod schema_kind;
pub mod strategy;
pub mod subresource;
mod table;
mod value;
pub mod versions;

pub use builtin::{builtin, group_rank};
pub use descriptor::{Answer, Column, Descriptor, Review, Scope, Verb};
pub use kinds::pod::references as pod;
pub use schema::Schema;
pub use strategy::{Deletion, Scale, Strategy};
pub use subresource::{Backend, Change, Documents, Handler, Subresource};
pub use versions::Version;
