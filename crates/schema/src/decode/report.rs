//! The findings of a pass: the first wrong value, and the fields that strict decoding refuses.
//!
//! Paths are put together while the pass returns from a finding, so that a sound document costs no path.

use std::fmt;

/// Maximum number of strict errors, as in `sigs.k8s.io/json`.
const MAX_STRICT_ERRORS: usize = 100;
/// Maximum length of a path. A document can have one long key around very many unknown fields.
const MAX_PATH_CHARS: usize = 256;
/// Maximum length of the message about a wrong value, which quotes the value.
const MAX_MESSAGE_CHARS: usize = 1024;

/// The first place where a document does not have the shape of the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DecodeError {
    /// Such as `spec.containers[0].image`; empty for the document itself.
    pub path: String,
    pub message: String,
}

/// A field that decoding tolerates, and `fieldValidation=Strict` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrictError {
    /// The type does not have the field.
    Unknown(String),
    Duplicate(String),
}

impl StrictError {
    /// Returns the path, such as `spec.containers[0].imagee`.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            StrictError::Unknown(path) | StrictError::Duplicate(path) => path,
        }
    }

    fn path_mut(&mut self) -> &mut String {
        match self {
            StrictError::Unknown(path) | StrictError::Duplicate(path) => path,
        }
    }
}

impl fmt::Display for StrictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StrictError::Unknown(path) => write!(f, "unknown field \"{path}\""),
            StrictError::Duplicate(path) => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// A step of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// Findings, with paths relative to the value that is being decoded.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub error: Option<DecodeError>,
    pub strict: Vec<StrictError>,
    /// The number of elements of lists so far.
    pub elements: usize,
}

impl Report {
    /// Returns a mark, so that [`Report::enter`] knows what was found below a step.
    pub fn mark(&self) -> usize {
        self.strict.len()
    }

    /// Puts a step in front of the paths that were found since the mark.
    pub fn enter(&mut self, mark: usize, step: Step<'_>) {
        for error in self.strict.iter_mut().skip(mark) {
            let path = error.path_mut();
            prefix(path, step);
            shorten(path, MAX_PATH_CHARS);
        }
        if let Some(error) = &mut self.error {
            prefix(&mut error.path, step);
            shorten(&mut error.path, MAX_PATH_CHARS);
        }
    }

    /// Notes the first wrong value.
    pub fn fail(&mut self, mut message: String) {
        shorten(&mut message, MAX_MESSAGE_CHARS);
        self.error = Some(DecodeError { path: String::new(), message });
    }

    pub fn strict(&mut self, mark: usize, mut error: StrictError) {
        shorten(error.path_mut(), MAX_PATH_CHARS);
        // A field that occurs thrice is one finding.
        if self.strict.len() < MAX_STRICT_ERRORS && !self.strict[mark.min(self.strict.len())..].contains(&error) {
            self.strict.push(error);
        }
    }
}

fn shorten(text: &mut String, max_chars: usize) {
    if let Some((end, _)) = text.char_indices().nth(max_chars) {
        text.truncate(end);
    }
}

fn prefix(path: &mut String, step: Step<'_>) {
    let rest = std::mem::take(path);
    match step {
        Step::Name(name) => path.push_str(name),
        Step::Index(index) => *path = format!("[{index}]"),
    }
    if !rest.is_empty() && !rest.starts_with('[') {
        path.push('.');
    }
    path.push_str(&rest);
}
