//! Ingresses, from rules such as `host/path*=service:port,tls=secret`.

use serde_json::{Value, json};

use super::{Generate, new, number_or_text, pairs};
use crate::error::{CliError, Result};
use crate::session::Session;

/// The flags of an Ingress.
#[derive(Debug, clap::Args)]
pub struct Ingress {
    /// HOST/PATH=SERVICE:PORT[,tls[=SECRET]]; a path that ends with * is a prefix
    #[arg(long)]
    rule: Vec<String>,
    /// The ingress class
    #[arg(long)]
    class: Option<String>,
    /// The service of all other requests, as SERVICE:PORT
    #[arg(long)]
    default_backend: Option<String>,
    /// KEY=VALUE
    #[arg(long)]
    annotation: Vec<String>,
}

impl Generate for Ingress {
    const FAILURE: &'static str = "failed to create ingress: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        if self.default_backend.is_none() && self.rule.is_empty() {
            return Err(CliError::usage(
                "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)",
            ));
        }
        let rules = self.rule.iter().map(|text| Rule::parse(text)).collect::<Result<Vec<Rule>>>()?;
        let mut object = new("networking.k8s.io/v1", "Ingress", name);
        if !self.annotation.is_empty() {
            object["metadata"]["annotations"] = pairs(&self.annotation, "annotation")?;
        }
        let mut spec = json!({});
        if let Some(class) = &self.class {
            spec["ingressClassName"] = class.clone().into();
        }
        if let Some(text) = &self.default_backend {
            let backend = text
                .split_once(':')
                .filter(|(_, port)| !port.contains(':'))
                .ok_or_else(|| CliError::usage("default-backend should be in format servicename:serviceport"))?;
            spec["defaultBackend"] = backend_of(backend);
        }
        let (hosts, tls) = (by_host(&rules), tls(&rules));
        if !tls.is_empty() {
            spec["tls"] = tls.into();
        }
        if !hosts.is_empty() {
            spec["rules"] = hosts.into();
        }
        object["spec"] = spec;
        Ok(object)
    }
}

fn backend_of((service, port): (&str, &str)) -> Value {
    let port = number_or_text(port);
    let kind = if port.is_number() { "number" } else { "name" };
    json!({"service": {"name": service, "port": {kind: port}}})
}

struct Rule<'a> {
    host: &'a str,
    path: String,
    path_type: &'static str,
    backend: (&'a str, &'a str),
    /// The Secret's name, which may be empty.
    tls: Option<&'a str>,
}

impl<'a> Rule<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let is_word =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let is_host = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_*-.".contains(c));
        let parsed = || {
            let (rule, tls) = match text.split_once(',') {
                None => (text, None),
                Some((rule, "tls")) => (rule, Some("")),
                Some((rule, tls)) => (rule, Some(tls.strip_prefix("tls=")?)),
            };
            let (address, backend) = rule.split_once('=')?;
            let (host, path) = address.split_once('/')?;
            let (service, port) = backend.split_once(':')?;
            let is_valid = is_host(host) && is_word(service) && is_word(port);
            let (path, path_type) = match path.strip_suffix('*') {
                Some(prefix) => (prefix, "Prefix"),
                None => (path, "Exact"),
            };
            let tls = tls.filter(|secret| secret.is_empty() || is_word(secret));
            is_valid.then(|| Rule { host, path: format!("/{path}"), path_type, backend: (service, port), tls })
        };
        parsed().ok_or_else(|| {
            CliError::usage(format!(
                "rule {text} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
            ))
        })
    }
}

/// Returns the rules of the object: one for each host, with all its paths.
fn by_host(rules: &[Rule<'_>]) -> Vec<Value> {
    let mut hosts: Vec<(&str, Vec<Value>)> = Vec::new();
    for rule in rules {
        let path = json!({"path": rule.path, "pathType": rule.path_type, "backend": backend_of(rule.backend)});
        match hosts.iter_mut().find(|(host, _)| *host == rule.host) {
            Some((_, paths)) => paths.push(path),
            None => hosts.push((rule.host, vec![path])),
        }
    }
    let object = |(host, paths): (&str, Vec<Value>)| {
        let mut object = json!({"http": {"paths": paths}});
        if !host.is_empty() {
            object["host"] = host.into();
        }
        object
    };
    hosts.into_iter().map(object).collect()
}

/// Returns one entry for each Secret, with its hosts. A host counts once.
fn tls(rules: &[Rule<'_>]) -> Vec<Value> {
    let mut secrets: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut seen = Vec::new();
    for rule in rules {
        let Some(secret) = rule.tls.filter(|_| !seen.contains(&rule.host)) else { continue };
        seen.push(rule.host);
        let host = Some(rule.host).filter(|host| !host.is_empty());
        match secrets.iter_mut().find(|(known, _)| *known == secret) {
            Some((_, hosts)) => hosts.extend(host),
            None if secret.is_empty() && host.is_none() => {}
            None => secrets.push((secret, host.into_iter().collect())),
        }
    }
    let object = |(secret, hosts): (&str, Vec<&str>)| {
        let mut object = json!({});
        if !hosts.is_empty() {
            object["hosts"] = hosts.into();
        }
        if !secret.is_empty() {
            object["secretName"] = secret.into();
        }
        object
    };
    secrets.into_iter().map(object).collect()
}
