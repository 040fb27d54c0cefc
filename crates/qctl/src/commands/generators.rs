//! Makes the objects of `create KIND` from its flags.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::changes::ChangeFlags;
use crate::error::{CliError, Result};

/// A namespace
#[derive(Debug, clap::Args)]
pub struct Namespace {
    name: String,
    #[command(flatten)]
    pub change: ChangeFlags,
}

impl Namespace {
    pub fn object(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})
    }
}

/// A service account
#[derive(Debug, clap::Args)]
pub struct ServiceAccount {
    name: String,
    #[command(flatten)]
    pub change: ChangeFlags,
}

impl ServiceAccount {
    pub fn object(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": self.name}})
    }
}

/// The sources of a ConfigMap's or Secret's entries.
#[derive(Debug, Default, clap::Args)]
pub struct Sources {
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// [KEY=]FILE or a directory, each file of which is an entry
    #[arg(long, value_name = "[KEY=]PATH")]
    from_file: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<String>,
}

impl Sources {
    fn entries(&self) -> Result<Vec<(String, Vec<u8>)>> {
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

/// A ConfigMap
#[derive(Debug, clap::Args)]
pub struct ConfigMap {
    name: String,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    pub change: ChangeFlags,
}

impl ConfigMap {
    pub fn object(&self) -> Result<Value> {
        let (mut data, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in self.sources.entries()? {
            match String::from_utf8(bytes) {
                Ok(text) => data.insert(key, text.into()),
                Err(error) => binary.insert(key, STANDARD.encode(error.as_bytes()).into()),
            };
        }
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}});
        if !data.is_empty() {
            object["data"] = data.into();
        }
        if !binary.is_empty() {
            object["binaryData"] = binary.into();
        }
        Ok(object)
    }
}

/// A Secret
#[derive(Debug, clap::Args)]
pub struct Secret {
    #[command(subcommand)]
    kind: SecretKind,
}

#[derive(Debug, clap::Subcommand)]
enum SecretKind {
    /// From literals and files
    Generic {
        name: String,
        #[command(flatten)]
        sources: Sources,
        /// The Secret's type
        #[arg(long = "type")]
        secret_type: Option<String>,
        #[command(flatten)]
        change: ChangeFlags,
    },
    /// A certificate and its key
    Tls {
        name: String,
        #[arg(long)]
        cert: String,
        #[arg(long)]
        key: String,
        #[command(flatten)]
        change: ChangeFlags,
    },
}

impl Secret {
    pub fn object(self) -> Result<(Value, ChangeFlags)> {
        let (name, secret_type, entries, change) = match self.kind {
            SecretKind::Generic { name, sources, secret_type, change } => {
                (name, secret_type, sources.entries()?, change)
            }
            SecretKind::Tls { name, cert, key, change } => {
                let entries = vec![
                    ("tls.crt".to_owned(), read(Path::new(&cert))?),
                    ("tls.key".to_owned(), read(Path::new(&key))?),
                ];
                (name, Some("kubernetes.io/tls".to_owned()), entries, change)
            }
        };
        let data: Map<String, Value> =
            entries.into_iter().map(|(key, bytes)| (key, STANDARD.encode(bytes).into())).collect();
        let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        if !data.is_empty() {
            object["data"] = data.into();
        }
        if let Some(secret_type) = secret_type {
            object["type"] = secret_type.into();
        }
        Ok((object, change))
    }
}

/// A Deployment
#[derive(Debug, clap::Args)]
pub struct Deployment {
    name: String,
    /// The image of each container
    #[arg(long, required = true)]
    image: Vec<String>,
    #[arg(short = 'r', long, default_value_t = 1)]
    replicas: u32,
    /// A port of the container
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    pub change: ChangeFlags,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

impl Deployment {
    pub fn object(&self) -> Value {
        let containers: Vec<Value> = self
            .image
            .iter()
            .map(|image| {
                let mut container = json!({"name": container_name(image), "image": image});
                if !self.command.is_empty() {
                    container["command"] = json!(self.command);
                }
                if let Some(port) = self.port {
                    container["ports"] = json!([{"containerPort": port}]);
                }
                container
            })
            .collect();
        let labels = json!({"app": self.name});
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
        })
    }
}

/// Returns the container name for an image: `nginx` for `registry/team/nginx:1.2@sha256:…`.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split(['@', ':']).next().unwrap_or(last);
    name.chars()
        .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secrets_are_encoded_in_base64() {
        let sources = || Sources { from_literal: vec!["a=b=c".into(), "q='x'".into()], ..Sources::default() };
        let map = ConfigMap { name: "m".into(), sources: sources(), change: ChangeFlags::default() };
        assert_eq!(map.object().expect("valid")["data"], json!({"a": "b=c", "q": "x"}));
        let kind = SecretKind::Generic {
            name: "s".into(),
            sources: sources(),
            secret_type: None,
            change: ChangeFlags::default(),
        };
        let (object, _) = Secret { kind }.object().expect("valid");
        assert_eq!(object["data"], json!({"a": "Yj1j", "q": "eA=="}));
    }

    #[test]
    fn files_and_directories_become_entries() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("text"), "hello").expect("writable");
        std::fs::write(directory.path().join("bytes"), [0xff, 0xfe]).expect("writable");
        let sources = Sources { from_file: vec![directory.path().display().to_string()], ..Sources::default() };
        let object = ConfigMap { name: "m".into(), sources, change: ChangeFlags::default() }.object().expect("valid");
        assert_eq!(object["data"], json!({"text": "hello"}));
        assert_eq!(object["binaryData"], json!({"bytes": "//4="}));
        let twice = Sources { from_literal: vec!["a=1".into(), "a=2".into()], ..Sources::default() };
        assert!(twice.entries().is_err());
    }

    #[test]
    fn containers_are_named_after_their_image() {
        assert_eq!(container_name("registry:5000/team/nginx:1.2"), "nginx");
        assert_eq!(container_name("busybox@sha256:abc"), "busybox");
        assert_eq!(container_name("x/My_App"), "my-app");
    }
}
