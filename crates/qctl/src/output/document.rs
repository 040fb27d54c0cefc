//! Objects as documents.

use serde::Serialize;
use serde_json::Value;

use super::{Format, yaml};
use crate::error::{CliError, Result};

/// Formats a document in the format that the user requested.
///
/// # Errors
/// When the format is one of tables or names.
pub fn document(format: &Format, document: &Value) -> Result<String> {
    match format {
        Format::Json => json(document),
        Format::Yaml => Ok(yaml(document)),
        Format::JsonPath(path) => Ok(path.render(document)),
        _ => Err(CliError::usage("this output format is not for single documents")),
    }
}

/// Formats JSON like kubectl, indented by four spaces and with a newline at the end.
///
/// # Errors
/// Never for values that came from JSON.
pub fn json(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).map_err(|error| CliError::Answer(format!("not a JSON document: {error}")))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| CliError::Answer(format!("not UTF-8: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_sorted_keys() {
        let value: Value = serde_json::from_str(r#"{"b": "true", "a": [{"y": 1, "x": "1"}]}"#).expect("JSON");
        let text = "{\n    \"a\": [\n        {\n            \"x\": \"1\",\n            \"y\": 1\n        }\n    ],\n    \"b\": \"true\"\n}\n";
        assert_eq!(json(&value).expect("JSON"), text);
    }
}
