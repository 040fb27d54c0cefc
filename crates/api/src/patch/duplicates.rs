//! Finds duplicate fields in a JSON patch, which has no type. Parsing silently keeps the last one, which hides mistakes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Maximum number of duplicates that are collected; more tell a client nothing new.
const MAX_FOUND: usize = 100;
/// Maximum length of one path. A body can have one long key around very many duplicates.
const MAX_PATH_CHARS: usize = 256;

/// Returns the paths of duplicate fields, such as `spec.replicas`. A body that is not JSON has none; parsing reports
/// that error.
#[must_use]
pub fn find(body: &[u8]) -> Vec<String> {
    let (mut path, mut found) = (String::new(), Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match (Walk { path: &mut path, found: &mut found }).deserialize(&mut deserializer) {
        Ok(()) => found,
        Err(_) => Vec::new(),
    }
}

struct Walk<'a> {
    path: &'a mut String,
    found: &'a mut Vec<String>,
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        let depth = self.path.len();
        while let Some(Key(key)) = map.next_key()? {
            if depth > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if !seen.insert(key) && self.found.len() < MAX_FOUND {
                self.found.push(self.path.chars().take(MAX_PATH_CHARS).collect());
            }
            map.next_value_seed(Walk { path: self.path, found: self.found })?;
            self.path.truncate(depth);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let depth = self.path.len();
        let mut index = 0;
        loop {
            self.path.push_str(&format!("[{index}]"));
            let next = list.next_element_seed(Walk { path: self.path, found: self.found })?;
            self.path.truncate(depth);
            if next.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_fields_are_found() {
        let check = |body: &str, expected: &[&str]| assert_eq!(find(body.as_bytes()), expected, "{body}");
        check(r#"{"a":1,"b":{"a":1},"c":[{"a":true},{"a":null}]}"#, &[]);
        check(r#"{"a":1,"a":2}"#, &["a"]);
        check(r#"{"spec":{"list":[{},{"x":"y","n":1.5,"x":"z"}]},"a":-1}"#, &["spec.list[1].x"]);
        check("{", &[]);
        check(r#"{"\u0061":1,"a":2}"#, &["a"]);
    }

    #[test]
    fn a_body_full_of_duplicates_costs_little() {
        let fields = vec![r#""a":0"#; 10_000].join(",");
        let found = find(format!(r#"{{"{}":{{{fields}}}}}"#, "k".repeat(100_000)).as_bytes());
        assert_eq!(found.len(), MAX_FOUND);
        assert!(found.iter().all(|path| path.len() <= MAX_PATH_CHARS), "{}", found[0].len());
    }
}
