//! The `-o` flag.

use crate::error::{CliError, Result};
use crate::jsonpath::JsonPath;

use super::columns::Columns;

/// The output format that the user requested.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    Table { wide: bool },
    Yaml,
    Json,
    Name,
    JsonPath(JsonPath),
    Columns(Columns),
}

impl Format {
    /// Parses the value of `-o`. `None` means a plain table.
    ///
    /// # Errors
    /// When the format is unknown, or a template in it is malformed.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Format::Table { wide: false }) };
        let (name, argument) = text.split_once('=').map_or((text, None), |(name, argument)| (name, Some(argument)));
        let argument = || {
            argument
                .map(|text| unquote(text).to_owned())
                .filter(|text| !text.is_empty())
                .ok_or_else(|| CliError::usage("template format specified but no template given"))
        };
        let file = |path: String| {
            std::fs::read_to_string(&path).map_err(|source| CliError::io(format!("reading template {path}"), source))
        };
        let jsonpath = |text: String| {
            JsonPath::template(&text).map(Format::JsonPath).map_err(|error| CliError::usage(error.to_string()))
        };
        match name {
            "" => Ok(Format::Table { wide: false }),
            "wide" => Ok(Format::Table { wide: true }),
            "yaml" => Ok(Format::Yaml),
            "json" => Ok(Format::Json),
            "name" => Ok(Format::Name),
            "jsonpath" => jsonpath(argument()?),
            "jsonpath-file" => jsonpath(file(argument()?)?),
            "custom-columns" => Columns::parse(&argument()?).map(Format::Columns),
            "custom-columns-file" => Columns::parse_file(&file(argument()?)?).map(Format::Columns),
            _ => Err(CliError::usage(format!(
                "unable to match a printer suitable for the output format \"{name}\", allowed formats are: custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml"
            ))),
        }
    }

    #[must_use]
    pub fn is_table(&self) -> bool {
        matches!(self, Format::Table { .. })
    }
}

/// Removes the quotes that a user's shell left.
fn unquote(text: &str) -> &str {
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_kubectls_names() {
        assert_eq!(Format::parse(None).expect("a format"), Format::Table { wide: false });
        assert_eq!(Format::parse(Some("wide")).expect("a format"), Format::Table { wide: true });
        assert!(matches!(Format::parse(Some("jsonpath='{.a}'")), Ok(Format::JsonPath(_))));
        assert!(matches!(Format::parse(Some("custom-columns=A:.a")), Ok(Format::Columns(_))));
        let error = Format::parse(Some("xml")).expect_err("unknown").to_string();
        assert!(error.contains("output format \"xml\""), "{error}");
    }
}
