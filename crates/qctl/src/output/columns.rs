//! `-o custom-columns=NAME:.metadata.name,…`.

use serde_json::Value;

use crate::error::{CliError, Result};
use crate::jsonpath::{JsonPath, text_of};

/// The headers and the paths of custom columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns(Vec<(String, JsonPath)>);

impl Columns {
    /// Parses `HEADER:path` pairs that are separated by commas.
    ///
    /// # Errors
    /// When a pair has no colon or a path is malformed.
    pub fn parse(spec: &str) -> Result<Self> {
        let mut columns = Vec::new();
        for part in split_outside_brackets(spec) {
            let (header, path) = part.split_once(':').ok_or_else(|| {
                CliError::usage(format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"))
            })?;
            columns.push((header.to_owned(), relaxed(path)?));
        }
        Ok(Columns(columns))
    }

    /// Parses a file of two lines: the headers, and the paths below them.
    ///
    /// # Errors
    /// When the two lines have different numbers of words.
    pub fn parse_file(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut words = || lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (headers, paths) = (words(), words());
        if headers.is_empty() || headers.len() != paths.len() {
            return Err(CliError::usage(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                paths.len()
            )));
        }
        headers
            .into_iter()
            .zip(paths)
            .map(|(header, path)| Ok((header, relaxed(&path)?)))
            .collect::<Result<_>>()
            .map(Columns)
    }

    #[must_use]
    pub fn headers(&self) -> Vec<String> {
        self.0.iter().map(|(header, _)| header.clone()).collect()
    }

    /// Returns the cells of one object, with `<none>` for missing values.
    #[must_use]
    pub fn row(&self, object: &Value) -> Vec<String> {
        self.0
            .iter()
            .map(|(_, path)| {
                let values: Vec<String> =
                    path.select(object).into_iter().filter(|value| !value.is_null()).map(text_of).collect();
                if values.is_empty() { "<none>".to_owned() } else { values.join(",") }
            })
            .collect()
    }
}

fn relaxed(path: &str) -> Result<JsonPath> {
    JsonPath::relaxed(path).map_err(|error| CliError::usage(error.to_string()))
}

/// Splits at commas, except inside `[…]`, where they belong to a path.
fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_i32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_join_what_their_paths_select() {
        let columns = Columns::parse("NAME:.metadata.name,IMAGES:.spec.c[*].image,FIRST:{.spec.c[0,1].image},NONE:.x")
            .expect("columns");
        assert_eq!(columns.headers(), ["NAME", "IMAGES", "FIRST", "NONE"]);
        let object = serde_json::json!({"metadata": {"name": "a"}, "spec": {"c": [{"image": "i"}, {"image": "j"}]}});
        assert_eq!(columns.row(&object), ["a", "i,j", "i,j", "<none>"]);
        assert!(Columns::parse("NAME").is_err());
        assert_eq!(Columns::parse_file("A B\n.a .b\n").expect("columns").headers(), ["A", "B"]);
    }
}
