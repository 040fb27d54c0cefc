//! The setup of workers: they join with a token, and authenticate with their current certificate to renew it.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use quorate_pki::{JoinToken, Machine, Pair, read, write_private, write_public};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;

use super::client::{ClientCertificate, Masters, check_cluster};
use super::{block_on, certificate, is_due};
use crate::config::AgentConfig;
use crate::config::agent::KEPT_FILE;

#[derive(Deserialize)]
struct Signed {
    client: String,
    serving: String,
    masters: Vec<String>,
}

/// A worker's certificates.
#[derive(Clone, Debug)]
pub struct OwnCertificates {
    client: Pair,
    serving: Pair,
    authority: PathBuf,
    hosts: Vec<String>,
    masters: Vec<String>,
    list: PathBuf,
}

/// File beside the certificates that lists the masters known to this worker, because all masters of its configuration
/// may have been replaced.
const MASTERS: &str = "masters";

impl OwnCertificates {
    pub fn new(config: &AgentConfig) -> OwnCertificates {
        OwnCertificates {
            client: Pair { cert: config.client_tls.cert.clone(), key: config.client_tls.key.clone() },
            serving: Pair { cert: config.serving_tls.cert.clone(), key: config.serving_tls.key.clone() },
            authority: config.client_tls.ca.clone(),
            hosts: vec![config.node_ip.to_string()],
            masters: config.masters.clone(),
            list: config.pki().join(MASTERS),
        }
    }

    fn request(&self) -> anyhow::Result<String> {
        Ok(Machine::open(&self.client)?.request(&self.hosts)?)
    }

    fn save(&self, signed: &Signed) -> anyhow::Result<()> {
        write_public(&self.serving.cert, signed.serving.as_bytes())?;
        Ok(write_public(&self.client.cert, signed.client.as_bytes())?)
    }

    async fn join(&self, name: &str, token: &JoinToken) -> anyhow::Result<Signed> {
        let body = json!({
            "token": format!("{}.{}", token.id, token.secret),
            "role": "worker",
            "name": name,
            "request": self.request()?,
        });
        let (authority_pem, signed) = Masters::new(&self.masters).join::<Signed>(token, &body).await?;
        write_public(&self.authority, authority_pem.as_bytes())?;
        self.save(&signed)?;
        Ok(signed)
    }

    /// Returns whether a certificate is due for renewal, or the machine's address has changed.
    fn is_due(&self) -> anyhow::Result<bool> {
        Ok(is_due(&self.client.cert, &[])? || is_due(&self.serving.cert, &self.hosts)?)
    }

    /// Renews the certificates if they are due, and records the current masters.
    pub async fn maintain(&mut self) -> anyhow::Result<()> {
        let (authority_pem, cert_pem, key_pem) =
            (read(&self.authority)?, read(&self.client.cert)?, read(&self.client.key)?);
        let client_certificate = ClientCertificate { cert_pem: &cert_pem, key_pem: &key_pem };
        let known = if self.is_due()? {
            let body = json!({ "request": self.request()? });
            let signed =
                Masters::new(&self.masters).renew::<Signed>(&authority_pem, &client_certificate, &body).await?;
            self.save(&signed)?;
            signed.masters
        } else {
            Masters::new(&self.masters).list(&authority_pem, &client_certificate).await?
        };
        self.record_masters(known)
    }

    /// Records the current masters for later requests and later starts.
    fn record_masters(&mut self, known: Vec<String>) -> anyhow::Result<()> {
        let lines = known.iter().fold(String::new(), |lines, url| lines + url + "\n");
        if !known.is_empty() && (!self.list.exists() || read(&self.list)? != lines) {
            write_public(&self.list, lines.as_bytes())?;
        }
        let configured = std::mem::take(&mut self.masters);
        for url in known.into_iter().chain(configured) {
            if !self.masters.contains(&url) {
                self.masters.push(url);
            }
        }
        Ok(())
    }

    /// Returns the total validity of the client certificate.
    pub fn lifetime(&self) -> anyhow::Result<Option<std::time::Duration>> {
        let found = certificate(&self.client.cert)?;
        Ok(found.and_then(|found| (found.not_after - found.not_before).try_into().ok()))
    }
}

/// Ensures that there are certificates. Does nothing when they are given as files.
pub fn prepare(config: &mut AgentConfig) -> anyhow::Result<()> {
    let Some(managed) = config.managed.clone() else { return Ok(()) };
    let mut own = OwnCertificates::new(config);
    if own.list.exists() {
        let known = read(&own.list)?.lines().map(str::to_owned).collect();
        own.record_masters(known)?;
        config.masters.clone_from(&own.masters);
    }
    if own.authority.exists()
        && let Some(token) = &managed.token
    {
        check_cluster(&read(&own.authority)?, &token.pin)?;
    }
    let now = OffsetDateTime::now_utc();
    let found = certificate(&own.client.cert)?;
    if let Some(user) = found.as_ref().map(|found| &found.user) {
        ensure!(
            *user == format!("system:node:{}", config.node_name),
            "{} belongs to {user}, not to the node {}; give --node-name, or another --data-dir",
            config.pki().display(),
            config.node_name
        );
    }
    let has_valid = found.is_some_and(|found| found.remaining(now).is_some());
    if !has_valid {
        let had = if own.client.cert.exists() {
            "the certificates of this node have expired"
        } else {
            "this node has not joined a cluster"
        };
        let token = managed.token.as_ref().with_context(|| {
            format!("{had}: start it with the --token that `qctl token create --role worker` prints, or give the certificate files")
        })?;
        let signed = block_on(own.join(&config.node_name, token)).context("this worker cannot join")?;
        ensure!(!signed.masters.is_empty(), "the cluster's answer names no masters");
        tracing::info!(node = config.node_name, masters = signed.masters.len(), "joined");
        own.record_masters(signed.masters)?;
        config.masters.clone_from(&own.masters);
    }
    if let Some(options) = &managed.options {
        let mut options = (**options).clone();
        options.node_name = Some(config.node_name.clone());
        let text = toml::to_string(&options).context("the options cannot be written")?;
        write_private(&config.data_dir.join(KEPT_FILE), text.as_bytes())?;
    }
    Ok(())
}
