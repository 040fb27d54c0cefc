//! Generation of the schema's data. [`facts`] extracts a small text from Kubernetes' Go sources, which is checked in;
//! [`generate`] combines it with the OpenAPI documents ([`openapi`]) and the protobuf definitions ([`proto`]).

pub mod facts;
pub mod generate;
pub mod go;
pub mod openapi;
pub mod proto;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Texts by their path below a directory.
pub type Files = BTreeMap<String, String>;

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
