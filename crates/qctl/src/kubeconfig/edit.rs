//! Shows and changes kubeconfig files, for `config view` and `config use-context`.

use std::io::Write;
use std::path::{Path, PathBuf};

use kube::config::Kubeconfig;
use quorate_api::yaml;
use serde_json::Value;

use crate::error::{CliError, Result};

/// Returns the merged configuration as a document, with secrets redacted unless `raw` is set.
///
/// # Errors
/// When the configuration cannot be written as a document.
pub fn view(kubeconfig: &Kubeconfig, raw: bool) -> Result<Value> {
    let mut document = serde_json::to_value(kubeconfig)
        .map_err(|error| CliError::usage(format!("the kubeconfig cannot be shown: {error}")))?;
    document["apiVersion"] = "v1".into();
    document["kind"] = "Config".into();
    if !raw {
        for cluster in entries(&mut document, "clusters", "cluster") {
            redact(cluster, &[("certificate-authority-data", "DATA+OMITTED")]);
        }
        for user in entries(&mut document, "users", "user") {
            redact(
                user,
                &[
                    ("client-certificate-data", "DATA+OMITTED"),
                    ("client-key-data", "DATA+OMITTED"),
                    ("token", "REDACTED"),
                    ("password", "REDACTED"),
                ],
            );
        }
    }
    Ok(document)
}

fn entries<'a>(document: &'a mut Value, list: &str, entry: &'static str) -> impl Iterator<Item = &'a mut Value> {
    document
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(move |named| named.get_mut(entry))
}

fn redact(entry: &mut Value, fields: &[(&str, &str)]) {
    for (field, replacement) in fields {
        if let Some(value) = entry.get_mut(*field).filter(|value| !value.is_null()) {
            *value = (*replacement).into();
        }
    }
}

/// Sets `current-context` in the file that sets one already, or else in the first file. The rest of the file stays.
///
/// # Errors
/// When no file has the context, or the file cannot be written.
pub fn use_context(files: &[PathBuf], merged: &Kubeconfig, context: &str) -> Result<()> {
    if !merged.contexts.iter().any(|known| known.name == context) {
        return Err(CliError::usage(format!("no context exists with the name: \"{context}\"")));
    }
    let existing: Vec<&PathBuf> = files.iter().filter(|file| file.exists()).collect();
    let mut chosen = existing.first().copied();
    for file in &existing {
        let config = super::read(file)?;
        if config.current_context.is_some_and(|current| !current.is_empty()) {
            chosen = Some(file);
            break;
        }
    }
    let file = chosen.ok_or_else(|| CliError::usage("no kubeconfig file to change"))?;
    let describe = |verb: &str| format!("{verb} {}", file.display());
    let text = std::fs::read_to_string(file).map_err(|source| CliError::io(describe("reading"), source))?;
    let mut document = yaml::value(&text)
        .map_err(|error| CliError::usage(format!("error loading config file \"{}\": {error}", file.display())))?;
    document["current-context"] = context.into();
    replace(file, &yaml::to_string(&document)).map_err(|source| CliError::io(describe("writing"), source))
}

/// Replaces the file atomically by a rename, so that an interrupted write never leaves half a kubeconfig. A link to the
/// file stays a link, and the file keeps its permissions.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let target = std::fs::canonicalize(file)?;
    let directory = target.parent().ok_or(std::io::ErrorKind::IsADirectory)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().set_permissions(std::fs::metadata(&target)?.permissions())?;
    temporary.persist(&target)?;
    Ok(())
}
