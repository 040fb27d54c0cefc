//! The names of processors.

/// An architecture that Rust calls `arch` in Go's words, which clients, node labels and images have.
#[must_use]
pub fn architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
