//! Validation errors that point at a field, in Kubernetes' wording.

use std::{fmt, io};

use serde_json::Value;

/// Maximum size of a value that an error shows, in bytes of JSON.
const MAX_VALUE_BYTES: usize = 1024;
/// Maximum length of a key in a path, in characters. Valid keys are shorter.
const MAX_KEY_CHARS: usize = 1024;

/// A path into an object, such as `spec.containers[0].name` or `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(String);

impl FieldPath {
    #[must_use]
    pub fn new(root: &str) -> Self {
        FieldPath(root.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { FieldPath(name.to_owned()) } else { FieldPath(format!("{}.{name}", self.0)) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        FieldPath(format!("{}[{index}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let end = key.char_indices().nth(MAX_KEY_CHARS).map_or(key.len(), |(end, _)| end);
        FieldPath(format!("{}[{}]", self.0, &key[..end]))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value at this path, or the innermost value on the way to it; and the rest of the path, which is empty
    /// when the value was found.
    #[must_use]
    pub fn locate<'a>(&self, object: &'a Value) -> (&'a Value, &str) {
        let (values, rest) = self.trace(object);
        (values.last().copied().unwrap_or(object), rest)
    }

    /// Returns the object and the values on the way to this path, from the outside in; and the rest of the path, like
    /// [`Self::locate`].
    #[must_use]
    pub fn trace<'a>(&self, object: &'a Value) -> (Vec<&'a Value>, &str) {
        let (mut value, mut rest) = (object, self.0.as_str());
        let mut values = vec![object];
        while let Some((inner, after)) = step(value, rest) {
            (value, rest) = (inner, after);
            values.push(value);
        }
        (values, rest)
    }
}

/// Maximum number of places at which a key in brackets may end. A key may itself contain brackets.
const MAX_KEY_ENDS: usize = 8;

/// Takes the first step of a path into a value.
fn step<'a, 'p>(value: &'a Value, path: &'p str) -> Option<(&'a Value, &'p str)> {
    let Some(inner) = path.strip_prefix('[') else {
        let name = path.strip_prefix('.').unwrap_or(path);
        let end = name.find(['.', '[']).unwrap_or(name.len());
        return Some((value.as_object()?.get(&name[..end])?, &name[end..]));
    };
    let is_end = |after: &str| after.is_empty() || after.starts_with(['.', '[']);
    let ends = inner.match_indices(']').map(|(end, _)| (&inner[..end], &inner[end + 1..]));
    ends.filter(|(_, after)| is_end(after)).take(MAX_KEY_ENDS).find_map(|(key, after)| {
        let found = match value {
            Value::Object(map) => map.get(key),
            Value::Array(list) => list.get(key.parse::<usize>().ok()?),
            _ => None,
        };
        Some((found?, after))
    })
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of a field error, which is also the `reason` of a `Status` cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    Duplicate,
    Forbidden,
    NotSupported,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
}

impl FieldErrorKind {
    /// Returns the machine-readable cause (`metav1.CauseType`).
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Invalid => "Invalid value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::TypeInvalid => "Invalid value",
        }
    }
}

/// One error of one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldError {
    pub path: FieldPath,
    pub kind: FieldErrorKind,
    /// The offending value as JSON, where it is shown (`"Web"` with its quotes, `-1`).
    pub value: Option<String>,
    pub detail: String,
}

impl FieldError {
    #[must_use]
    pub fn required(path: FieldPath, detail: impl Into<String>) -> Self {
        FieldError { path, kind: FieldErrorKind::Required, value: None, detail: detail.into() }
    }

    #[must_use]
    pub fn invalid(path: FieldPath, value: impl serde::Serialize, detail: impl Into<String>) -> Self {
        FieldError { path, kind: FieldErrorKind::Invalid, value: json(&value), detail: detail.into() }
    }

    #[must_use]
    pub fn duplicate(path: FieldPath, value: impl serde::Serialize) -> Self {
        FieldError { path, kind: FieldErrorKind::Duplicate, value: json(&value), detail: String::new() }
    }

    #[must_use]
    pub fn forbidden(path: FieldPath, detail: impl Into<String>) -> Self {
        FieldError { path, kind: FieldErrorKind::Forbidden, value: None, detail: detail.into() }
    }

    #[must_use]
    pub fn not_found(path: FieldPath, value: impl serde::Serialize) -> Self {
        FieldError { path, kind: FieldErrorKind::NotFound, value: json(&value), detail: String::new() }
    }

    #[must_use]
    pub fn too_long(path: FieldPath, max_bytes: usize) -> Self {
        let detail = format!("may not be more than {max_bytes} bytes");
        FieldError { path, kind: FieldErrorKind::TooLong, value: None, detail }
    }

    /// `supported` lists the values in the order of the message.
    #[must_use]
    pub fn not_supported(path: FieldPath, value: impl serde::Serialize, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        let detail = format!("supported values: {list}");
        FieldError { path, kind: FieldErrorKind::NotSupported, value: json(&value), detail }
    }

    /// Returns kind, value and detail without the path, which is a cause's message.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Returns a value as JSON, cut at the maximum size. Each of very many errors may be about one long list.
fn json(value: &impl serde::Serialize) -> Option<String> {
    let mut shown = Shown(Vec::new());
    match serde_json::to_writer(&mut shown, value) {
        Ok(()) => String::from_utf8(shown.0).ok(),
        Err(error) if error.is_io() => {
            Some(format!("{}…", String::from_utf8_lossy(&shown.0).trim_end_matches('\u{fffd}')))
        }
        Err(_) => None,
    }
}

/// The beginning of a value's JSON. Writing more fails.
struct Shown(Vec<u8>);

impl io::Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_VALUE_BYTES - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(io::ErrorKind::WriteZero.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_values_and_keys_are_cut() {
        let error = FieldError::invalid(FieldPath::new("list"), vec!["ä"; 100_000], "too long");
        let value = error.value.expect("a value");
        assert!(value.starts_with("[\"ä\",") && value.ends_with('…') && value.len() <= MAX_VALUE_BYTES + 3, "{value}");
        let short = "x".repeat(MAX_VALUE_BYTES - 2);
        assert_eq!(FieldError::invalid(FieldPath::new("a"), &short, "").value, Some(format!("\"{short}\"")));
        assert_eq!(FieldPath::new("a").key(&"ä".repeat(5000)).as_str().chars().count(), MAX_KEY_CHARS + 3);
    }

    #[test]
    fn paths_are_located_as_far_as_they_go() {
        let object = json!({"spec": {"list": [{"name": "a"}, {"name": "b"}]},
            "metadata": {"labels": {"example.com/a": "1", "odd].x": "2"}}});
        for (path, value, rest) in [
            (FieldPath::new("spec").child("list").index(1).child("name"), json!("b"), ""),
            (FieldPath::new("metadata").child("labels").key("example.com/a"), json!("1"), ""),
            (FieldPath::new("metadata").child("labels").key("odd].x"), json!("2"), ""),
            (FieldPath::new("spec").child("list").index(0).child("image"), json!({"name": "a"}), ".image"),
            (FieldPath::new("spec").child("list").index(7), object["spec"]["list"].clone(), "[7]"),
            (FieldPath::new("status").child("x"), object.clone(), "status.x"),
            (FieldPath::default(), object.clone(), ""),
        ] {
            assert_eq!(path.locate(&object), (&value, rest), "{path}");
        }
    }
}
