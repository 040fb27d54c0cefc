//! Server-side apply: which manager has set which field, and how an applied configuration merges into an object.
//!
//! [`set`] has sets of fields and their form in `metadata.managedFields`; [`element`] the steps of their paths. What walks
//! an object with its type is one module each: [`extract`] (the fields of an object), [`compare`] (the fields that two
//! objects differ in), [`merge`], and [`remove`]. [`managers`] are the entries of an object, and [`track`] changes them
//! for an update or an apply. The rules are those of `sigs.k8s.io/structured-merge-diff` and of `managedfields` in
//! apimachinery. Nothing here reads a clock: the caller passes the time.
//!
//! A change is compared in the version of its writer. The fields of an entry that was written through another version are
//! compared in that one: [`Versions`] converts the objects.

mod compare;
mod element;
mod extract;
mod managers;
mod merge;
mod remove;
mod set;
mod track;
mod walk;

pub use compare::{Comparison, compare};
pub use extract::{TypedError, TypedErrors, extract};
pub use managers::{Entry, Managers, Operation};
pub use set::{FieldSet, FieldSetError};
pub use track::{
    Applied, Apply, Change, Conflict, MAX_CONFLICTS, OneVersion, Versions, Writer, apply, update, update_stored,
};

#[cfg(test)]
mod tests;
