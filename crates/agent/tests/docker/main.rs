//! An agent on real Docker.

mod adoption;
mod fences;
mod harness;
mod images;
mod images_change;
mod lifecycle;
mod node;
mod pods;
mod probes;
mod recovery;
mod refresh;
mod registry;
mod security;
mod status;
