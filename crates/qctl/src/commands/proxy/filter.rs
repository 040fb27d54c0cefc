//! Which requests the proxy serves. Pure.

use http::Method;
use regex::Regex;

use crate::error::{CliError, Result};

/// Regular expressions of requests.
#[derive(Clone, Debug)]
pub struct Filter {
    accept_paths: Vec<Regex>,
    reject_paths: Vec<Regex>,
    accept_hosts: Vec<Regex>,
    reject_methods: Vec<Regex>,
}

fn expressions(list: &str) -> Result<Vec<Regex>> {
    let parts = list.split(',').filter(|part| !part.is_empty());
    parts.map(|part| Regex::new(part).map_err(|error| CliError::usage(format!("{part}: {error}")))).collect()
}

impl Filter {
    /// Creates a filter of lists that are separated by commas.
    ///
    /// # Errors
    /// When one is not a regular expression.
    pub fn new(accept_paths: &str, reject_paths: &str, accept_hosts: &str, reject_methods: &str) -> Result<Self> {
        Ok(Filter {
            accept_paths: expressions(accept_paths)?,
            reject_paths: expressions(reject_paths)?,
            accept_hosts: expressions(accept_hosts)?,
            reject_methods: expressions(reject_methods)?,
        })
    }

    /// Whether to serve a request. `host` is its Host header, with or without a port.
    #[must_use]
    pub fn accepts(&self, method: &Method, path: &str, host: &str) -> bool {
        let matches = |expressions: &[Regex], text: &str| expressions.iter().any(|one| one.is_match(text));
        // The colons of an IPv6 address are within its brackets.
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        !matches(&self.reject_paths, path)
            && !matches(&self.reject_methods, method.as_str())
            && matches(&self.accept_paths, path)
            && matches(&self.accept_hosts, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_hosts_and_commands_in_pods_are_not_served() {
        let hosts = r"^localhost$,^127\.0\.0\.1$,^\[::1\]$";
        let filter = Filter::new("^.*", "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach", hosts, "^$").expect("valid");
        let get = |path: &str, host: &str| filter.accepts(&Method::GET, path, host);
        assert!(get("/api/v1/pods", "localhost:8001") && get("/version", "127.0.0.1") && get("/", "[::1]:80"));
        assert!(!get("/api/v1/pods", "example.org") && !get("/api/v1/pods", "localhost.example.org:8001"));
        assert!(!get("/api/v1/namespaces/a/pods/b/exec", "localhost"));
        let careful = Filter::new("^/api", "", "^localhost$", "POST,PUT").expect("valid");
        assert!(careful.accepts(&Method::GET, "/api", "localhost"));
        assert!(!careful.accepts(&Method::POST, "/api", "localhost"));
        assert!(!careful.accepts(&Method::GET, "/version", "localhost"));
        assert!(Filter::new("(", "", "", "").is_err());
    }
}
