//! The pod spec, in pods and in the templates of workloads: `defaults` sets its defaults, and each other module checks
//! one part of it.

mod claim_template;
mod containers;
mod defaults;
mod ephemeral;
mod pod_spec;
mod probes;
mod projections;
mod resources;
mod scheduling;
mod security;
mod volume_sources;
mod volumes;

pub use claim_template::spec as validate_claim;
pub use defaults::{default_pod, default_template, round};
pub use pod_spec::{TemplateOwner, validate_spec, validate_template};
