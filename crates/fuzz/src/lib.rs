//! Checks of the code that reads a client's bytes: bodies in each format, patches, selectors, server-side apply.
//!
//! A target is a function over arbitrary bytes that panics when a property does not hold. libFuzzer drives the targets
//! (`targets`, `scripts/fuzz`), and an ordinary test replays the inputs in `corpus`. [`kinds`] selects the type that an
//! input is read as, [`object`] has the properties of every decoded object, [`seeds`] writes the first inputs.

mod apply;
mod cbor;
mod json;
mod kinds;
mod object;
mod patches;
mod protobuf;
pub mod seeds;
mod selectors;
mod yaml;

/// A check of arbitrary bytes.
pub type Target = fn(&[u8]);

/// The targets by their names.
pub const TARGETS: [(&str, Target); 7] = [
    ("apply", apply::check),
    ("cbor", cbor::check),
    ("json", json::check),
    ("patches", patches::check),
    ("protobuf", protobuf::check),
    ("selectors", selectors::check),
    ("yaml", yaml::check),
];

/// Runs a target.
///
/// # Panics
/// When there is no such target, or a property does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("there is no target {name:?}")).1(data);
}
