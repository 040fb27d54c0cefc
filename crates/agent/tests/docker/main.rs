//! Tests of an agent on a real Docker engine.

mod adoption;
mod ephemeral;
mod fences;
mod harness;
mod images;
mod images_change;
mod lifecycle;
mod namespace;
mod node;
mod pods;
mod probes;
mod recovery;
mod refresh;
mod registry;
mod resize;
mod security;
mod status;
mod streams;
