//! Checks of single fields that several kinds need.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use quorate_api::{FieldError, FieldErrorKind, FieldPath, name};

pub const NON_NEGATIVE: &str = "must be greater than or equal to 0";
pub const IMMUTABLE: &str = "field is immutable";
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Checks that a number is not negative.
pub fn non_negative(value: impl Into<i64>, path: FieldPath, errors: &mut Vec<FieldError>) {
    let value = value.into();
    if value < 0 {
        errors.push(FieldError::invalid(path, value, NON_NEGATIVE));
    }
}

pub fn positive(value: impl Into<i64>, path: FieldPath, errors: &mut Vec<FieldError>) {
    let value = value.into();
    if value <= 0 {
        errors.push(FieldError::invalid(path, value, "must be greater than 0"));
    }
}

/// Checks that a value is one of a fixed set of words. `None` and the empty string are a missing required field.
pub fn one_of(value: Option<&str>, supported: &[&str], path: FieldPath, errors: &mut Vec<FieldError>) {
    match value {
        None | Some("") => errors.push(FieldError::required(path, "")),
        Some(value) if !supported.contains(&value) => errors.push(FieldError::not_supported(path, value, supported)),
        Some(_) => {}
    }
}

/// Like [`one_of`], but the value may be absent.
pub fn one_of_if_set(value: Option<&str>, supported: &[&str], path: FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(value) = value.filter(|value| !supported.contains(value)) {
        errors.push(FieldError::not_supported(path, value, supported));
    }
}

/// Checks a value against one of the forms in [`name`].
pub fn named(value: &str, check: fn(&str) -> Vec<String>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    errors.extend(check(value).into_iter().map(|problem| FieldError::invalid(path.clone(), value, problem)));
}

/// Like [`named`], for a required field.
pub fn required_name(value: &str, check: fn(&str) -> Vec<String>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if value.is_empty() {
        errors.push(FieldError::required(path.clone(), ""));
    } else {
        named(value, check, path, errors);
    }
}

pub fn port_number(port: impl Into<i64>, path: FieldPath, errors: &mut Vec<FieldError>) {
    let port = port.into();
    if !(1..=65535).contains(&port) {
        errors.push(FieldError::invalid(path, port, "must be between 1 and 65535, inclusive"));
    }
}

/// Checks a port that is given by number or by the name of a container's port.
pub fn port(port: &IntOrString, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match port {
        IntOrString::Int(number) => port_number(*number, path.clone(), errors),
        IntOrString::String(name) => {
            for problem in port_name(name) {
                errors.push(FieldError::invalid(path.clone(), name, problem));
            }
        }
    }
}

/// Checks an IANA service name: at most 15 of `[a-z0-9-]` with at least one letter.
pub fn port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 bytes".to_owned());
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

pub fn ip(address: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if address.parse::<IpAddr>().is_err() {
        errors.push(FieldError::invalid(
            path.clone(),
            address,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
}

/// Checks a key of a ConfigMap or Secret, which also serves as a file name.
pub fn data_key(key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let fits = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let path = path.key(key);
    if key.len() > 253 {
        errors.push(FieldError::invalid(path.clone(), key, "must be no more than 253 bytes"));
    }
    if key.is_empty() || !fits {
        errors.push(FieldError::invalid(
            path.clone(),
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ));
    }
    match key {
        "." => errors.push(FieldError::invalid(path, key, "must not be '.'")),
        ".." => errors.push(FieldError::invalid(path, key, "must not be '..'")),
        _ if key.starts_with("..") => errors.push(FieldError::invalid(path, key, "must not start with '..'")),
        _ => {}
    }
}

/// Returns the error for a list with more than `max` elements.
pub fn too_many(path: FieldPath, got: usize, max: usize) -> FieldError {
    FieldError {
        path,
        kind: FieldErrorKind::TooMany,
        value: Some(got.to_string()),
        detail: format!("must have at most {max} items"),
    }
}

/// Checks a reference to another object by name.
pub fn reference(name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    required_name(name, name::dns1123_subdomain, path, errors);
}
