//! The pod spec, in pods and in the templates of workloads: `defaults` fills it in, the other modules check one part of
//! it each.

mod containers;
mod defaults;
mod pod_spec;
mod probes;
mod resources;
mod scheduling;
mod security;
mod volumes;

pub use defaults::{default_pod_spec, default_requests, default_template};
pub use pod_spec::{validate, validate_spec};
