//! kubectl's dialect of JSONPath: templates of text and `{…}` actions. Pure.

mod evaluate;
mod parse;

pub use evaluate::text_of;

use serde_json::Value;

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing jsonpath {template}, {reason}")]
pub struct JsonPathError {
    pub template: String,
    pub reason: String,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range { over: Vec<Step>, body: Vec<Node> },
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Root,
    Current,
    Field(String),
    Wildcard,
    /// `..`: the value and all values inside it.
    Descend,
    Index(i64),
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        step: i64,
    },
    /// `['a','b']` or `[0,1]`.
    Union(Vec<Step>),
    Filter(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
enum Filter {
    Exists(Operand),
    Compare { left: Operand, operator: Operator, right: Operand },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

impl JsonPath {
    /// Parses a template of `-o jsonpath=`.
    ///
    /// # Errors
    /// When braces, brackets or quotes do not match, or an action is unknown.
    pub fn template(text: &str) -> Result<Self, JsonPathError> {
        parse::template(text)
            .map(|nodes| JsonPath { nodes })
            .map_err(|reason| JsonPathError { template: text.to_owned(), reason })
    }

    /// Parses one path in the relaxed form of `--sort-by` and `custom-columns`: `{.a.b}`, `.a.b` or `a.b`.
    ///
    /// # Errors
    /// Those of [`JsonPath::template`].
    pub fn relaxed(text: &str) -> Result<Self, JsonPathError> {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        let dotted = if inner.starts_with(['.', '[']) { inner.to_owned() } else { format!(".{inner}") };
        Self::template(&format!("{{{dotted}}}"))
    }

    /// Renders the template for this object. A missing value renders as the empty text.
    #[must_use]
    pub fn render(&self, object: &Value) -> String {
        let mut text = String::new();
        evaluate::render(&self.nodes, object, object, &mut text);
        text
    }

    /// Returns all values that the template's paths select, in order.
    #[must_use]
    pub fn select<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        evaluate::select_all(&self.nodes, object, object)
    }
}

#[cfg(test)]
mod tests;
