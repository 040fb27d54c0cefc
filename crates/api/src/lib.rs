//! The object model of all other crates: kinds and resources, object keys, revisions, selectors, quantities, patches,
//! YAML and `Status` errors. The crate is pure: no I/O, no clock, no randomness.

pub mod address;
pub mod architecture;
pub mod duration;
pub mod ephemeral;
pub mod fence;
pub mod field;
pub mod gvk;
pub mod key;
pub mod name;
pub mod patch;
pub mod qos;
pub mod quantity;
pub mod revision;
pub mod selector;
pub mod status;
pub mod yaml;

pub use architecture::architecture;
pub use field::{FieldError, FieldErrorKind, FieldPath};
pub use gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
pub use key::{ObjectKey, ResourcePrefix};
pub use quantity::Quantity;
pub use revision::Revision;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Cause, Reason, Status, StatusDetails};
