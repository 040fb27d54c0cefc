//! Turns the events of a YAML parser into JSON values.
//!
//! Anchors are expanded where aliases use them. A budget keeps a small text from becoming a large object.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::scalar::{self, Scalar};
use super::{Document, YamlError};

/// Maximum nesting of lists and mappings. A JSON parser with a limit of 128 reads stored objects again.
const MAX_DEPTH: usize = 120;
/// Budget for copies by anchors and aliases, in bytes and nodes together.
const MAX_COPIED: usize = 8 << 20;
/// Maximum number of duplicate keys that one document reports, and of characters of each key. More tell a client nothing
/// new, and the server sends them back.
const MAX_DUPLICATES: usize = 100;
const MAX_DUPLICATE_KEY_CHARS: usize = 256;
/// The namespace of YAML's own tags.
const CORE: &str = "tag:yaml.org,2002:";
const MERGE_KEY: &str = "<<";

/// Iterates over the documents of a stream. Ends after an error.
pub(super) struct Documents<'a> {
    parser: Parser<'a, StrInput<'a>>,
    copied: usize,
    is_done: bool,
}

impl<'a> Documents<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let options = granit_parser::options! { emit_comments: false };
        Documents { parser: Parser::new_from_str_with_options(text, options), copied: 0, is_done: false }
    }

    fn advance(&mut self) -> Result<Option<Document>, YamlError> {
        loop {
            let Some(event) = self.parser.next() else { return Ok(None) };
            match event.map_err(|error| syntax(&error))? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(..), _) => break,
                _ => {}
            }
        }
        let mut composer = Composer {
            parser: &mut self.parser,
            copied: &mut self.copied,
            anchors: HashMap::new(),
            duplicates: Vec::new(),
        };
        let value = match composer.event()? {
            (Event::DocumentEnd, _) => return Ok(Some(Document::default())),
            (event, span) => composer.node(event, &span, 0)?,
        };
        let duplicates = composer.duplicates;
        Ok(Some(Document { value, duplicates }))
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Document, YamlError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = self.advance().transpose();
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}

struct Composer<'p, 'a> {
    parser: &'p mut Parser<'a, StrInput<'a>>,
    copied: &'p mut usize,
    /// Complete nodes with an anchor, with the cost of a copy.
    anchors: HashMap<usize, (Value, usize)>,
    duplicates: Vec<String>,
}

impl<'a> Composer<'_, 'a> {
    /// Returns the next event of the document; the parser emits no comments.
    fn event(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        match self.parser.next() {
            Some(event) => event.map_err(|error| syntax(&error)),
            None => Err(YamlError { line: 1, message: "the stream ends within a document".to_owned() }),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Value, YamlError> {
        if depth > MAX_DEPTH {
            return Err(at(span, format!("exceeded max depth of {MAX_DEPTH}")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar_of(&text, style, tag.as_deref(), span)?;
                let value = scalar.into_json().ok_or_else(|| at(span, format!("unsupported value: {text}")))?;
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span),
            other => return Err(at(span, format!("unexpected {other:?}"))),
        };
        if anchor != 0 {
            let cost = cost(&value);
            self.spend(cost, span)?;
            self.anchors.insert(anchor, (value.clone(), cost));
        }
        Ok(value)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut fields = Map::new();
        let mut merged = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (event, span) = self.event()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == MERGE_KEY);
            let key = if is_merge { String::new() } else { self.key(event, &span)? };
            let (event, value_span) = self.event()?;
            let value = self.node(event, &value_span, depth + 1)?;
            if is_merge {
                merge_sources(value, &value_span, &mut merged)?;
                continue;
            }
            if !seen.insert(key.clone()) && self.duplicates.len() < MAX_DUPLICATES {
                let key: String = key.chars().take(MAX_DUPLICATE_KEY_CHARS).collect();
                self.duplicates.push(format!("line {}: key {key:?} already set in map", line(&span)));
            }
            fields.insert(key, value);
        }
        // A mapping's own field wins, then the first source.
        for source in merged {
            for (key, value) in source {
                fields.entry(key).or_insert(value);
            }
        }
        Ok(Value::Object(fields))
    }

    /// Returns the name of a field. Numbers and booleans become text, as in Kubernetes.
    fn key(&mut self, event: Event<'a>, span: &Span) -> Result<String, YamlError> {
        let scalar = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar_of(&text, style, tag.as_deref(), span)?;
                if let (true, Some(value)) = (anchor != 0, scalar.clone().into_json()) {
                    let cost = cost(&value);
                    self.spend(cost, span)?;
                    self.anchors.insert(anchor, (value, cost));
                }
                scalar
            }
            Event::Alias(anchor) => match self.alias(anchor, span)? {
                Value::String(text) => Scalar::Text(text),
                Value::Bool(value) => Scalar::Bool(value),
                Value::Number(number) => Scalar::Int(number),
                _ => Scalar::Null,
            },
            _ => Scalar::Null,
        };
        scalar.into_key().ok_or_else(|| at(span, "unsupported map key: not a string, number or boolean".to_owned()))
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Value, YamlError> {
        let Some((_, cost)) = self.anchors.get(&anchor) else {
            return Err(at(span, "an anchor's value contains itself".to_owned()));
        };
        self.spend(*cost, span)?;
        Ok(self.anchors[&anchor].0.clone())
    }

    fn spend(&mut self, cost: usize, span: &Span) -> Result<(), YamlError> {
        *self.copied = self.copied.saturating_add(cost);
        if *self.copied > MAX_COPIED {
            return Err(at(span, "document contains excessive aliasing".to_owned()));
        }
        Ok(())
    }
}

/// Collects the mappings that a `<<` refers to.
fn merge_sources(value: Value, span: &Span, sources: &mut Vec<Map<String, Value>>) -> Result<(), YamlError> {
    let list = match value {
        Value::Array(list) => list,
        single => vec![single],
    };
    for source in list {
        match source {
            Value::Object(map) => sources.push(map),
            _ => return Err(at(span, "map merge requires map or sequence of maps as the value".to_owned())),
        }
    }
    Ok(())
}

fn scalar_of(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Scalar, YamlError> {
    match tag {
        Some(tag) if tag.handle() == CORE => scalar::resolve_as(tag.suffix(), text)
            .ok_or_else(|| at(span, format!("cannot decode `{text}` as a !!{}", tag.suffix()))),
        Some(_) => Ok(Scalar::Text(text.to_owned())),
        None if style == ScalarStyle::Plain => Ok(scalar::resolve(text)),
        None => Ok(Scalar::Text(text.to_owned())),
    }
}

/// Returns the cost of copying a value, in bytes and nodes together.
fn cost(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len(),
        Value::Array(items) => 1 + items.iter().map(cost).sum::<usize>(),
        Value::Object(fields) => 1 + fields.iter().map(|(key, value)| key.len() + cost(value)).sum::<usize>(),
    }
}

fn line(span: &Span) -> usize {
    span.start.line()
}

fn at(span: &Span, message: String) -> YamlError {
    YamlError { line: line(span), message }
}

fn syntax(error: &ScanError) -> YamlError {
    YamlError { line: error.marker().line(), message: error.info().to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::yaml::{document, documents, value};

    #[test]
    fn anchors_merges_and_tags_become_plain_json() {
        let text = "base: &base {app: web, tier: front}\nsame: *base\nown:\n  <<: *base\n  app: api\nlate:\n  app: db\n  <<: [*base, {zone: a}]\ntext: !!str 0400\nmode: 0400\n1: one\ntrue: yes\n";
        assert_eq!(
            value(text).expect("YAML"),
            json!({
                "base": {"app": "web", "tier": "front"}, "same": {"app": "web", "tier": "front"},
                "own": {"app": "api", "tier": "front"}, "late": {"app": "db", "tier": "front", "zone": "a"},
                "text": "0400", "mode": 256, "1": "one", "true": true,
            })
        );
    }

    #[test]
    fn block_scalars_and_quotes_are_text() {
        let text = "keep: |+\n  line\n\nstrip: |-\n  line\nfold: >\n  one\n  two\n\n  three\nquoted: \"tab\\there \\U0001F600\"\noctal: \"0755\"\nsingle: 'yes'\n";
        assert_eq!(
            value(text).expect("YAML"),
            json!({"keep": "line\n\n", "strip": "line", "fold": "one two\nthree\n", "quoted": "tab\there 😀",
                "octal": "0755", "single": "yes"})
        );
    }

    #[test]
    fn duplicate_keys_are_reported_and_the_last_one_counts() {
        let text = "data:\n  a: \"1\"\n  a: \"2\"\n  b:\n  - {c: 1, c: 2}\n";
        let document = document(text).expect("YAML");
        assert_eq!(document.value, json!({"data": {"a": "2", "b": [{"c": 2}]}}));
        assert_eq!(
            document.duplicates,
            ["line 3: key \"a\" already set in map", "line 5: key \"c\" already set in map"]
        );
    }

    #[test]
    fn a_text_full_of_duplicate_keys_costs_little() {
        let key = "k".repeat(1000);
        let text = format!("{key}: 1\n").repeat(1000);
        let document = document(&text).expect("YAML");
        assert_eq!(document.duplicates.len(), super::MAX_DUPLICATES);
        let longest = document.duplicates.iter().map(String::len).max();
        assert!(longest.is_some_and(|longest| longest < 300), "{longest:?}");
    }

    #[test]
    fn streams_have_any_number_of_documents() {
        let values: Vec<_> = documents("---\na: 1\n---\n# nothing\n---\nb: 2\n...\n").expect("YAML");
        let values: Vec<_> = values.into_iter().map(|document| document.value).collect();
        assert_eq!(values, [json!({"a": 1}), json!(null), json!({"b": 2})]);
        assert_eq!(documents("").expect("YAML"), []);
        assert_eq!(value("").expect("YAML"), json!(null));
        assert_eq!(value("# only a comment\n").expect("YAML"), json!(null));
    }

    #[test]
    fn values_without_a_json_form_are_refused_with_their_line() {
        for (text, line, message) in [
            ("a: 1\nb: [\n", 2, ""),
            ("a: .inf\n", 1, "unsupported value: .inf"),
            ("a: 1\n? [b]\n: c\n", 2, "unsupported map key"),
            ("~: c\n", 1, "unsupported map key"),
            ("a: *none\n", 1, ""),
            ("a: &a [*a]\n", 1, "contains itself"),
            ("a: !!int x\n", 1, "cannot decode `x` as a !!int"),
            ("<<: 1\n", 1, "map merge requires"),
        ] {
            let error = value(text).expect_err(text);
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.message.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn small_texts_do_not_become_large_objects() {
        let mut bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(value(&bomb).expect_err("a bomb").message.contains("excessive aliasing"));
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        assert!(value(&deep).is_err());
        let nested: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(value(&nested).is_err());
    }

    proptest! {
        #[test]
        fn json_is_yaml(keys in prop::collection::vec("[a-z]{1,5}", 0..4), text in "\\PC{0,12}", number in any::<i32>()) {
            let mut object = json!({"text": text, "number": number, "list": [null, true, text]});
            for key in keys {
                object[key] = json!({"nested": number});
            }
            prop_assert_eq!(value(&object.to_string()).expect("YAML"), object);
        }

        #[test]
        fn never_panics(text in "[\\PC\\n]{0,64}") {
            let read = documents(&text);
            prop_assert!(read.is_ok() || read.is_err());
        }
    }
}
