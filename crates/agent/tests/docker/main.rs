//! An agent on real Docker.

mod adoption;
mod harness;
mod images;
mod lifecycle;
mod pods;
mod probes;
mod registry;
mod security;
