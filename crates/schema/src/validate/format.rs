//! The formats of strings that Kubernetes' Go types name: `k8s.io/apimachinery/pkg/api/validate/strfmt.go`.

use quorate_api::{FieldError, FieldPath, name};

/// Maximum length of a device's name behind its domain, in bytes.
const MAX_DEVICE_BYTES: usize = 32;
const MAX_DOMAIN_BYTES: usize = 63;
const MAX_POOL_BYTES: usize = 253;

/// Checks a string against a format. A test makes sure that the data names no other.
pub(super) fn check(format: &str, text: &str, path: &FieldPath) -> Vec<FieldError> {
    let invalid = |problem: String| FieldError::invalid(path.clone(), text, problem);
    match format {
        "k8s-short-name" => name::dns1123_label(text).into_iter().map(invalid).collect(),
        "k8s-long-name" => name::dns1123_subdomain(text).into_iter().map(invalid).collect(),
        "k8s-long-name-caseless" => {
            name::dns1123_subdomain(&text.to_ascii_lowercase()).into_iter().map(invalid).collect()
        }
        "k8s-label-key" => name::qualified_name(text).into_iter().map(invalid).collect(),
        "k8s-uuid" if is_uuid(text) => Vec::new(),
        "k8s-uuid" => vec![invalid("must be a lowercase UUID in 8-4-4-4-12 format".to_owned())],
        "k8s-resource-pool-name" => pool_name(text, path),
        "k8s-resource-fully-qualified-name" => fully_qualified_name(text, path),
        "k8s-extended-resource-name" => extended_resource_name(text).into_iter().map(invalid).collect(),
        _ => Vec::new(),
    }
}

/// Returns whether [`check`] knows the format.
#[cfg(test)]
pub(super) fn is_known(format: &str) -> bool {
    [
        "k8s-short-name",
        "k8s-long-name",
        "k8s-long-name-caseless",
        "k8s-label-key",
        "k8s-uuid",
        "k8s-resource-pool-name",
        "k8s-resource-fully-qualified-name",
        "k8s-extended-resource-name",
    ]
    .contains(&format)
}

fn is_uuid(text: &str) -> bool {
    let fits = |(index, byte): (usize, u8)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

fn pool_name(text: &str, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text.len() > MAX_POOL_BYTES {
        errors.push(FieldError::too_long(path.clone(), MAX_POOL_BYTES));
    }
    for (index, part) in text.split('/').enumerate() {
        if part.is_empty() {
            errors.push(FieldError::invalid(path.clone(), text, format!("segment {index}: must not be empty")));
            continue;
        }
        let problems = name::dns1123_subdomain(part).into_iter();
        errors.extend(
            problems.map(|problem| FieldError::invalid(path.clone(), part, format!("segment {index}: {problem}"))),
        );
    }
    errors
}

fn fully_qualified_name(text: &str, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match *text.split('/').collect::<Vec<_>>().as_slice() {
        [id] => {
            errors.extend(identifier(id, path));
            let problem = "a fully qualified name must be a domain and a name separated by a slash";
            errors.push(FieldError::invalid(path.clone(), text, problem));
        }
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path.clone(), "", "prefix must not be empty"));
            } else {
                if domain.len() > MAX_DOMAIN_BYTES {
                    errors.push(FieldError::too_long(path.clone(), MAX_DOMAIN_BYTES));
                }
                let problems = name::dns1123_subdomain(domain).into_iter();
                errors.extend(
                    problems.map(|problem| FieldError::invalid(path.clone(), domain, format!("prefix: {problem}"))),
                );
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(path.clone(), "", "name must not be empty"));
            } else {
                errors.extend(identifier(id, path));
            }
        }
        // Kubernetes does not look at names with more slashes.
        _ => {}
    }
    errors
}

/// Checks an identifier as in C.
fn identifier(id: &str, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if id.len() > MAX_DEVICE_BYTES {
        errors.push(FieldError::too_long(path.clone(), MAX_DEVICE_BYTES));
    }
    let starts_well = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let problem = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(FieldError::invalid(path.clone(), id, problem));
    }
    errors
}

fn extended_resource_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.contains('/') {
        problems.push("a name must be a domain-prefixed path, such as 'example.com/my-prop'".to_owned());
    } else if text.contains("kubernetes.io/") {
        problems.push("must not have \"kubernetes.io/\" domain".to_owned());
    }
    if text.starts_with("requests.") {
        problems.push("must not have \"requests.\" prefix".to_owned());
    }
    problems.extend(name::qualified_name(&format!("requests.{text}")));
    problems
}
