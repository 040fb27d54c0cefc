//! The setup of workers: they join with a token, and authenticate with their current certificate to renew it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_pki::{JoinToken, Machine, Pair, read, write_private, write_public};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;

use super::client::{ClientCertificate, JOIN_TIMEOUT, Masters, Refusal, check_cluster};
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
    name: String,
    token: Option<JoinToken>,
    joined_with: PathBuf,
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

/// File beside the certificates with the id of the token with which this worker has joined. Another token lets it join
/// again, although its certificates are valid: its Node may have been deleted, so that they cannot be renewed.
const JOINED_WITH: &str = "token-id";

impl OwnCertificates {
    pub fn new(config: &AgentConfig) -> OwnCertificates {
        OwnCertificates {
            name: config.node_name.clone(),
            token: config.managed.as_ref().and_then(|managed| managed.token.clone()),
            joined_with: config.pki().join(JOINED_WITH),
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

    /// Returns the id of the token with which this worker has joined, if it is recorded.
    fn joined_with(&self) -> anyhow::Result<Option<String>> {
        if !self.joined_with.exists() {
            return Ok(None);
        }
        Ok(Some(read(&self.joined_with)?.trim().to_owned()))
    }

    /// Returns the configured token, if this worker has not joined with it yet.
    fn unused_token(&self) -> anyhow::Result<Option<JoinToken>> {
        let used = self.joined_with()?;
        Ok(self.token.clone().filter(|token| used.as_deref() != Some(token.id.as_str())))
    }

    /// Joins with the machine's key. Asks masters that do not answer again for the time of `patience`.
    async fn join(&mut self, token: &JoinToken, patience: Duration) -> anyhow::Result<()> {
        let body = json!({
            "token": format!("{}.{}", token.id, token.secret),
            "role": "worker",
            "name": self.name,
            "request": self.request()?,
        });
        let (authority_pem, signed) = Masters::new(&self.masters).join::<Signed>(token, &body, patience).await?;
        ensure!(!signed.masters.is_empty(), "the cluster's answer names no masters");
        write_public(&self.authority, authority_pem.as_bytes())?;
        self.save(&signed)?;
        write_public(&self.joined_with, format!("{}\n", token.id).as_bytes())?;
        tracing::info!(node = self.name, masters = signed.masters.len(), "joined");
        self.record_masters(signed.masters)
    }

    /// Joins with a token other than the recorded one while the certificates are valid. If that fails, the worker goes on
    /// with them, because the token may be an old one; but not if the cluster refuses to renew them too.
    async fn join_again(&mut self, token: &JoinToken) -> anyhow::Result<()> {
        let Err(error) = self.join(token, Duration::ZERO).await else { return Ok(()) };
        let id = &token.id;
        if error.is::<Refusal>() && self.renew().await.is_err_and(|refusal| refusal.is::<Refusal>()) {
            let message = format!("this worker was removed from the cluster, and cannot join again with token {id}");
            return Err(error.context(message));
        }
        tracing::warn!(error = format!("{error:#}"), id, "did not join with this token; the certificates stay in use");
        Ok(())
    }

    /// Returns whether a certificate is due for renewal, or the machine's address has changed.
    fn is_due(&self) -> anyhow::Result<bool> {
        Ok(is_due(&self.client.cert, &[])? || is_due(&self.serving.cert, &self.hosts)?)
    }

    /// Renews the certificates if they are due, and records the current masters. A worker that was removed since its start
    /// joins again if its token allows it.
    pub async fn maintain(&mut self) -> anyhow::Result<()> {
        if !self.is_due()? {
            let (authority_pem, cert_pem, key_pem) = self.credentials()?;
            let client_certificate = ClientCertificate { cert_pem: &cert_pem, key_pem: &key_pem };
            let known = Masters::new(&self.masters).list(&authority_pem, &client_certificate).await?;
            return self.record_masters(known);
        }
        let Err(error) = self.renew().await else { return Ok(()) };
        let Some(token) = self.unused_token()?.filter(|_| error.is::<Refusal>()) else { return Err(error) };
        let again = self.join(&token, Duration::ZERO).await;
        again.with_context(|| format!("the renewal failed ({error:#}), and so did a new join"))
    }

    /// Renews the certificates.
    async fn renew(&mut self) -> anyhow::Result<()> {
        let (authority_pem, cert_pem, key_pem) = self.credentials()?;
        let client_certificate = ClientCertificate { cert_pem: &cert_pem, key_pem: &key_pem };
        let body = json!({ "request": self.request()? });
        let masters = Masters::new(&self.masters);
        let signed = masters.renew::<Signed>(&authority_pem, &client_certificate, &body).await?;
        self.save(&signed)?;
        self.warn_of_missing_hosts()?;
        self.record_masters(signed.masters)
    }

    /// Returns the authority, the client certificate and its key, PEM.
    fn credentials(&self) -> anyhow::Result<(String, String, String)> {
        Ok((read(&self.authority)?, read(&self.client.cert)?, read(&self.client.key)?))
    }

    /// Warns when the masters have left a host out of the serving certificate, because it is a master's by now.
    fn warn_of_missing_hosts(&self) -> anyhow::Result<()> {
        if is_due(&self.serving.cert, &self.hosts)? {
            let hosts = self.hosts.join(", ");
            tracing::warn!(hosts, "the masters do not sign these addresses any more; give another with --node-ip");
        }
        Ok(())
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
    pub fn lifetime(&self) -> anyhow::Result<Option<Duration>> {
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
        block_on(own.join(token, JOIN_TIMEOUT)).context("this worker cannot join")?;
    } else if let Some(token) = own.unused_token()? {
        block_on(own.join_again(&token))?;
    }
    config.masters.clone_from(&own.masters);
    if let Some(options) = &managed.options {
        let mut options = (**options).clone();
        options.node_name = Some(config.node_name.clone());
        let text = toml::to_string(&options).context("the options cannot be written")?;
        write_private(&config.data_dir.join(KEPT_FILE), text.as_bytes())?;
    }
    Ok(())
}
