//! Reads the component schemas of Kubernetes' OpenAPI v3 documents.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::package_name;

/// Schemas by the short name of their types, such as `core.v1.Pod`.
#[derive(Debug, Default)]
pub struct Components {
    pub schemas: BTreeMap<String, Value>,
    /// Prefixes of the components' names, by package: `io.k8s.api.core.v1` of `core.v1`.
    pub prefixes: BTreeMap<String, String>,
}

impl Components {
    /// Reads the documents in `folder`. Documents that have the same component agree on it, except for the list of kinds
    /// of `DeleteOptions` and `WatchEvent`.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn read(folder: &Path) -> Result<Components> {
        let mut components = Components::default();
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let mut document: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            let Value::Object(schemas) = document["components"]["schemas"].take() else { continue };
            for (name, schema) in schemas {
                let (prefix, kind) = name.rsplit_once('.').context("a component without a package")?;
                let package = package_name(prefix);
                components.schemas.insert(format!("{package}.{kind}"), schema);
                components.prefixes.insert(package, prefix.to_owned());
            }
        }
        Ok(components)
    }
}
