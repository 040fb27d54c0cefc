//! Reads the component schemas of Kubernetes' OpenAPI v3 documents, and the options that its operations take.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::package_name;

/// Types whose fields are the query parameters of an operation, by the operation's `x-kubernetes-action`.
const OPTIONS: &[(&str, &str)] = &[
    ("list", "meta.v1.ListOptions"),
    ("post", "meta.v1.CreateOptions"),
    ("put", "meta.v1.UpdateOptions"),
    ("patch", "meta.v1.PatchOptions"),
];
/// The end of a path whose operation takes options of its own under an ordinary action, and the type of these.
const LOG: (&str, &str) = ("/log", "core.v1.PodLogOptions");

/// Schemas by the short name of their types, such as `core.v1.Pod`.
#[derive(Debug, Default)]
pub struct Components {
    pub schemas: BTreeMap<String, Value>,
    /// Descriptions of query parameters, by the short name of the options type and the parameter's name. These types are
    /// no components, so nothing else documents them.
    pub options: BTreeMap<String, BTreeMap<String, String>>,
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
            for (path, item) in document["paths"].as_object().into_iter().flatten() {
                components.collect_options(path, item);
            }
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

    fn collect_options(&mut self, path: &str, item: &Value) {
        let operations = item.as_object().into_iter().flatten().filter(|(method, _)| *method != "parameters");
        for (_, operation) in operations {
            let action = operation["x-kubernetes-action"].as_str().unwrap_or_default();
            let kind = &operation["x-kubernetes-group-version-kind"];
            let options = match (action, kind["kind"].as_str(), kind["version"].as_str()) {
                ("connect", Some(kind), Some(version)) => format!("core.{version}.{kind}"),
                _ if path.ends_with(LOG.0) => LOG.1.to_owned(),
                _ => match OPTIONS.iter().find(|(known, _)| *known == action) {
                    Some((_, options)) => (*options).to_owned(),
                    None => continue,
                },
            };
            let descriptions = self.options.entry(options).or_default();
            for parameter in
                [&item["parameters"], &operation["parameters"]].into_iter().filter_map(Value::as_array).flatten()
            {
                if let (Some("query"), Some(name), Some(text)) =
                    (parameter["in"].as_str(), parameter["name"].as_str(), parameter["description"].as_str())
                {
                    descriptions.insert(name.to_owned(), text.to_owned());
                }
            }
        }
    }
}
