//! Generation of the schema's data. [`facts`] extracts a small text from Kubernetes' Go sources, which is checked in;
//! [`generate`] combines it with the OpenAPI documents ([`openapi`]) and the protobuf definitions ([`proto`]).

pub mod facts;
pub mod generate;
pub mod go;
pub mod openapi;
pub mod proto;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// Texts by their path below a directory.
pub type Files = BTreeMap<String, String>;

/// Returns the folder of Kubernetes' own data, looked for beside this repository and beside its parent. Tests that compare
/// with it are skipped where it is absent, and this says so.
#[must_use]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn reference() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = ["../shared/k8s", "../../shared/k8s"].iter().map(|path| root.join(path)).find(|path| path.is_dir());
    if found.is_none() {
        eprintln!("skipped: ../shared/k8s is not there");
    }
    found
}

/// Reads a JSON file of the reference data.
///
/// # Panics
/// When the file cannot be read or is not JSON.
#[must_use]
pub fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes `files` below `target`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(target: &Path, files: &Files) -> Result<()> {
    for (name, text) in files {
        let path = target.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Returns the short name of a Go or protobuf package: `core.v1` of `k8s.io/api/core/v1`, `runtime` of
/// `k8s.io.apimachinery.pkg.runtime`.
#[must_use]
pub fn package_name(path: &str) -> String {
    let parts: Vec<&str> = path.split(['/', '.']).collect();
    let is_version =
        |part: &str| part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    match parts.as_slice() {
        [.., name, version] if is_version(version) => format!("{name}.{version}"),
        [.., name] => (*name).to_owned(),
        [] => String::new(),
    }
}
