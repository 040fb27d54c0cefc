//! Bodies in YAML. Input: the selector of a kind, then the text.

use quorate_api::yaml;
use quorate_schema::{builtin, decode};
use serde_json::Value;

use crate::{kinds, object};

/// The budget of the reader for copies by aliases, with room for the text itself.
const MAX_EXPANSION: usize = 9 << 20;

pub(crate) fn check(data: &[u8]) {
    let Some((kind, body)) = kinds::split(data) else { return };
    let Ok(text) = str::from_utf8(body) else { return };
    let Ok(document) = yaml::document(text) else { return };
    assert!(document.duplicates.len() <= 100);
    let size = document.value.to_string().len();
    // A character may need an escape of six bytes in JSON, and a number such as 1e15 its digits.
    assert!(size <= 24 * text.len() + 6 * MAX_EXPANSION, "{size} bytes of {}", text.len());
    object::check_yaml(&document.value);
    let json: Value = serde_json::from_str(&document.value.to_string()).expect("the value is JSON");
    assert_eq!(json, document.value, "its JSON is another value");
    if document.value.is_object()
        && let Ok(decoded) = decode::value(builtin(), kind.ty, document.value)
    {
        object::check(&kind, &decoded.object);
    }
}
