//! Objects as YAML documents in kubectl's form. Lists are not indented. Strings are quoted if YAML 1.1, which
//! Kubernetes' own tools read, would resolve them to another type, such as `on` or `0644`.

use serde_json::Value;

/// Formats a YAML document that ends with a newline.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => map(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => list(items, 0, &mut out),
        other => {
            scalar(other, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indentation(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', level));
}

fn map(value: &Value, level: usize, out: &mut String) {
    for (index, (key, field)) in value.as_object().into_iter().flatten().enumerate() {
        // The first field of a list's item follows the dash on its line.
        if index > 0 || !out.ends_with("- ") {
            indentation(level, out);
        }
        text(key, level, true, out);
        out.push(':');
        match field {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                map(field, level + 2, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                list(items, level, out);
            }
            other => {
                out.push(' ');
                scalar(other, level + 2, out);
                out.push('\n');
            }
        }
    }
}

fn list(items: &[Value], level: usize, out: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            indentation(level, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => map(item, level + 2, out),
            Value::Array(inner) if !inner.is_empty() => list(inner, level + 2, out),
            other => {
                scalar(other, level + 2, out);
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::String(content) => text(content, level, false, out),
        other => out.push_str(&other.to_string()),
    }
}

fn text(content: &str, level: usize, key: bool, out: &mut String) {
    if content.is_empty() || looks_like_another_type(content) || content.contains(is_unprintable) {
        double_quoted(content, out);
    } else if content.contains('\n') {
        // A block scalar takes its indentation from its first line, and would hide spaces before a line break.
        if key || content.starts_with([' ', '\n', '\t']) || content.contains(" \n") || content.contains('\t') {
            double_quoted(content, out);
        } else {
            block(content, level, out);
        }
    } else if is_plain(content) {
        out.push_str(content);
    } else if content.contains('\t') {
        double_quoted(content, out);
    } else {
        out.push('\'');
        out.push_str(&content.replace('\'', "''"));
        out.push('\'');
    }
}

/// Returns whether a character must be escaped: one that YAML does not allow in a text, or that YAML 1.1 reads as a line
/// break or skips as a byte order mark.
fn is_unprintable(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        other => other.is_control(),
    }
}

/// JSON's escapes are valid in YAML too, but JSON does not escape all that YAML must.
fn double_quoted(content: &str, out: &mut String) {
    for character in Value::from(content).to_string().chars() {
        if is_unprintable(character) {
            out.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            out.push(character);
        }
    }
}

fn block(content: &str, level: usize, out: &mut String) {
    let body = content.trim_end_matches('\n');
    out.push_str(match content.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in content.strip_suffix('\n').unwrap_or(content).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indentation(level, out);
            out.push_str(line);
        }
    }
}

/// Returns whether YAML 1.1 would read the text as null, a boolean, a number or a time.
fn looks_like_another_type(content: &str) -> bool {
    const WORDS: [&str; 12] = ["~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", "="];
    if WORDS.iter().any(|word| content.eq_ignore_ascii_case(word)) {
        return true;
    }
    let unsigned = content.strip_prefix(['-', '+']).unwrap_or(content);
    if unsigned.eq_ignore_ascii_case(".inf") || content.eq_ignore_ascii_case(".nan") {
        return true;
    }
    if !unsigned.starts_with(|character: char| character.is_ascii_digit() || character == '.') {
        return false;
    }
    let digits = unsigned.replace('_', "");
    let radix =
        |prefix: &str, radix| digits.strip_prefix(prefix).is_some_and(|rest| u128::from_str_radix(rest, radix).is_ok());
    digits.parse::<f64>().is_ok()
        || radix("0x", 16)
        || radix("0o", 8)
        || radix("0b", 2)
        || is_date(content)
        || (digits.contains(':')
            && digits.split(':').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())))
}

fn is_date(content: &str) -> bool {
    let bytes = content.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..7].iter().any(u8::is_ascii_digit)
}

fn is_plain(content: &str) -> bool {
    let mut characters = content.chars();
    let first = characters.next().unwrap_or(' ');
    let starts_well = match first {
        '-' | '?' | ':' => characters.next().is_some_and(|second| second != ' '),
        ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => false,
        other => !other.is_whitespace(),
    };
    starts_well
        && !content.ends_with([' ', ':'])
        && !content.contains(": ")
        && !content.contains(" #")
        && !content.contains('\t')
        && content != "---"
        && !content.starts_with("--- ")
        && content != "..."
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_match_kubectl() {
        let value = json!({
            "spec": {"args": ["-c", "echo a: b", "- x"], "empty": {}, "none": [], "ports": [{"port": 80, "name": "http"}], "nested": [["a", {"b": 1}]]},
            "data": {"on": "on", "mode": "0644", "n": "1", "t": "2026-01-01T00:00:00Z", "file": "a\n  b\n\nc\n", "cut": "a\nb", "e": "", "x": null},
        });
        let expected = "\
data:
  cut: |-
    a
    b
  e: \"\"
  file: |
    a
      b

    c
  mode: \"0644\"
  \"n\": \"1\"
  \"on\": \"on\"
  t: \"2026-01-01T00:00:00Z\"
  x: null
spec:
  args:
  - -c
  - 'echo a: b'
  - '- x'
  empty: {}
  nested:
  - - a
    - b: 1
  none: []
  ports:
  - name: http
    port: 80
";
        assert_eq!(to_string(&value), expected);
    }

    #[test]
    fn written_documents_read_back_unchanged() {
        for text in [
            "",
            " ",
            "a",
            "a b",
            " a",
            "a ",
            "yes",
            "No",
            "1",
            "-1",
            "1e3",
            "0x1F",
            "1_000",
            "12:30:00",
            ".5",
            "a: b",
            "a:",
            "#a",
            "a #b",
            "- a",
            "-a",
            "?x",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "'",
            "it's",
            "\"q\"",
            "%",
            "@",
            "`",
            "{}",
            "[a]",
            "a\nb",
            "a\nb\n",
            "a\n\n",
            "\na",
            "a \nb",
            "  a\nb",
            "\t",
            "a\tb",
            "a\t\nb",
            "\u{7}",
            "\u{7f}",
            "a\u{80}b\nc",
            "\u{85}",
            "a\u{2028}b",
            "\u{feff}a",
            "\u{fffe}\u{ffff}",
            "é",
            "---",
            "...",
            "<<",
            "=",
            "~",
            "null",
            "a\r\nb",
            "2026-01-01",
            "10.0.0.1",
            "v1.36.0",
        ] {
            for value in [json!({"k": text, "l": [text, {"m": text}]}), json!({text: 1}), json!([text])] {
                let written = to_string(&value);
                let read = crate::yaml::value(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
                assert_eq!(read, value, "{written:?}");
            }
        }
    }
}
