//! Processor architecture names.

/// Returns Go's name for an architecture that Rust calls `arch`. Clients, node labels and images use Go's names.
#[must_use]
pub fn architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
