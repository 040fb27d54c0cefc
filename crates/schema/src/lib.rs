//! The types of the Kubernetes API v1.36 as data: one model that drives decoding, pruning, protobuf, strategic merge,
//! defaults, the checks of single fields, and OpenAPI. The crate is pure.
//!
//! [`model`] has the types, and [`data`] loads the built-in ones from checked-in text (written by `cargo run -p xtask --
//! schema`). What walks a type and a value together is one module each: [`decode`], [`protobuf`], [`defaults`],
//! [`validate`], [`apply`]. [`openapi`] renders a type. [`cbor`] is a notation of JSON, which needs no type. Nothing here knows a resource, a verb or a storage version; rules
//! across fields belong to the kind's strategy.

pub mod apply;
pub mod cbor;
pub mod data;
pub mod decode;
pub mod defaults;
pub mod model;
pub mod openapi;
pub mod protobuf;
pub mod validate;

pub use data::builtin;
pub use decode::{DecodeError, Decoded, StrictError};
pub use model::{Field, Kind, Model, Type, TypeId};
