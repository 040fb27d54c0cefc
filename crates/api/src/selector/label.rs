//! Label selectors: `app=web,tier in (front,back),!canary,cpus>4`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::name;

/// The comparison of a requirement. `Equals` and `DoubleEquals` mean the same but are written differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

/// A text or expression is not a label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Syntax { found: String, expected: &'static str },
    #[error("unable to parse requirement: <nil>: Invalid value: \"{key}\": {problem}")]
    Key { key: String, problem: String },
    #[error("unable to parse requirement: values[0][{key}]: Invalid value: \"{value}\": {problem}")]
    Value { key: String, value: String, problem: String },
    #[error(
        "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
    )]
    EmptySet,
    #[error(
        "unable to parse requirement: values: Invalid value: [\"{0}\"]: for 'Gt', 'Lt' operators, the value must be an integer"
    )]
    NotAnInteger(String),
    #[error(
        "unable to parse requirement: values: Invalid value: []: for exact-match, 'Gt' and 'Lt' operators, exactly one value is required"
    )]
    NotOneValue,
    #[error(
        "unable to parse requirement: values: Invalid value: values set must be empty for exists and does not exist"
    )]
    UnexpectedValues,
    #[error("\"{0}\" is not a valid label selector operator")]
    UnknownOperator(String),
}

/// Requirements that must all hold. The default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Ordered by key, as Kubernetes orders and prints them.
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Requirement {
    /// # Errors
    /// When key, operator and values do not fit together.
    pub fn new(
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Requirement, SelectorError> {
        if let Some(problem) = name::qualified_name(key).into_iter().next() {
            return Err(SelectorError::Key { key: key.to_owned(), problem });
        }
        let values: BTreeSet<String> = values.into_iter().collect();
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => return Err(SelectorError::EmptySet),
            Operator::In | Operator::NotIn => {}
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(SelectorError::UnexpectedValues);
            }
            Operator::Exists | Operator::DoesNotExist => {}
            _ if values.len() != 1 => return Err(SelectorError::NotOneValue),
            Operator::GreaterThan | Operator::LessThan => {
                if let Some(value) = values.iter().find(|v| v.parse::<i64>().is_err()) {
                    return Err(SelectorError::NotAnInteger(value.clone()));
                }
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => {}
        }
        for value in &values {
            if let Some(problem) = name::label_value(value).into_iter().next() {
                return Err(SelectorError::Value { key: key.to_owned(), value: value.clone(), problem });
            }
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// Returns whether a label with this value (`None`: absent) satisfies the requirement.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotEquals | Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(label, bound)| label > bound),
            Operator::LessThan => self.compare(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl LabelSelector {
    /// # Errors
    /// When the text is not a selector, with the messages of `labels.Parse`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { tokens: tokens(text), at: 0 }.selector().map(LabelSelector::of)
    }

    /// Converts the `spec.selector` of a workload. An empty one matches everything.
    ///
    /// # Errors
    /// When an expression is invalid.
    pub fn from_object(object: &meta::LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in object.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, [value.clone()])?);
        }
        for expression in object.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::UnknownOperator(other.to_owned())),
            };
            let values = expression.values.iter().flatten().cloned();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(LabelSelector::of(requirements))
    }

    /// Requires that all these labels are present with these values, like a Service's selector.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: BTreeSet::from([value.clone()]),
        };
        LabelSelector { requirements: labels.iter().map(requirement).collect(), nothing: false }
    }

    /// Returns the selector that matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Like [`LabelSelector::matches`], for labels in another form.
    #[must_use]
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(lookup(&r.key)))
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        LabelSelector::parse(text)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { key, operator, values } = self;
        // `()` is read as the empty set, so the set of the empty value is written as two of them.
        let is_one_empty = matches!(operator, Operator::In | Operator::NotIn) && values.iter().eq([""]);
        let set = || match is_one_empty {
            true => ",".to_owned(),
            false => values.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        };
        match operator {
            Operator::Equals => write!(f, "{key}={}", set()),
            Operator::DoubleEquals => write!(f, "{key}=={}", set()),
            Operator::NotEquals => write!(f, "{key}!={}", set()),
            Operator::In => write!(f, "{key} in ({})", set()),
            Operator::NotIn => write!(f, "{key} notin ({})", set()),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{}", set()),
            Operator::LessThan => write!(f, "{key}<{}", set()),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

/// Splits a text into symbols and words, separated by optional whitespace.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = SYMBOLS.iter().find(|s| rest.starts_with(**s)).map_or_else(
            || rest.find(|c: char| c.is_whitespace() || "=!(),><".contains(c)).unwrap_or(rest.len()),
            |symbol| symbol.len(),
        );
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        match self.peek() {
            None => return Ok(requirements),
            Some(token) if token == "!" || is_word(token) => {}
            found => return Err(syntax(found, "!, identifier, or 'end of string'")),
        }
        loop {
            requirements.push(self.requirement()?);
            match self.next() {
                None => return Ok(requirements),
                Some(",") => {}
                found => return Err(syntax(found, "',' or 'end of string'")),
            }
            if !self.peek().is_some_and(|token| token == "!" || is_word(token)) {
                return Err(syntax(self.peek(), "identifier after ','"));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Some("!");
        if negated {
            self.at += 1;
        }
        let key = self.word()?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, []);
        }
        if matches!(self.peek(), None | Some(",")) {
            return Requirement::new(key, Operator::Exists, []);
        }
        let operator = match self.next() {
            Some("=") => Operator::Equals,
            Some("==") => Operator::DoubleEquals,
            Some("!=") => Operator::NotEquals,
            Some(">") => Operator::GreaterThan,
            Some("<") => Operator::LessThan,
            Some("in") => Operator::In,
            Some("notin") => Operator::NotIn,
            found => return Err(syntax(found, "in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.set()?,
            _ if matches!(self.peek(), None | Some(",")) => vec![String::new()],
            _ => vec![self.word()?.to_owned()],
        };
        Requirement::new(key, operator, values)
    }

    fn word(&mut self) -> Result<&'a str, SelectorError> {
        match self.next() {
            Some(token) if is_word(token) => Ok(token),
            found => Err(syntax(found, "identifier")),
        }
    }

    /// Parses `(a,b)`. An element may be empty; `()` is the empty set.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Some("(") => {}
            found => return Err(syntax(found, "'('")),
        }
        if self.peek() == Some(")") {
            self.at += 1;
            return Ok(Vec::new());
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                Some(token) if is_word(token) => {
                    self.at += 1;
                    token.to_owned()
                }
                _ => String::new(),
            });
            match self.next() {
                Some(")") => return Ok(values),
                Some(",") => {}
                found => return Err(syntax(found, "',' or ')'")),
            }
        }
    }
}

fn is_word(token: &str) -> bool {
    !SYMBOLS.contains(&token)
}

fn syntax(found: Option<&str>, expected: &'static str) -> SelectorError {
    SelectorError::Syntax { found: found.unwrap_or_default().to_owned(), expected }
}

#[cfg(test)]
#[path = "label/tests.rs"]
mod tests;
