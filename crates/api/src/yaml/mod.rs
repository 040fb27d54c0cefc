//! YAML as Kubernetes reads and writes it: a JSON document in another notation.
//!
//! `read` turns the events of a YAML parser into JSON values, `scalar` decides which plain scalars are numbers, booleans
//! or null (by YAML 1.1, as `sigs.k8s.io/yaml` does: `0400` is 256 and `yes` is true), and `write` is kubectl's form of output.
//! The server and the command-line client both use this module, so that they read a manifest alike.

mod read;
mod scalar;
mod write;

use serde_json::Value;

pub use write::to_string;

/// One document of a YAML stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub value: Value,
    /// Keys that a mapping names twice, in the words of Kubernetes' YAML library. The last value counts.
    pub duplicates: Vec<String>,
}

/// The text is not YAML, or holds something that has no JSON form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("yaml: line {line}: {message}")]
pub struct YamlError {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
}

/// Reads the first document of a stream; null when there is none.
///
/// # Errors
/// When the text up to the end of that document is not YAML, has no JSON form, or is far larger when its aliases are expanded.
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

/// Reads all documents of a stream, also those that are null.
///
/// # Errors
/// As [`document`], for the first document that cannot be read.
pub fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    read::Documents::new(text).collect()
}
