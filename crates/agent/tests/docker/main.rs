//! An agent on real Docker.

mod adoption;
mod fences;
mod harness;
mod images;
mod lifecycle;
mod pods;
mod probes;
mod registry;
