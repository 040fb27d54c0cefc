//! Field selectors: `spec.nodeName=worker-1,status.phase!=Running`.

use std::fmt;
use std::str::FromStr;

/// One comparison of a field with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    /// The operator is `!=`.
    pub negated: bool,
    pub value: String,
}

/// Comparisons that must all hold. The default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

/// A text is not a field selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence in '{0}'")]
    Escape(String),
}

impl FieldSelector {
    /// # Errors
    /// When a term has no operator or a bad escape.
    pub fn parse(selector: &str) -> Result<Self, FieldSelectorError> {
        let mut requirements = Vec::new();
        for term in split_unescaped(selector).into_iter().filter(|term| !term.is_empty()) {
            let (field, negated, value) = split_operator(term)
                .ok_or_else(|| FieldSelectorError::Term { selector: selector.to_owned(), term: term.to_owned() })?;
            requirements.push(FieldRequirement { field: field.to_owned(), negated, value: unescape(value)? });
        }
        Ok(FieldSelector { requirements })
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Returns the value that `field` must have, if the selector requires one.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }

    /// Returns whether an object matches. `lookup` yields its fields; an unknown field counts as empty.
    #[must_use]
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (lookup(&r.field).unwrap_or_default() == r.value) != r.negated)
    }
}

impl From<Vec<FieldRequirement>> for FieldSelector {
    fn from(requirements: Vec<FieldRequirement>) -> Self {
        FieldSelector { requirements }
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        FieldSelector::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let operator = if requirement.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", requirement.field, escape(&requirement.value))?;
        }
        Ok(())
    }
}

fn split_unescaped(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

/// Splits at the first operator that is not escaped.
fn split_operator(term: &str) -> Option<(&str, bool, &str)> {
    let mut escaped = false;
    for (at, c) in term.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        let rest = &term[at..];
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..at], negated, value));
            }
        }
        escaped = c == '\\';
    }
    None
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                _ => return Err(FieldSelectorError::Escape(value.to_owned())),
            },
            '=' => return Err(FieldSelectorError::Escape(value.to_owned())),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_parse_match_and_print() {
        let selector = FieldSelector::parse("spec.nodeName==n1,status.phase!=Running,a=x\\,y\\=z").expect("selector");
        assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
        assert_eq!(selector.exact("status.phase"), None);
        assert_eq!(selector.to_string(), "spec.nodeName=n1,status.phase!=Running,a=x\\,y\\=z");
        let fields = |phase: &'static str| {
            move |field: &str| match field {
                "spec.nodeName" => Some("n1"),
                "status.phase" => Some(phase),
                "a" => Some("x,y=z"),
                _ => None,
            }
        };
        assert!(selector.matches(fields("Pending")));
        assert!(!selector.matches(fields("Running")));
        assert!(FieldSelector::parse("").expect("everything").is_everything());
        assert!(FieldSelector::parse("spec.nodeName=").expect("empty value").matches(|_| None));
    }

    #[test]
    fn terms_without_an_operator_are_refused() {
        for bad in ["a", "a=b,c", "a>b", "a=\\x", "a=b=c"] {
            assert!(FieldSelector::parse(bad).is_err(), "{bad}");
        }
    }
}
