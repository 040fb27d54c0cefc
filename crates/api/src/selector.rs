//! Label and field selectors, in the string form of query parameters and the object form of `spec.selector`.

mod field;
mod label;

pub use field::{FieldRequirement, FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, Operator, Requirement, SelectorError};
