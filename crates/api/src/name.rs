//! The forms of names: DNS labels and subdomains, qualified names (label keys), label values.
//!
//! Each check returns the problems in Kubernetes' words, or none (`k8s.io/apimachinery/pkg/util/validation`).

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_TEXT: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED_SHAPE_TEXT: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Checks a DNS-1123 label, such as the name of a namespace or a container.
#[must_use]
pub fn dns1123_label(name: &str) -> Vec<String> {
    let mut problems = too_long(name, LABEL_MAX);
    if !is_dns1123_label(name) {
        problems.push(LABEL_TEXT.to_owned());
    }
    problems
}

/// Checks a DNS-1123 subdomain, the usual form of an object's name.
#[must_use]
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    let mut problems = too_long(name, SUBDOMAIN_MAX);
    if !name.split('.').all(is_dns1123_label) {
        problems.push(SUBDOMAIN_TEXT.to_owned());
    }
    problems
}

/// Checks a DNS-1035 label, which is a DNS-1123 label that begins with a letter.
#[must_use]
pub fn dns1035_label(name: &str) -> Vec<String> {
    let mut problems = too_long(name, LABEL_MAX);
    if !is_dns1123_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        problems.push(DNS1035_TEXT.to_owned());
    }
    problems
}

/// Checks `[prefix/]name`, the form of keys of labels, annotations, resources and taints.
#[must_use]
pub fn qualified_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let local = match name.split_once('/') {
        None => name,
        Some((_, local)) if local.contains('/') => return vec![QUALIFIED_SHAPE_TEXT.to_owned()],
        Some((prefix, local)) => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns1123_subdomain(prefix).into_iter().map(|p| format!("prefix part {p}")));
            }
            local
        }
    };
    if local.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if local.len() > LABEL_MAX {
        problems.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_word(local) {
        problems.push(QUALIFIED_TEXT.to_owned());
    }
    problems
}

/// Checks the value of a label, which may be empty.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut problems = too_long(value, LABEL_MAX);
    if !value.is_empty() && !is_word(value) {
        problems.push(LABEL_VALUE_TEXT.to_owned());
    }
    problems
}

/// Returns whether a non-empty label consists of `[a-z0-9-]` with an alphanumeric character at both ends. The length is
/// not checked.
fn is_dns1123_label(label: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

fn is_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn too_long(text: &str, max: usize) -> Vec<String> {
    if text.len() > max { vec![format!("must be no more than {max} bytes")] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_or_refused() {
        for good in ["a", "web-1", "0", "a--b"] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "Web", "-a", "a-", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!dns1123_label(bad).is_empty(), "{bad}");
        }
        for good in ["a.b", "web-1.example.com", "1.2.3.4"] {
            assert!(dns1123_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "a..b", ".a", "a.", "a.-b", &"a".repeat(254)] {
            assert!(!dns1123_subdomain(bad).is_empty(), "{bad}");
        }
        for good in ["app", "app.kubernetes.io/name", "A_b.c", "example.com/X"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "A.com/x", "-a", "a b"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty());
        assert!(!label_value("a b").is_empty());
        assert!(dns1035_label("1a").len() == 1 && dns1035_label("a1").is_empty());
    }
}
