//! ConfigMaps and Secrets, of literals and files.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Generate, new};
use crate::error::{CliError, Result};
use crate::session::Session;

/// The sources of a ConfigMap's or Secret's entries.
#[derive(Debug, Default, clap::Args)]
pub struct Sources {
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub from_literal: Vec<String>,
    /// [KEY=]FILE or a directory, each file of which is an entry
    #[arg(long, value_name = "[KEY=]PATH")]
    pub from_file: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub from_env_file: Vec<String>,
}

impl Sources {
    pub fn entries(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let has_others = !self.from_file.is_empty() || !self.from_literal.is_empty();
        if has_others && !self.from_env_file.is_empty() {
            return Err(CliError::usage("from-env-file cannot be combined with from-file or from-literal"));
        }
        let mut entries = Vec::new();
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| CliError::usage(format!("invalid literal source {literal}, expected key=value")))?;
            entries.push((key.to_owned(), unquoted(value).as_bytes().to_vec()));
        }
        for source in &self.from_file {
            match source.split_once('=') {
                Some((key, path)) => entries.push((key.to_owned(), read(Path::new(path))?)),
                None => from_path(Path::new(source), &mut entries)?,
            }
        }
        for file in &self.from_env_file {
            let text = String::from_utf8_lossy(&read(Path::new(file))?).into_owned();
            for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (key, value) = line.split_once('=').map_or_else(
                    || (line, std::env::var(line).unwrap_or_default()),
                    |(key, value)| (key, value.to_owned()),
                );
                entries.push((key.to_owned(), value.into_bytes()));
            }
        }
        for (index, (key, _)) in entries.iter().enumerate() {
            if entries[..index].iter().any(|(other, _)| other == key) {
                return Err(CliError::usage(format!(
                    "cannot add key \"{key}\", another key by that name already exists"
                )));
            }
        }
        Ok(entries)
    }
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| CliError::io(format!("error reading {}", path.display()), source))
}

fn from_path(path: &Path, entries: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !path.is_dir() {
        entries.push((name(path), read(path)?));
        return Ok(());
    }
    let failed = |source| CliError::io(format!("error listing files in {}", path.display()), source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        if entry.is_file() {
            files.push(entry);
        }
    }
    files.sort();
    for file in files {
        entries.push((name(&file), read(&file)?));
    }
    Ok(())
}

/// The flags of a ConfigMap.
#[derive(Debug, Default, clap::Args)]
pub struct ConfigMap {
    #[command(flatten)]
    sources: Sources,
}

impl Generate for ConfigMap {
    const FAILURE: &'static str = "failed to create configmap: ";

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let (mut data, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in self.sources.entries()? {
            match String::from_utf8(bytes) {
                Ok(text) => data.insert(key, text.into()),
                Err(error) => binary.insert(key, STANDARD.encode(error.as_bytes()).into()),
            };
        }
        let mut object = new("v1", "ConfigMap", name);
        if !data.is_empty() {
            object["data"] = data.into();
        }
        if !binary.is_empty() {
            object["binaryData"] = binary.into();
        }
        Ok(object)
    }
}

const SECRET_FAILURE: &str = "failed to create secret ";

fn secret(name: &str, secret_type: Option<&str>, entries: Vec<(String, Vec<u8>)>) -> Value {
    let data: Map<String, Value> =
        entries.into_iter().map(|(key, bytes)| (key, STANDARD.encode(bytes).into())).collect();
    let mut object = new("v1", "Secret", name);
    if !data.is_empty() {
        object["data"] = data.into();
    }
    if let Some(secret_type) = secret_type {
        object["type"] = secret_type.into();
    }
    object
}

/// The flags of a Secret of any content.
#[derive(Debug, Default, clap::Args)]
pub struct GenericSecret {
    #[command(flatten)]
    sources: Sources,
    /// The Secret's type
    #[arg(long = "type")]
    secret_type: Option<String>,
}

impl Generate for GenericSecret {
    const FAILURE: &'static str = SECRET_FAILURE;

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        Ok(secret(name, self.secret_type.as_deref(), self.sources.entries()?))
    }
}

/// The flags of a Secret with a certificate and its key.
#[derive(Debug, clap::Args)]
pub struct TlsSecret {
    /// File with the certificate, in PEM
    #[arg(long)]
    cert: String,
    /// File with the certificate's private key, in PEM
    #[arg(long)]
    key: String,
}

impl Generate for TlsSecret {
    const FAILURE: &'static str = SECRET_FAILURE;

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        let entries = vec![pem("tls.crt", &self.cert, "CERTIFICATE")?, pem("tls.key", &self.key, "PRIVATE KEY")?];
        Ok(secret(name, Some("kubernetes.io/tls"), entries))
    }
}

/// Reads a file of PEM that must contain a block with this label.
fn pem(entry: &str, file: &str, label: &str) -> Result<(String, Vec<u8>)> {
    let bytes = read(Path::new(file))?;
    let text = String::from_utf8_lossy(&bytes);
    let end = format!("{label}-----");
    if text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&end)) {
        Ok((entry.to_owned(), bytes))
    } else {
        Err(CliError::usage(format!("{file} contains no {label} in PEM")))
    }
}

/// The flags of a Secret with the credentials of a registry.
#[derive(Debug, clap::Args)]
pub struct DockerRegistrySecret {
    /// The registry's server
    #[arg(long, default_value = "https://index.docker.io/v1/")]
    docker_server: String,
    #[arg(long, default_value = "")]
    docker_username: String,
    #[arg(long, default_value = "")]
    docker_password: String,
    #[arg(long, default_value = "")]
    docker_email: String,
    /// A configuration file of docker, as [KEY=]FILE, instead of the other flags
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
}

impl Generate for DockerRegistrySecret {
    const FAILURE: &'static str = SECRET_FAILURE;

    async fn object(&self, name: &str, _session: &mut Session) -> Result<Value> {
        const KEY: &str = ".dockerconfigjson";
        let (username, password) = (&self.docker_username, &self.docker_password);
        let entries = if !self.from_file.is_empty() {
            Sources { from_file: self.from_file.clone(), ..Sources::default() }.entries()?
        } else if username.is_empty() || password.is_empty() || self.docker_server.is_empty() {
            return Err(CliError::usage(
                "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required",
            ));
        } else {
            let mut account = json!({"username": username, "password": password});
            if !self.docker_email.is_empty() {
                account["email"] = self.docker_email.clone().into();
            }
            account["auth"] = STANDARD.encode(format!("{username}:{password}")).into();
            let server = &self.docker_server;
            vec![(KEY.to_owned(), json!({"auths": {server: account}}).to_string().into_bytes())]
        };
        Ok(secret(name, Some("kubernetes.io/dockerconfigjson"), entries))
    }
}
