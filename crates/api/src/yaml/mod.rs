//! YAML as Kubernetes reads and writes it: another notation for JSON documents.
//!
//! `read` turns the events of a YAML parser into JSON values. `scalar` resolves plain scalars to numbers, booleans or
//! null by YAML 1.1, as `sigs.k8s.io/yaml` does: `0400` is 256 and `yes` is true. `write` produces kubectl's output
//! form. The server and the command-line client both use this module, so that they read a manifest alike.

mod read;
mod scalar;
mod write;

use serde_json::Value;

pub use write::to_string;

/// One document of a YAML stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub value: Value,
    /// Duplicate keys of mappings, in the words of Kubernetes' YAML library; at most 100. The last value counts.
    pub duplicates: Vec<String>,
}

/// A text that is not YAML, or that holds a value without a JSON form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("yaml: line {line}: {message}")]
pub struct YamlError {
    /// The line, counted from 1.
    pub line: usize,
    pub message: String,
}

/// Reads the first document of a stream; null when there is none.
///
/// # Errors
/// When the text up to the end of that document is not YAML, has no JSON form, or expands too much through aliases.
pub fn document(text: &str) -> Result<Document, YamlError> {
    read::Documents::new(text).next().unwrap_or_else(|| Ok(Document::default()))
}

/// Reads the value of the first document of a stream; null when there is none.
///
/// # Errors
/// As [`document`].
pub fn value(text: &str) -> Result<Value, YamlError> {
    document(text).map(|document| document.value)
}

/// Reads all documents of a stream, including null ones.
///
/// # Errors
/// As [`document`], for the first document that cannot be read.
pub fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    read::Documents::new(text).collect()
}
